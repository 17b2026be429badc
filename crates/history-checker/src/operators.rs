//! R24: what operators ordered is recorded and carried out.

use std::collections::{BTreeMap, BTreeSet};

use super::{CommandRun, RecordedAct, Violation, Webhook};

/// The evidence about the acts on one record.
pub(super) struct Operated<'a> {
    pub key: &'a str,
    pub runs: &'a [&'a CommandRun],
    pub acts: &'a [&'a RecordedAct],
    /// In the order in which they arrived.
    pub posts: &'a [&'a Webhook],
    /// Webhooks after an operator had them delivered again, in the order in which they arrived.
    pub redelivered: &'a [&'a Webhook],
}

impl Operated<'_> {
    pub(super) fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        self.records(&mut found);
        self.redeliveries(&mut found);
        found
    }

    fn wrong(&self, evidence: String) -> Violation {
        Violation { rule: "R24", evidence: format!("{}: {evidence}", self.key) }
    }

    /// A command that died may have recorded its act or not, and the next one may have found it done.
    fn records(&self, found: &mut Vec<Violation>) {
        let mut runs: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for run in self.runs {
            let (all, done) = runs.entry(&run.command).or_default();
            *all += 1;
            *done += usize::from(run.is_done);
        }
        for (command, (all, done)) in runs {
            let acts = || self.acts.iter().filter(|act| act.command == command);
            if acts().count() < done {
                found.push(self.wrong(format!(
                    "{done} runs of {command} were done, and {} acts are recorded",
                    acts().count()
                )));
            }
            let mut of_event: BTreeMap<Option<&str>, usize> = BTreeMap::new();
            acts().for_each(|act| *of_event.entry(act.event_id.as_deref()).or_default() += 1);
            for (event, count) in of_event.into_iter().filter(|(_, count)| *count > all) {
                found.push(self.wrong(format!(
                    "{all} runs of {command}, and {count} acts are recorded of the event {event:?}"
                )));
            }
        }
    }

    fn redeliveries(&self, found: &mut Vec<Violation>) {
        let ordered: BTreeSet<&str> = self.acts.iter().filter_map(|act| act.event_id.as_deref()).collect();
        for id in &ordered {
            let is_taken = |post: &&&Webhook| {
                post.id.as_deref() == Some(id) && post.status.is_some_and(|status| status / 100 == 2)
            };
            if !self.redelivered.iter().any(|post| is_taken(&post)) {
                found.push(self.wrong(format!("the webhook {id} was not delivered again")));
            }
        }
        let mut first_arrivals: Vec<u32> = Vec::new();
        for post in self.redelivered {
            let is_same = |before: &&&Webhook| before.id == post.id && before.body == post.body;
            if !self.posts.iter().any(|before| is_same(&before)) {
                found.push(self.wrong(format!("{post:?} is no webhook that was delivered before")));
            }
            let sequence = post.sequence.unwrap_or(1);
            if !first_arrivals.contains(&sequence) {
                first_arrivals.push(sequence);
            }
        }
        if !first_arrivals.is_sorted() {
            found.push(self.wrong(format!("webhooks were delivered again in the order {first_arrivals:?}")));
        }
    }
}
