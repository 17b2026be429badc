//! Judges R1 to R13, R16 and R23. `statuses` judges the changes after a creation and the order of results, `operators` the
//! commands of operators, `letters` the retention of dead letters.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    CommandRun, Event, History, LetterRetention, Link, Published, ReceivedMessage, Record, RecordedAct, Rule,
    Violation, Webhook, letters, liveness, operators::Operated, statuses::Followed,
};

const REJECTED: &str = "payout_link.rejected";

/// Returns a violation for every broken rule. `tries` is the number of attempts in the webhook schedule, the first
/// one included.
pub fn check(history: &History, tries: u32) -> Vec<Violation> {
    let known = Known::of(history);
    let mut found = Findings { found: Vec::new(), tries };
    for of_key in known.by_key.values() {
        found.jobs(&known, of_key);
        found.links(of_key);
        if let Some(record) = of_key.record {
            found.record(&known, of_key, record);
            found.results(of_key, record);
            found.webhooks(of_key, record);
            found.operators(of_key, record);
        }
        let asked_later = history.asked_later.as_ref();
        let followed = Followed {
            key: of_key.key,
            is_created: of_key.record.is_some_and(|record| record.state == "created"),
            results: &of_key.results,
            posts: &of_key.posts,
            links: &of_key.links,
            conclusions: of_key.conclusions(),
            actions: of_key.actions.len(),
            is_asked_later: asked_later.map(|asked_later| asked_later.contains(of_key.key)),
        };
        found.found.extend(followed.check());
        let operated = Operated {
            key: of_key.key,
            runs: &of_key.runs,
            acts: &of_key.acts,
            posts: &of_key.posts,
            redelivered: &of_key.redelivered,
        };
        found.found.extend(operated.check());
    }
    let is_left = |id: &&String| known.dead_lettered.contains(id.as_str());
    for id in history.corrected.iter().filter(is_left) {
        found.wrong(true, "R24", || format!("{id} was corrected and requeued, and is a dead letter"));
    }
    found.rejections(&known);
    found.answers(&known, history);
    found.found.extend(liveness::check(history));
    found.found.extend(letters::check(history));
    for message in history.messages.iter().filter(|message| message.id.is_none()) {
        found.wrong(true, "R9", || format!("{message:?} has no id"));
    }
    for before in &history.before {
        let of_key = known.by_key.get(before.key.as_str());
        let after = of_key.and_then(|of_key| of_key.record);
        let is_acted_on = of_key.is_some_and(|of_key| !of_key.actions.is_empty());
        let is_redelivered = of_key.is_some_and(|of_key| !of_key.redelivered.is_empty());
        let is_same = after.is_some_and(|after| {
            if is_redelivered { but_for_attempts(before) == but_for_attempts(after) } else { before == after }
        });
        found.wrong(!is_same && !is_acted_on, "R8", || format!("{before:?} became {after:?}"));
    }
    found.wrong(history.waiting > 0, "R10", || format!("{} jobs in the queue", history.waiting));
    for leak in &history.leaks {
        found.wrong(true, "R11", || format!("secret {} is in {}", leak.secret, leak.location));
    }
    found.found.sort_by(|one, other| (rank(one), &one.evidence).cmp(&(rank(other), &other.evidence)));
    found.found
}

/// Returns the record without the number of webhook attempts, which a redelivery increases.
fn but_for_attempts(record: &Record) -> Record {
    let event = record.event.clone().map(|event| Event { webhook_attempts: 0, ..event });
    Record { event, ..record.clone() }
}

/// Orders violations by the number of their rule: R2 comes before R10.
fn rank(violation: &Violation) -> (usize, &'static str) {
    (violation.rule.len(), violation.rule)
}

/// The history, grouped by key and by message.
struct Known<'a> {
    by_key: HashMap<&'a str, OfKey<'a>>,
    /// Received rejections, by the message that they answer.
    rejections: HashMap<Option<&'a str>, Vec<&'a ReceivedMessage>>,
    dead: HashSet<&'a str>,
    /// Every dead letter, with a reason or without.
    dead_lettered: HashSet<&'a str>,
    /// The results of each message, in the order of their arrival.
    answers: HashMap<&'a str, Vec<&'a str>>,
    called: Option<&'a HashSet<String>>,
    letter_retention: Option<LetterRetention>,
    ambiguous: &'a HashSet<String>,
    corrected: &'a HashSet<String>,
}

