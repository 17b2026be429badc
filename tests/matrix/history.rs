//! The checker: what was published, made, told and written down; and every rule that it breaks.

use std::collections::{BTreeMap, BTreeSet};

/// Which way out of doubt a job's connector has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    SameKey,
    LookUp,
    Never,
}

/// A job that RabbitMQ confirmed.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its own, however often its key is used.
    pub message_id: String,
    pub key: String,
    /// What the request means: two that differ in it are in conflict.
    pub fingerprint: String,
    pub is_valid: bool,
    pub rule: Rule,
    pub wants_webhook: bool,
    pub wants_reply: bool,
    /// It came when its key's record was concluded already, and is owed an answer of its own.
    pub came_late: bool,
}

/// A link at the connector.
#[derive(Debug, Clone)]
pub struct Link {
    pub id: String,
    pub key: String,
    pub fingerprint: String,
    pub url: String,
}

/// A row of the database, with its event.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub key: String,
    pub fingerprint: String,
    pub state: String,
    pub link_id: Option<String>,
    pub in_doubt: bool,
    pub leased: bool,
    pub due: bool,
    /// Outcomes of its creating calls, in their order.
    pub calls: Vec<String>,
    pub event: Option<Event>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: String,
    pub kind: String,
    pub published: bool,
    pub due: bool,
    pub leased: bool,
    /// `none`, `pending`, `delivered` or `abandoned`.
    pub webhook_state: String,
}

/// A message on the results exchange, or on a reply queue.
#[derive(Debug, Clone)]
pub struct Heard {
    pub is_reply: bool,
    pub id: Option<String>,
    pub kind: String,
    pub key: String,
    pub correlation_id: Option<String>,
    pub link_url: Option<String>,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub message_id: Option<String>,
    pub has_reason: bool,
}

#[derive(Debug, Clone)]
pub struct Webhook {
    pub id: Option<String>,
    pub key: String,
    pub status: Option<u16>,
    pub is_verified: bool,
    pub body: String,
}

#[derive(Debug, Clone, Default)]
pub struct History {
    pub published: Vec<Published>,
    pub links: Vec<Link>,
    /// Records that were concluded before the last jobs of their keys came.
    pub before: Vec<Record>,
    pub records: Vec<Record>,
    pub heard: Vec<Heard>,
    pub dead: Vec<DeadLetter>,
    pub webhooks: Vec<Webhook>,
    /// Jobs still in the queue.
    pub waiting: u32,
}

/// A rule, and the evidence against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub evidence: String,
}

const REJECTED: &str = "payout_link.rejected";

/// Every rule that the history breaks.
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Findings(Vec::new());
    for job in &history.published {
        found.accounted_for(history, job);
    }
    found.links(history);
    for record in &history.records {
        found.record(history, record);
        found.results(history, record);
        found.webhooks(history, record);
    }
    found.repeats(history);
    for before in &history.before {
        let after = history.record(&before.key);
        found.wrong(after != Some(before), "R8", || format!("{before:?} became {after:?}"));
    }
    found.wrong(history.waiting > 0, "R10", || format!("{} jobs in the queue", history.waiting));
    found.0
}

impl History {
    fn record(&self, key: &str) -> Option<&Record> {
        self.records.iter().find(|record| record.key == key)
    }

    fn jobs_of(&self, key: &str) -> impl Iterator<Item = &Published> {
        self.published.iter().filter(move |job| job.key == key)
    }

    fn links_of(&self, key: &str) -> Vec<&Link> {
        self.links.iter().filter(|link| link.key == key).collect()
    }

    fn was_rejected(&self, job: &Published) -> bool {
        self.heard
            .iter()
            .any(|heard| heard.kind == REJECTED && heard.correlation_id.as_deref() == Some(&job.message_id))
    }

    fn is_dead(&self, job: &Published) -> bool {
        self.dead.iter().any(|dead| dead.has_reason && dead.message_id.as_deref() == Some(&job.message_id))
    }
}

struct Findings(Vec<Violation>);

impl Findings {
    fn wrong(&mut self, is_wrong: bool, rule: &'static str, evidence: impl FnOnce() -> String) {
        if is_wrong {
            self.0.push(Violation { rule, evidence: evidence() });
        }
    }

    fn accounted_for(&mut self, history: &History, job: &Published) {
        let record = history.record(&job.key);
        let is_recorded = job.is_valid && record.is_some_and(|record| record.fingerprint == job.fingerprint);
        let is_refused = history.was_rejected(job) && history.is_dead(job);
        self.wrong(!is_recorded && !is_refused, "R1", || {
            format!(
                "{job:?}: record {record:?}, rejection heard {}, dead letter {}",
                history.was_rejected(job),
                history.is_dead(job)
            )
        });
        self.wrong(is_recorded && (history.was_rejected(job) || history.is_dead(job)), "R1", || {
            format!("{job:?} is recorded and refused as well")
        });
    }

    fn links(&mut self, history: &History) {
        let keys: BTreeSet<&str> = history.links.iter().map(|link| link.key.as_str()).collect();
        for key in keys {
            let links = history.links_of(key);
            self.wrong(links.len() > 1, "R2", || format!("{key} has {} links", links.len()));
            let record = history.record(key);
            self.wrong(record.is_none(), "R3", || format!("{key} has a link and no record"));
            for link in links {
                let differs = record.is_some_and(|record| record.fingerprint != link.fingerprint);
                self.wrong(differs, "R8", || format!("{link:?} is not of the accepted {record:?}"));
            }
        }
    }

