//! Judges R14, R15 and R17: work makes progress. The run takes the samples from outside and sets the bounds.

use std::time::Duration;

use super::{History, Overdue, Progress, Violation};

/// Limits how long a healed system may finish nothing while something is left.
const STALL: Duration = Duration::from_mins(1);

pub(super) fn check(history: &History) -> Vec<Violation> {
    let overdue = late(&history.overdue).map(|overdue| wrong("R14", format!("{overdue:?}")));
    let unpublished = late(&history.unpublished).map(|event| wrong("R17", format!("{event:?}")));
    let left = history.overdue_at_end.iter().filter(|overdue| overdue.overdue > overdue.bound);
    let left = left.map(|overdue| wrong("R15", format!("at the end: {overdue:?}")));
    overdue.chain(unpublished).chain(left).chain(stalls(&history.progress)).collect()
}

fn late(samples: &[Overdue]) -> impl Iterator<Item = &Overdue> {
    samples.iter().filter(|overdue| overdue.overdue.min(overdue.well) > overdue.bound)
}

fn wrong(rule: &'static str, evidence: String) -> Violation {
    Violation { rule, evidence }
}

/// Finds each period of more than a minute without progress, once, with its length.
fn stalls(samples: &[Progress]) -> Vec<Violation> {
    let (mut found, mut from) = (Vec::new(), None::<Progress>);
    let mut longest = None::<(Progress, Progress)>;
    for &sample in samples {
        let is_new = from.is_none_or(|from: Progress| sample.finished > from.finished || from.left == 0);
        if is_new {
            found.extend(longest.take().map(stall));
            from = Some(sample);
        } else if let Some(from) = from.filter(|from| sample.after.saturating_sub(from.after) > STALL) {
            longest = Some((from, sample));
        }
    }
    found.extend(longest.map(stall));
    found
}

fn stall((from, to): (Progress, Progress)) -> Violation {
    let evidence = format!(
        "nothing was finished from {:?} to {:?} after the last fault was healed: {to:?}",
        from.after, to.after
    );
    wrong("R15", evidence)
}

/// Compares two samples of the same record or event.
impl Overdue {
    /// Returns the sample that exceeds its bound by more.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let excess = |overdue: &Self| overdue.overdue.min(overdue.well).saturating_sub(overdue.bound);
        if excess(&other) > excess(&self) { other } else { self }
    }
}