/// All evidence about one key.
#[derive(Default)]
struct OfKey<'a> {
    key: &'a str,
    record: Option<&'a Record>,
    jobs: Vec<&'a Published>,
    links: Vec<&'a Link>,
    results: Vec<&'a ReceivedMessage>,
    posts: Vec<&'a Webhook>,
    later: Vec<&'a Event>,
    earlier: Vec<&'a Event>,
    actions: Vec<&'a str>,
    runs: Vec<&'a CommandRun>,
    acts: Vec<&'a RecordedAct>,
    redelivered: Vec<&'a Webhook>,
}

impl<'a> Known<'a> {
    fn of(history: &'a History) -> Self {
        let mut by_key: HashMap<&str, OfKey<'_>> = HashMap::with_capacity(history.published.len());
        let mut rejections: HashMap<_, Vec<&ReceivedMessage>> = HashMap::new();
        for job in &history.published {
            at(&mut by_key, &job.key).jobs.push(job);
        }
        for link in &history.links {
            at(&mut by_key, &link.key).links.push(link);
        }
        for record in &history.records {
            at(&mut by_key, &record.key).record = Some(record);
        }
        let mut answers: HashMap<&str, Vec<&str>> = HashMap::new();
        for message in &history.messages {
            if let Some(message_id) = &message.correlation_id {
                answers.entry(message_id).or_default().push(&message.kind);
            }
            if message.kind == REJECTED {
                rejections.entry(message.correlation_id.as_deref()).or_default().push(message);
            } else {
                at(&mut by_key, &message.key).results.push(message);
            }
        }
        for post in &history.webhooks {
            at(&mut by_key, &post.key).posts.push(post);
        }
        for later in &history.later {
            at(&mut by_key, &later.key).later.push(&later.event);
        }
        for earlier in &history.earlier {
            at(&mut by_key, &earlier.key).earlier.push(&earlier.event);
        }
        for action in &history.actions {
            at(&mut by_key, &action.key).actions.push(&action.command);
        }
        for run in &history.commands {
            at(&mut by_key, &run.key).runs.push(run);
        }
        for act in &history.acts {
            at(&mut by_key, &act.key).acts.push(act);
        }
        for post in &history.redelivered {
            at(&mut by_key, &post.key).redelivered.push(post);
        }
        let dead = history.dead.iter().filter(|dead| dead.has_reason);
        let dead = dead.filter_map(|dead| dead.message_id.as_deref()).collect();
        let dead_lettered = history.dead.iter().filter_map(|dead| dead.message_id.as_deref()).collect();
        Self {
            by_key,
            rejections,
            dead,
            dead_lettered,
            answers,
            called: history.called.as_ref(),
            letter_retention: history.letter_retention,
            ambiguous: &history.ambiguous,
            corrected: &history.corrected,
        }
    }

    fn was_rejected(&self, job: &Published) -> bool {
        self.rejections.contains_key(&Some(job.message_id.as_str()))
    }

    /// Returns whether the message got a result that only an accepted job gets.
    fn was_answered(&self, job: &Published) -> bool {
        let kinds = self.answers.get(job.message_id.as_str());
        kinds.is_some_and(|kinds| kinds.iter().any(|&kind| kind != REJECTED))
    }

    fn is_dead(&self, job: &Published) -> bool {
        self.dead.contains(job.message_id.as_str())
    }

    /// Returns whether the job's dead letter may be deleted: its newest rejection is past the retention, or has no time.
    fn may_be_deleted(&self, job: &Published) -> bool {
        let Some(retention) = self.letter_retention else { return false };
        let rejections = self.rejections.get(&Some(job.message_id.as_str()));
        let newest = rejections.into_iter().flatten().map(|rejection| rejection.timestamp).max();
        newest.is_some_and(|newest| newest.is_none_or(|newest| retention.is_past(newest)))
    }
}

fn at<'a, 'm>(by_key: &'m mut HashMap<&'a str, OfKey<'a>>, key: &'a str) -> &'m mut OfKey<'a> {
    by_key.entry(key).or_insert_with(|| OfKey { key, ..OfKey::default() })
}

