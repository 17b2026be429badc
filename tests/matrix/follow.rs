//! The kinds whose link changes after its creation: the changes, and the events that must announce them.

use std::time::Duration;

use payout_link_worker::domain::idempotency_key;
use provider_simulators::sandbox::{Announce, Behaviour, LinkChange, LinkStatus};
use serde_json::json;

use crate::{
    evidence::{GLANCE, Run},
    history::Violation,
    kinds::Kind,
    point::{Place, operator_settings},
    proxy::Proxies,
    support::job,
};

/// Authenticates the sandbox's webhooks.
pub const SECRET: &str = "matrix-inbound-secret";

/// The changes of a link in a run.
pub struct Course {
    /// Changes that are announced before chunks are counted.
    before: &'static [LinkChange],
    change: Change,
    /// The events after the first one, in order.
    pub announced: &'static [&'static str],
}

enum Change {
    /// The provider announces nothing, and the worker finds the change by asking.
    Silent(LinkChange),
    /// Two changes. The provider announces each by a webhook, and repeats it until it is accepted.
    Announced(LinkChange, LinkChange),
    /// The link expires, and the worker finds that by asking.
    End,
    /// A message cancels the link.
    Message,
    /// An operator runs a command.
    Command(&'static str),
    /// The link does not change. The worker may read dead letters from now on.
    Letters,
}

impl Kind {
    /// Returns the changes of the link, if it has any.
    pub fn course(self) -> Option<Course> {
        let course = |change, announced| Course { before: &[], change, announced };
        Some(match self {
            Self::ClaimAnnounced => course(
                Change::Announced(LinkChange::Claim, LinkChange::Pay),
                &["payout_link.claimed", "payout_link.succeeded"],
            ),
            Self::ClaimAsked => course(Change::Silent(LinkChange::Claim), &["payout_link.claimed"]),
            Self::CancelledByMessage => course(Change::Message, &["payout_link.cancelled"]),
            Self::Expired => course(Change::End, &["payout_link.expired"]),
            Self::Reversed => Course {
                before: &[LinkChange::Claim, LinkChange::Pay],
                change: Change::Silent(LinkChange::Reverse),
                announced: &["payout_link.claimed", "payout_link.succeeded", "payout_link.reversed"],
            },
            Self::RetriedByOperator => course(Change::Command("retry"), &["payout_link.created"]),
            Self::ResolvedByOperator => course(Change::Command("resolve"), &["payout_link.created"]),
            Self::CancelledByOperator => course(Change::Command("cancel"), &["payout_link.cancelled"]),
            Self::RequeuedByOperator => course(Change::Command("dead-letters requeue"), &[]),
            Self::RedeliveredByOperator => Course {
                before: &[LinkChange::Claim],
                change: Change::Command("webhooks redeliver"),
                announced: &["payout_link.claimed"],
            },
            Self::OldLetters => course(Change::Letters, &[]),
            _ => return None,
        })
    }
}

impl Run<'_> {
    /// Makes the changes before chunks are counted, and waits until they are announced.
    pub async fn prepare(&mut self, id: &str) {
        let Some(course) = self.kind.course() else { return };
        let (link, provider) = (idempotency_key("", id), &self.env.provider);
        for change in course.before {
            provider.change(&link, *change).unwrap();
        }
        if let Change::End = course.change {
            provider.expire_after(&link, Duration::from_millis(200)).unwrap();
            while provider.history(&link).last().is_none_or(|last| last.status != LinkStatus::Expired) {
                tokio::time::sleep(GLANCE).await;
            }
        }
        if !course.before.is_empty() {
            self.ask_now().await;
            self.announced = course.before.len();
            self.settled(0).await;
        }
        if let Change::Message = course.change {
            let (queue, answers) = self.env.reply_queue().await;
            self.cancel = Some((queue, answers));
        }
        if let Change::Letters = course.change {
            self.put_letters(id).await;
        }
    }

