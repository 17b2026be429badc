//! Judges R18 to R22 and R25: the announcements of a link after its creation.

use std::collections::{BTreeMap, BTreeSet};

use super::{Link, ReceivedMessage, Violation, Webhook};

/// The evidence about one record's link.
pub(super) struct Followed<'a> {
    pub key: &'a str,
    pub is_created: bool,
    pub results: &'a [&'a ReceivedMessage],
    pub posts: &'a [&'a Webhook],
    pub links: &'a [&'a Link],
    /// The number of the last conclusion's event.
    pub conclusions: u32,
    /// The number of operators' actions, each of which leads to one more conclusion.
    pub actions: usize,
    /// Whether its next question is due later. If it is `None`, the last status is not judged.
    pub is_asked_later: Option<bool>,
}

/// An announced status. Expired and cancelled are one, because the worker cancels a link at its end if the provider
/// does not end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Unclaimed,
    Claimed,
    Processing,
    Succeeded,
    PayoutFailed,
    Over,
    Reversed,
}

impl Followed<'_> {
    pub(super) fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        self.sequences(&mut found);
        self.order_of_webhooks(&mut found);
        self.order_of_results(&mut found);
        let kinds = self.kinds();
        let mut actions = self.actions;
        for (before, after) in kinds.values().zip(kinds.values().skip(1)) {
            if actions > 0 && is_concluded_again(before, after) {
                actions -= 1;
            } else if !may_follow(before, after) {
                found.push(self.wrong("R20", format!("{after} follows {before}")));
            }
        }
        self.ledger(&kinds, &mut found);
        found
    }

    fn wrong(&self, rule: &'static str, evidence: String) -> Violation {
        Violation { rule, evidence: format!("{}: {evidence}", self.key) }
    }

    fn sequences(&self, found: &mut Vec<Violation>) {
        let mut ids: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
        let of_results = self.results.iter().map(|message| (message.sequence, message.id.as_deref()));
        let published: BTreeSet<u32> = of_results.clone().map(|(sequence, _)| number(sequence)).collect();
        let of_posts = self.posts.iter().map(|post| (post.sequence, post.id.as_deref()));
        for (sequence, id) in of_results.chain(of_posts) {
            ids.entry(number(sequence)).or_default().extend(id);
        }
        for (sequence, ids) in ids.iter().filter(|(_, ids)| ids.len() > 1) {
            found.push(self.wrong("R18", format!("sequence {sequence} has the ids {ids:?}")));
        }
        let is_whole = (1..).zip(&published).all(|(expected, sequence)| expected == *sequence);
        if !is_whole {
            found.push(self.wrong("R18", format!("results have the sequences {published:?}")));
        }
    }

    fn order_of_webhooks(&self, found: &mut Vec<Violation>) {
        let mut first_arrivals: Vec<u32> = Vec::new();
        for post in self.posts {
            let sequence = number(post.sequence);
            if !first_arrivals.contains(&sequence) {
                first_arrivals.push(sequence);
            }
        }
        if !first_arrivals.is_sorted() {
            found.push(self.wrong("R19", format!("webhooks arrived in the order {first_arrivals:?}")));
        }
    }

    /// Compares the first arrivals at each queue. A result that is redelivered may be late: a consumer that was cut off lost
    /// its first delivery. Sequences with a message of unknown order are not judged.
    fn order_of_results(&self, found: &mut Vec<Violation>) {
        let mut unknown: BTreeSet<u32> = BTreeSet::new();
        let mut arrivals: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        let mut redelivered: BTreeSet<(&str, u32)> = BTreeSet::new();
        for message in self.results.iter().filter(|message| !message.is_reply && !message.is_replayed) {
            let sequence = number(message.sequence);
            let Some(queue) = message.queue.as_deref() else {
                unknown.insert(sequence);
                continue;
            };
            let of_queue = arrivals.entry(queue).or_default();
            if !of_queue.contains(&sequence) {
                of_queue.push(sequence);
                redelivered.extend(message.is_redelivered.then_some((queue, sequence)));
            }
        }
        for (queue, mut of_queue) in arrivals {
            of_queue.retain(|sequence| !unknown.contains(sequence));
            let is_late = |(place, sequence): (usize, &u32)| {
                of_queue[..place].iter().any(|before| before > sequence)
                    && !redelivered.contains(&(queue, *sequence))
            };
            if of_queue.iter().enumerate().any(is_late) {
                found
                    .push(self.wrong("R25", format!("results arrived at {queue} in the order {of_queue:?}")));
            }
        }
    }

    /// Returns the types of the record's events by their sequences. It skips the warning before the end, which is no
    /// change.
    fn kinds(&self) -> BTreeMap<u32, &str> {
        let results = self.results.iter().map(|message| (message.sequence, message.kind.as_str()));
        let posts = self.posts.iter().map(|post| (post.sequence, post.kind.as_str()));
        let named = results.chain(posts).filter_map(|(sequence, kind)| {
            let kind = kind.strip_prefix("payout_link.")?;
            (kind != "expiring").then_some((number(sequence), kind))
        });
        named.collect()
    }

    fn ledger(&self, kinds: &BTreeMap<u32, &str>, found: &mut Vec<Violation>) {
        let [link] = self.links else { return };
        let Some(history) = link.history.as_deref().filter(|_| self.is_created) else { return };
        let entered: Vec<Status> = history.iter().filter_map(|word| status(word)).collect();
        let announced: Vec<Status> =
            kinds.range(self.conclusions + 1..).filter_map(|(_, kind)| status(kind)).collect();
        let evidence = || format!("the provider has {history:?}, and {kinds:?} are announced");
        if !is_part_of(&announced, entered.get(1..).unwrap_or_default()) {
            found.push(self.wrong("R21", evidence()));
        }
        let last = announced.last().copied().unwrap_or(Status::Unclaimed);
        if self.is_asked_later == Some(false) && entered.last().is_some_and(|entered| *entered != last) {
            found.push(self.wrong("R21", format!("the last status is not announced: {}", evidence())));
        }
        let was_over = entered.contains(&Status::Over) || announced.contains(&Status::Over);
        if was_over && announced.contains(&Status::Succeeded) && !entered.contains(&Status::Succeeded) {
            found.push(self.wrong("R22", evidence()));
        }
    }
}