struct Findings {
    found: Vec<Violation>,
    tries: u32,
}

impl Findings {
    fn wrong(&mut self, is_wrong: bool, rule: &'static str, evidence: impl FnOnce() -> String) {
        if is_wrong {
            self.found.push(Violation { rule, evidence: evidence() });
        }
    }

    /// Checks that of several requests under one key one is accepted, with all its duplicates, and every other is
    /// rejected.
    fn jobs(&mut self, known: &Known<'_>, of_key: &OfKey<'_>) {
        let record = of_key.record;
        let accepted = of_key.accepted(known);
        for job in &of_key.jobs {
            let (was_rejected, is_dead) = (known.was_rejected(job), known.is_dead(job));
            let is_recorded = record.is_some() && accepted == Some(job.fingerprint.as_str());
            let was_dead = is_dead || known.may_be_deleted(job);
            self.wrong(!(is_recorded || was_rejected && was_dead), "R1", || {
                format!(
                    "{job:?}: record {record:?}, rejection received {was_rejected}, dead letter {is_dead}"
                )
            });
            let is_accepted = is_recorded || known.was_answered(job);
            let is_rejected = was_rejected || known.dead_lettered.contains(job.message_id.as_str());
            let is_one_message =
                !known.ambiguous.contains(&job.message_id) && !known.corrected.contains(&job.message_id);
            self.wrong(is_accepted && is_rejected && is_one_message, "R12", || {
                let kinds = known.answers.get(job.message_id.as_str());
                let dead = known.dead_lettered.contains(job.message_id.as_str());
                format!(
                    "{job:?} is both: recorded {is_recorded}, dead letter {dead}, results in this order {kinds:?}"
                )
            });
        }
        if let Some(record) = record {
            let is_known = of_key.jobs.iter().any(|job| job.is_valid && job.amount == record.amount);
            self.wrong(!is_known, "R8", || format!("{record:?} is of no job that was published"));
        }
    }

    fn links(&mut self, of_key: &OfKey<'_>) {
        let (key, links) = (of_key.key, &of_key.links);
        self.wrong(links.len() > 1, "R2", || format!("{key} has {} links: {links:?}", links.len()));
        self.wrong(!links.is_empty() && of_key.record.is_none(), "R3", || {
            format!("{key} has a link and no record")
        });
        for link in links {
            let differs = of_key.record.is_some_and(|record| record.amount != link.amount);
            self.wrong(differs, "R8", || format!("{link:?} is not of the accepted {:?}", of_key.record));
        }
    }

    fn record(&mut self, known: &Known<'_>, of_key: &OfKey<'_>, record: &Record) {
        let links = &of_key.links;
        let event_kind = record.event.as_ref().map(|event| event.kind.as_str());
        match record.state.as_str() {
            "created" => {
                let is_theirs = links.iter().any(|link| Some(&link.id) == record.link_id.as_ref());
                self.wrong(!is_theirs, "R3", || format!("{record:?}, and the connector has {links:?}"));
                let of_link = |message: &&&ReceivedMessage| {
                    message.sequence.unwrap_or(1) >= of_key.conclusions()
                        && links.iter().all(|link| link.url.is_some())
                };
                for message in of_key.results.iter().filter(of_link) {
                    let is_known = links.iter().any(|link| link.url == message.link_url);
                    self.wrong(!is_known, "R3", || {
                        format!("{:?} of {record:?} has another link", message.id)
                    });
                }
                self.wrong(event_kind != Some("payout_link.created"), "R3", || format!("{record:?}"));
            }
            "failed" => {
                self.wrong(!links.is_empty(), "R4", || format!("{record:?} has {links:?}"));
                // A cancel before the first call also ends the record as failed.
                let is_cancelled = event_kind == Some("payout_link.cancelled") && record.calls.is_empty();
                self.wrong(event_kind != Some("payout_link.failed") && !is_cancelled, "R4", || {
                    format!("{record:?}")
                });
            }
            "unknown" => {
                self.unknown(of_key, record, event_kind);
                let was_called = known.called.is_none_or(|called| called.contains(&record.key));
                self.wrong(!was_called, "R13", || format!("{record:?} was never sent to the provider"));
            }
            _ => self.wrong(true, "R10", || format!("{record:?} is open")),
        }
        let event_is_left = record.event.as_ref().is_none_or(Event::is_left);
        self.wrong(record.due || record.leased || event_is_left, "R10", || format!("{record:?}"));
        for event in of_key.later.iter().chain(&of_key.earlier).filter(|event| event.is_left()) {
            self.wrong(true, "R10", || format!("{event:?} of {}", record.key));
        }
    }

