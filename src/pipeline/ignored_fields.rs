//! Counts unknown fields of jobs that `jobs.unknown_fields = "ignore"` accepts: by path, and logged once for each
//! path.

use std::{collections::BTreeSet, sync::Mutex};

use crate::{
    lock::lock,
    metrics::{Metrics, OTHER_FIELDS},
};

/// Limit of the paths, which senders choose freely. Further ones are counted as [`OTHER_FIELDS`].
const MAX_PATHS: usize = 100;

#[derive(Default)]
pub(super) struct IgnoredFields(Mutex<BTreeSet<String>>);

impl IgnoredFields {
    /// Counts the fields of one job.
    pub(super) fn count(&self, paths: Vec<String>, metrics: &Metrics) {
        for path in paths {
            match self.is_new(&path) {
                Some(true) => {
                    tracing::warn!(field = path, "unknown job field ignored; logged once for each field");
                    metrics.field_ignored(path);
                }
                Some(false) => metrics.field_ignored(path),
                None => metrics.field_ignored(OTHER_FIELDS.to_owned()),
            }
        }
    }

    /// Returns whether a path is new; `None` if there are too many.
    fn is_new(&self, path: &str) -> Option<bool> {
        let mut known = lock(&self.0);
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
    fn only_max_paths_are_counted_separately() {
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