/// Returns the sequence of an event. Older versions do not number events: theirs are the first of their records.
fn number(sequence: Option<u32>) -> u32 {
    sequence.unwrap_or(1)
}

/// Says whether the link entered each announced status, in this order. Statuses between two questions may be left
/// out.
fn is_part_of(announced: &[Status], entered: &[Status]) -> bool {
    let mut rest = entered.iter();
    let was_paid = entered.iter().any(|status| matches!(status, Status::Processing | Status::Succeeded));
    announced.iter().all(|status| {
        // A provider may have no status for a claim that led to a payout.
        let is_implied = *status == Status::Claimed && was_paid && !entered.contains(&Status::Claimed);
        is_implied || rest.any(|entered| entered == status)
    })
}

/// Says whether an operator's action may lead from one conclusion to another.
fn is_concluded_again(before: &str, after: &str) -> bool {
    match before {
        "pending" => matches!(after, "created" | "failed"),
        "failed" => matches!(after, "created" | "failed" | "pending"),
        _ => false,
    }
}

fn may_follow(before: &str, after: &str) -> bool {
    match before {
        "failed" | "pending" | "payout_failed" | "reversed" => false,
        "cancelled" | "expired" => after == "succeeded",
        "succeeded" => after == "reversed",
        _ => after != "created",
    }
}

/// Reads the status of an event or of the sandbox's ledger.
fn status(word: &str) -> Option<Status> {
    Some(match word {
        "issued" | "unclaimed" | "reopened" => Status::Unclaimed,
        "claimed" => Status::Claimed,
        "processing" => Status::Processing,
        "paid" | "succeeded" => Status::Succeeded,
        "failed" | "payout_failed" => Status::PayoutFailed,
        "cancelled" | "expired" => Status::Over,
        "reversed" => Status::Reversed,
        _ => return None,
    })
}