    fn unknown(&mut self, of_key: &OfKey<'_>, record: &Record, event_kind: Option<&str>) {
        let rule = of_key.jobs.iter().map(|job| job.rule).next();
        let is_unresolvable = match rule {
            Some(Rule::Never) => record.is_unknown,
            // With keys, a record may stay unknown only if a later call was declined or the key existed already.
            // Neither resolves the first call.
            Some(Rule::SameKey) => {
                let ends_the_key = |call: &String| matches!(call.as_str(), "declined" | "already_there");
                record.is_unknown && record.calls.iter().any(ends_the_key)
            }
            Some(Rule::LookUp) | None => false,
        };
        self.wrong(!is_unresolvable, "R5", || format!("{record:?} under {rule:?}"));
        self.wrong(event_kind != Some("payout_link.pending"), "R5", || {
            format!("{record:?} has no payout_link.pending event")
        });
    }

    fn results(&mut self, of_key: &OfKey<'_>, record: &Record) {
        let Some(event) = &record.event else { return };
        for event in of_key.later.iter().chain(&of_key.earlier).copied().chain([event]) {
            self.results_of(of_key, event);
        }
        let mut contents: HashMap<Option<&str>, BTreeSet<_>> = HashMap::new();
        for message in &of_key.results {
            let expected = of_key.concluded_with(message.sequence, event);
            self.wrong(
                expected.is_some_and(|expected| message.id.as_ref() != Some(&expected.id)),
                "R9",
                || format!("{message:?} is no repeat of {event:?}"),
            );
            let of_id = contents.entry(message.id.as_deref()).or_default();
            of_id.insert((message.sequence, &message.kind, &message.body));
        }
        for (id, contents) in contents.iter().filter(|(_, contents)| contents.len() > 1) {
            self.wrong(true, "R6", || {
                format!("{} results of {} under the id {id:?}", contents.len(), record.key)
            });
        }
        // A duplicate is answered with the newest event, whichever that is.
        let is_replied = of_key.results.iter().any(|message| message.is_reply);
        let answered: HashSet<_> =
            of_key.results.iter().filter_map(|message| message.correlation_id.as_deref()).collect();
        for job in of_key.of_amount(&record.amount) {
            self.wrong(job.wants_reply && !is_replied, "R6", || format!("no reply to {job:?}"));
            let is_answered = answered.contains(job.message_id.as_str());
            self.wrong(job.came_late && !is_answered, "R6", || format!("no answer to {job:?}"));
        }
    }

    fn results_of(&mut self, of_key: &OfKey<'_>, event: &Event) {
        let of_event = || of_key.results.iter().filter(|message| message.id.as_ref() == Some(&event.id));
        self.wrong(of_event().all(|message| message.is_reply), "R6", || format!("no result of {event:?}"));
        for message in of_event().filter(|message| message.kind != event.kind) {
            self.wrong(true, "R6", || {
                format!("another type than that of {event:?} was published: {}", message.kind)
            });
        }
    }

    fn webhooks(&mut self, of_key: &OfKey<'_>, record: &Record) {
        let Some(event) = &record.event else { return };
        // A `webhook_url` does not make another request: among duplicates, the first accepted one decides.
        let mut jobs = of_key.of_amount(&record.amount).peekable();
        let is_wanted = jobs.peek().is_some() && jobs.all(|job| job.wants_webhook);
        for event in of_key.later.iter().chain(&of_key.earlier).copied().chain([event]) {
            self.webhooks_of(of_key, event, is_wanted);
        }
        let mut bodies: HashMap<Option<&str>, BTreeSet<&str>> = HashMap::new();
        for post in &of_key.posts {
            // If results were received, each later webhook belongs to one of them.
            let is_known = match of_key.concluded_with(post.sequence, event) {
                None => of_key.results.is_empty() || of_key.results.iter().any(|result| result.id == post.id),
                Some(expected) => post.id.as_ref() == Some(&expected.id),
            };
            self.wrong(!is_known, "R9", || format!("{post:?} is not of {event:?}"));
            bodies.entry(post.id.as_deref()).or_default().insert(&post.body);
        }
        for (id, bodies) in bodies.iter().filter(|(_, bodies)| bodies.len() > 1) {
            self.wrong(true, "R7", || {
                format!("{} bodies of webhooks of {} under the id {id:?}", bodies.len(), record.key)
            });
        }
    }