    /// Makes the changes while chunks are counted.
    pub async fn change(&mut self, id: &str, proxies: &Proxies) {
        let Some(course) = self.kind.course() else { return };
        let (link, provider) = (idempotency_key("", id), &self.env.provider);
        self.announced = course.announced.len();
        match course.change {
            Change::Silent(change) => {
                provider.change(&link, change).unwrap();
                self.ask_now().await;
            }
            Change::End => self.ask_now().await,
            Change::Letters => self.unlock_letters().await,
            Change::Announced(first, second) => {
                let behaviour = Behaviour {
                    retries: 300,
                    retry_pause: Duration::from_millis(100),
                    ..Behaviour::default()
                };
                provider.announce(Some(Announce::to(webhooks_url(self.place), SECRET).with(behaviour)));
                provider.change(&link, first).unwrap();
                provider.change(&link, second).unwrap();
                provider.announce(None);
            }
            Change::Command(command) => {
                if let Some(first) = self.planned_jobs.first_mut().filter(|first| !first.is_valid) {
                    // The command corrects the message.
                    (first.is_valid, first.fingerprint) = (true, "1250 EUR".to_owned());
                    self.corrected = Some(first.message_id.clone());
                }
                self.operate(proxies, command, id, operator_settings(self.place, proxies));
            }
            Change::Message => {
                let (queue, _) = self.cancel.as_ref().unwrap();
                let body = json!({ "merchant_payout_id": id, "reason": "of the matrix" }).to_string();
                let message =
                    job("-").raw(body.as_bytes()).message_id(&format!("{id}-cancel")).reply_to(queue);
                self.env.publish_to("cancel", message).await;
            }
        }
    }

    /// Makes the links due to be asked about, without waiting for their time.
    async fn ask_now(&self) {
        let due = "UPDATE payout_links SET follow_due_at = now()
             WHERE merchant_payout_id = ANY($1) AND follow_due_at IS NOT NULL AND follow_holder IS NULL";
        sqlx::query(due).bind(self.names()).execute(&self.env.pool).await.unwrap();
    }

    /// Ends the questions about the run's links. An end that comes an hour later would be announced to a merchant that is
    /// gone, and its host would be paused in the middle of another run.
    pub async fn forget_links(&self) {
        let forget = "UPDATE payout_links SET follow_due_at = NULL
             WHERE merchant_payout_id = ANY($1) AND follow_holder IS NULL";
        sqlx::query(forget).bind(self.names()).execute(&self.env.pool).await.unwrap();
    }

    /// Returns whether the link's changes so far are announced, each webhook is delivered, and the cancel is answered.
    pub async fn is_announced(&self) -> bool {
        let Some(course) = self.kind.course() else { return true };
        let is_answered = match &self.cancel {
            Some((_, answers)) if self.announced == course.announced.len() => {
                answers.lock().unwrap().iter().any(|answer| answer.kind() == "payout_link.cancelled")
            }
            _ => true,
        };
        let later: Vec<(String, bool)> = sqlx::query_as(
            "SELECT e.type, e.published_at IS NOT NULL AND e.webhook_state = 'delivered' AND e.due_at IS NULL
             FROM events e JOIN payout_links p ON p.id = e.payout_link_id
             WHERE p.merchant_payout_id = ANY($1) AND e.sequence > 1 ORDER BY e.sequence",
        )
        .bind(self.names())
        .fetch_all(&self.env.pool)
        .await
        .unwrap();
        let expected = course.announced.iter().take(self.announced);
        is_answered
            && later.iter().map(|(kind, _)| kind.as_str()).eq(expected.copied())
            && later.iter().all(|(_, is_done)| *is_done)
            && self.held_follows().await == 0
    }

    /// Returns the number of links in the run that a worker asks about.
    pub async fn held_follows(&self) -> i64 {
        let held = "SELECT count(*) FROM payout_links
             WHERE follow_holder IS NOT NULL AND merchant_payout_id = ANY($1)";
        sqlx::query_scalar(held).bind(self.names()).fetch_one(&self.env.pool).await.unwrap()
    }

    /// Returns a violation if the changes are not announced, delivered or answered at the end.
    pub async fn unannounced(&self) -> Vec<Violation> {
        if self.is_announced().await {
            return Vec::new();
        }
        let evidence = "a change of the link is not announced, delivered or answered as it should be".into();
        vec![Violation { rule: "R21b", evidence }]
    }

    pub fn names(&self) -> Vec<String> {
        self.planned_jobs.iter().map(|planned| planned.key.clone()).collect()
    }
}

fn webhooks_url(place: &Place) -> String {
    format!("http://127.0.0.1:{}/connectors/sandbox/webhooks", place.webhooks_port)
}
