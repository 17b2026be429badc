//! Says why a record that is due waits: its account or its merchant is paused, or the account's circuit breaker is open.

use super::output::note;
use crate::postgres::{Obstacles, Pause, PauseKind, Reader};

/// The reasons why workers do not call providers, in words.
#[derive(Debug, Default)]
pub(super) struct Waits(Obstacles);

impl Waits {
    /// Reads it. If it cannot be read, standard error says so, and nothing is known to keep a record waiting.
    pub(super) async fn read(reader: &Reader) -> Self {
        match reader.obstacles().await {
            Ok(obstacles) => Self(obstacles),
            Err(error) => {
                note(format_args!("pauses and circuit breakers cannot be read: {error}"));
                Self::default()
            }
        }
    }

    /// Returns what keeps workers from creating the link of a record.
    pub(super) fn of_creation(&self, connector: &str, merchant_id: &str) -> Vec<String> {
        let mut all = self.of_link(connector);
        if let Some(pause) = self.0.pauses.get(PauseKind::Merchant, merchant_id) {
            all.push(match merchant_id {
                "" => paused("the jobs without a merchant are", pause),
                id => paused(&format!("merchant {id} is"), pause),
            });
        }
        all
    }

    /// Returns what keeps workers from asking about the links of an account, and from cancelling them.
    pub(super) fn of_link(&self, connector: &str) -> Vec<String> {
        let pause = self.0.pauses.get(PauseKind::Account, connector);
        let pause = pause.map(|pause| paused(&format!("account {connector} is"), pause));
        let breaker = self.0.breakers.iter().find(|breaker| breaker.connector == connector);
        let breaker = breaker.map(|_| format!("the circuit breaker of {connector} is open"));
        pause.into_iter().chain(breaker).collect()
    }
}

fn paused(what: &str, pause: &Pause) -> String {
    format!("{what} paused by {}: {}", pause.actor, pause.reason)
}