    fn webhooks_of(&mut self, of_key: &OfKey<'_>, event: &Event, is_wanted: bool) {
        let of_event = || of_key.posts.iter().filter(|post| post.id.as_ref() == Some(&event.id));
        let gave_up = event.webhook_state == "abandoned"
            && (of_event().any(|post| post.status == Some(410)) || event.webhook_attempts >= self.tries);
        let is_taken =
            of_event().any(|post| post.is_verified && post.status.is_some_and(|status| status / 100 == 2));
        let is_owed = (is_wanted && !gave_up) || event.webhook_state == "delivered";
        self.wrong(is_owed && !is_taken, "R7", || format!("no webhook of {event:?}: {:?}", of_key.posts));
    }

    /// Checks that each action of an operator leads to one more conclusion, and that nothing else does.
    fn operators(&mut self, of_key: &OfKey<'_>, record: &Record) {
        let (earlier, actions) = (&of_key.earlier, &of_key.actions);
        self.wrong(earlier.len() != actions.len() && record.state != "open", "R23", || {
            format!("{record:?} was concluded {} times before, after the actions {actions:?}", earlier.len())
        });
    }

    /// Checks that an answer that reached a worker is in its record. R2 judges a second link under the key.
    fn answers(&mut self, known: &Known<'_>, history: &History) {
        for answer in &history.answered {
            let record = known.by_key.get(answer.key.as_str()).and_then(|of_key| of_key.record);
            let is_recorded =
                record.is_some_and(|record| record.state == "created" && record.link_id.is_some());
            self.wrong(!is_recorded, "R16", || format!("{answer:?} was discarded: {record:?}"));
        }
    }

    /// Checks that the rejections of a job are equal. The worker stores nothing about a rejected job, so it must
    /// derive equal ids without a stored state.
    fn rejections(&mut self, known: &Known<'_>) {
        for (of, repeats) in &known.rejections {
            let ids: BTreeSet<_> = repeats.iter().map(|message| &message.id).collect();
            self.wrong(ids.len() > 1, "R9", || format!("rejections of {of:?} under {ids:?}"));
            let bodies: BTreeSet<_> = repeats.iter().map(|message| &message.body).collect();
            self.wrong(bodies.len() > 1, "R6", || format!("rejections of {of:?} differ"));
        }
    }
}

impl Event {
    fn is_left(&self) -> bool {
        self.due || self.leased || !self.published || self.webhook_state == "pending"
    }
}

impl<'a> OfKey<'a> {
    /// Returns the number of conclusions, which is also the sequence of the last one's event: only the last
    /// conclusion has later events.
    fn conclusions(&self) -> u32 {
        u32::try_from(self.earlier.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Returns the event of the conclusion with this number, or `None` for a later event. `last` is the event of the
    /// last conclusion.
    fn concluded_with<'b>(&'b self, sequence: Option<u32>, last: &'b Event) -> Option<&'b Event> {
        let place = usize::try_from(sequence.unwrap_or(1).max(1) - 1).unwrap_or(usize::MAX);
        match self.earlier.get(place) {
            Some(earlier) => Some(earlier),
            None => (place == self.earlier.len()).then_some(last),
        }
    }

    /// Returns the accepted request: the one with the record's amount that was not rejected.
    fn accepted(&self, known: &Known<'_>) -> Option<&'a str> {
        let amount = self.record.map(|record| record.amount.as_str())?;
        let of_amount = || self.of_amount(amount);
        let taken = of_amount().find(|job| !known.was_rejected(job) && !known.is_dead(job));
        taken.or_else(|| of_amount().next()).map(|job| job.fingerprint.as_str())
    }

    fn of_amount(&self, amount: &str) -> impl Iterator<Item = &'a Published> {
        self.jobs.iter().copied().filter(move |job| job.is_valid && job.amount == amount)
    }
}
