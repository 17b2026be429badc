//! Fields of jobs that this version does not know and was told to ignore: counted by path, and logged once for each.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use crate::metrics::{Metrics, OTHER_FIELDS};

/// Paths are their senders' words, so only so many become series and log lines. All others are counted as [`OTHER_FIELDS`].
const MAX_PATHS: usize = 100;

#[derive(Default)]
pub(super) struct IgnoredFields(Mutex<BTreeSet<String>>);

impl IgnoredFields {
    /// Counts the fields of one job.
    pub(super) fn count(&self, paths: Vec<String>, metrics: &Metrics) {
        for path in paths {
            match self.is_new(&path) {
                Some(true) => {
                    tracing::warn!(field = path, "unknown field of a job ignored; said once for each field");
                    metrics.field_ignored(path);
                }
                Some(false) => metrics.field_ignored(path),
                None => metrics.field_ignored(OTHER_FIELDS.to_owned()),
            }
        }
    }

    /// Whether a path is new. `None`: there are too many.
    fn is_new(&self, path: &str) -> Option<bool> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(path) {
            return Some(false);
        }
        (known.len() < MAX_PATHS).then(|| known.insert(path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_paths_are_told_apart_and_no_more() {
        let (fields, metrics) = (IgnoredFields::default(), Metrics::new([].iter()));
        for round in 0..2 {
            for number in 0..1000 {
                fields.count(vec![format!("field_{number}")], &metrics);
            }
            assert_eq!(fields.0.lock().unwrap().len(), MAX_PATHS, "{round}");
        }
        assert_eq!(fields.is_new("field_1"), Some(false));
        assert_eq!(fields.is_new("another"), None);
    }
}