    fn record(&mut self, history: &History, record: &Record) {
        let links = history.links_of(&record.key);
        let known =
            history.jobs_of(&record.key).any(|job| job.is_valid && job.fingerprint == record.fingerprint);
        self.wrong(!known, "R8", || format!("{record:?} is of no job that was published"));
        let event_kind = record.event.as_ref().map(|event| event.kind.as_str());
        match record.state.as_str() {
            "created" => {
                let is_theirs = links.iter().any(|link| Some(&link.id) == record.link_id.as_ref());
                self.wrong(!is_theirs, "R3", || format!("{record:?}, and the connector has {links:?}"));
                let told = history.heard.iter().filter(|heard| heard.key == record.key);
                for heard in told.filter(|heard| heard.kind == "payout_link.created") {
                    let is_known = links.iter().any(|link| Some(&link.url) == heard.link_url.as_ref());
                    self.wrong(!is_known, "R3", || format!("{:?} tells another link", heard.id));
                }
                self.wrong(event_kind != Some("payout_link.created"), "R3", || format!("{record:?}"));
            }
            "failed" => {
                self.wrong(!links.is_empty(), "R4", || format!("{record:?} has {links:?}"));
                self.wrong(event_kind != Some("payout_link.failed"), "R4", || format!("{record:?}"));
            }
            "unknown" => {
                // Where keys can be repeated, only a refusal of the repeat leaves no other way: it does not say what
                // came of the first.
                let refused = record.calls.last().is_some_and(|call| call == "refused");
                let rule = history.jobs_of(&record.key).map(|job| job.rule).next();
                let no_other_way = match rule {
                    Some(Rule::Never) => record.in_doubt,
                    Some(Rule::SameKey) => record.in_doubt && refused,
                    Some(Rule::LookUp) | None => false,
                };
                self.wrong(!no_other_way, "R5", || format!("{record:?} under {rule:?}"));
                let is_said = event_kind == Some("payout_link.pending");
                self.wrong(!is_said, "R5", || format!("{record:?} says nothing of doubt"));
            }
            _ => self.wrong(true, "R10", || format!("{record:?} is open")),
        }
        let event_is_left = record.event.as_ref().is_none_or(|event| {
            event.due || event.leased || !event.published || event.webhook_state == "pending"
        });
        self.wrong(record.due || record.leased || event_is_left, "R10", || format!("{record:?}"));
    }

    fn results(&mut self, history: &History, record: &Record) {
        let Some(event) = &record.event else { return };
        let results =
            || history.heard.iter().filter(|heard| heard.key == record.key && heard.kind != REJECTED);
        let is_event = |heard: &&Heard| heard.id.as_ref() == Some(&event.id);
        let is_told = results().filter(is_event).any(|heard| !heard.is_reply);
        self.wrong(!is_told, "R6", || format!("no result of {event:?}"));
        let bodies: BTreeSet<_> =
            results().filter(is_event).map(|heard| (&heard.kind, &heard.body)).collect();
        self.wrong(bodies.len() > 1, "R6", || format!("{} results under {event:?}", bodies.len()));
        for heard in results().filter(|heard| !is_event(heard)) {
            self.wrong(true, "R9", || format!("{heard:?} is no repeat of {event:?}"));
        }
        for job in history.jobs_of(&record.key).filter(|job| job.fingerprint == record.fingerprint) {
            let is_replied = results().filter(is_event).any(|heard| heard.is_reply);
            self.wrong(job.wants_reply && !is_replied, "R6", || format!("no reply to {job:?}"));
            let is_answered = results()
                .filter(is_event)
                .any(|heard| heard.correlation_id.as_deref() == Some(&job.message_id));
            self.wrong(job.came_late && !is_answered, "R6", || format!("no answer to {job:?}"));
        }
    }

    fn webhooks(&mut self, history: &History, record: &Record) {
        let Some(event) = &record.event else { return };
        let posts: Vec<_> = history.webhooks.iter().filter(|post| post.key == record.key).collect();
        let is_wanted = history
            .jobs_of(&record.key)
            .any(|job| job.wants_webhook && job.fingerprint == record.fingerprint);
        let gave_up = event.webhook_state == "abandoned"
            && (posts.iter().any(|post| post.status == Some(410)) || posts.len() >= TRIES);
        let is_taken =
            posts.iter().any(|post| post.is_verified && post.status.is_some_and(|status| status / 100 == 2));
        self.wrong(is_wanted && !is_taken && !gave_up, "R7", || {
            format!("no webhook of {event:?}: {posts:?}")
        });
        let bodies: BTreeSet<&str> = posts.iter().map(|post| post.body.as_str()).collect();
        self.wrong(bodies.len() > 1, "R7", || format!("{} bodies for {event:?}", bodies.len()));
        for post in posts {
            self.wrong(post.id.as_ref() != Some(&event.id), "R9", || format!("{post:?} is not of {event:?}"));
        }
    }

    /// Rejections: nothing of a refused job is stored, so their ids have to be the same by themselves.
    fn repeats(&mut self, history: &History) {
        for heard in &history.heard {
            self.wrong(heard.id.is_none(), "R9", || format!("{heard:?} has no id"));
        }
        let mut rejections: BTreeMap<_, Vec<&Heard>> = BTreeMap::new();
        for heard in history.heard.iter().filter(|heard| heard.kind == REJECTED) {
            rejections.entry(&heard.correlation_id).or_default().push(heard);
        }
        for (of, repeats) in rejections {
            let ids: BTreeSet<_> = repeats.iter().map(|heard| &heard.id).collect();
            self.wrong(ids.len() > 1, "R9", || format!("rejections of {of:?} under {ids:?}"));
            let bodies: BTreeSet<_> = repeats.iter().map(|heard| &heard.body).collect();
            self.wrong(bodies.len() > 1, "R6", || format!("rejections of {of:?} differ"));
        }
    }
}

/// Posts of the matrix's webhook schedule, the first included.
pub const TRIES: usize = 4;

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
