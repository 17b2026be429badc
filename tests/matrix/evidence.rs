//! Collects the evidence of one run from outside: the history that the checker takes.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use payout_link_worker::{cli::read_actions, postgres::ActLock};
use sqlx::Row;

use crate::{
    history::{
        DeadLetter, EarlierEvent, Event, History, Link, OperatorAction, Published, ReceivedMessage, Record,
        SeenLetter, Violation, Webhook,
    },
    kinds::{Kind, PlannedJob, in_words},
    letters,
    operator::Operator,
    point::Place,
    support::{self, TestEnv},
};

/// The pause between two checks of a condition.
pub const GLANCE: Duration = Duration::from_millis(40);
pub const PATIENCE: Duration = Duration::from_secs(25);

pub struct Run<'a> {
    pub place: &'a Place,
    pub env: &'a TestEnv,
    pub kind: Kind,
    pub planned_jobs: Vec<PlannedJob>,
    pub replies: Arc<Mutex<Vec<support::ReceivedMessage>>>,
    pub before: Vec<Record>,
    /// The number of jobs in the queue after all workers stopped.
    pub waiting: u32,
    /// Changes of the link that must be announced by now.
    pub announced: usize,
    /// The reply queue of the message that cancels the link, and the answers in it.
    pub cancel: Option<(String, Arc<Mutex<Vec<support::ReceivedMessage>>>)>,
    /// The operator whose command is run.
    pub operator: Option<Operator>,
    /// The message that the command corrects.
    pub corrected: Option<String>,
    /// Dead letters that were put in their queue.
    pub letters: Vec<SeenLetter>,
    /// Keeps the worker from reading dead letters.
    pub letters_lock: Option<ActLock>,
    dead: Vec<DeadLetter>,
}

impl<'a> Run<'a> {
    pub fn new(place: &'a Place, kind: Kind) -> Self {
        Self {
            place,
            env: &place.env,
            kind,
            planned_jobs: Vec::new(),
            replies: Arc::default(),
            before: Vec::new(),
            waiting: 0,
            announced: 0,
            cancel: None,
            operator: None,
            corrected: None,
            letters: Vec::new(),
            letters_lock: None,
            dead: Vec::new(),
        }
    }

    /// Ends the leases of killed workers in the database, without waiting for their time.
    pub async fn lapse(&self) {
        for lapse in [
            "UPDATE payout_links SET due_at = now() WHERE holder IS NOT NULL AND due_at IS NOT NULL",
            "UPDATE events SET due_at = now() WHERE holder IS NOT NULL AND due_at IS NOT NULL",
            "UPDATE payout_links SET follow_due_at = now() WHERE follow_holder IS NOT NULL",
        ] {
            while let Err(error) = sqlx::query(lapse).execute(&self.env.pool).await {
                // A worker locks the rows of a batch in another order. The statement that was rolled back is repeated.
                let code = error.as_database_error().and_then(|error| error.code());
                assert_eq!(code.as_deref(), Some("40P01"), "{error}");
            }
        }
    }

    /// Waits until no work is left and every message has arrived. Returns whether that happened before the deadline. The
    /// checker reports missing messages.
    pub async fn settled(&self, refusals: usize) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.is_reported(refusals).await {
                return true;
            }
            tokio::time::sleep(GLANCE).await;
        }
        false
    }

    /// Waits until this number of messages was received.
    pub async fn receives(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.received().len() < count && Instant::now() < deadline {
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn is_reported(&self, refusals: usize) -> bool {
        let records = self.records().await;
        let valid = self.planned_jobs.iter().filter(|planned| planned.is_valid);
        let is_done = |record: &Record| {
            record.state != "open"
                && record.event.as_ref().is_some_and(|event| {
                    !event.due && !event.leased && event.published && event.webhook_state != "pending"
                })
        };
        if valid.clone().any(|planned| !records.iter().any(|record| record.key == planned.key))
            || !records.iter().all(is_done)
            || !self.is_announced().await
            || !self.are_letters_deleted().await
        {
            return false;
        }
        let received = self.received();
        let is_published = |record: &Record| {
            let id = record.event.as_ref().map(|event| &event.id);
            received.iter().any(|message| message.id.as_ref() == id)
                && (!self.kind.wants_reply() || received.iter().any(|message| message.is_reply))
        };
        let is_answered = |planned: &PlannedJob| {
            received.iter().any(|message| message.correlation_id.as_deref() == Some(&planned.message_id))
        };
        let rejected = self.planned_jobs.iter().filter(|planned| {
            received.iter().any(|message| {
                message.kind == "payout_link.rejected"
                    && message.correlation_id.as_deref() == Some(&planned.message_id)
            })
        });
        records.iter().all(is_published)
            && self.planned_jobs.iter().filter(|planned| planned.came_late).all(is_answered)
            && rejected.count() >= refusals
            && self.env.ready(&self.env.names.dead_queue).await as usize >= refusals
            && self.env.ready(&self.env.names.jobs_queue).await == 0
    }

    pub async fn history(mut self) -> History {
        let (actions, earlier) = self.acts().await;
        let acts = self.recorded_acts().await;
        while let Some(dead) = self.env.take(&self.env.names.dead_queue).await {
            self.dead.push(DeadLetter {
                has_reason: dead.header("x-rejected-code").is_some()
                    && dead.header("x-rejected-reason").is_some(),
                message_id: dead.properties.message_id().as_ref().map(ToString::to_string),
            });
        }
        let is_ours = |key: &str| self.keys().contains(key);
        let published = self.planned_jobs.iter().map(|planned| Published {
            message_id: planned.message_id.clone(),
            key: planned.key.clone(),
            fingerprint: planned.fingerprint.clone(),
            amount: planned.fingerprint.clone(),
            is_valid: planned.is_valid,
            rule: self.kind.rule(),
            wants_webhook: self.kind.wants_webhook(),
            wants_reply: self.kind.wants_reply(),
            came_late: planned.came_late,
        });
        let (mut webhooks, mut redelivered) = (Vec::new(), Vec::new());
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for post in self.env.merchant.received() {
            let Some(key) = post.reference.clone().filter(|key| is_ours(key)) else { continue };
            let number = counts.entry(key.clone()).or_default();
            let arrived = if self.is_redelivery(&key, *number) { &mut redelivered } else { &mut webhooks };
            *number += 1;
            arrived.push(Webhook {
                sequence: sequence(&post.json()["data"]),
                id: post.id,
                key,
                kind: post.event_type.unwrap_or_default(),
                status: post.status,
                is_verified: post.verified,
                body: post.body,
            });
        }
        History {
            published: published.collect(),
            links: self.links(),
            before: self.before.clone(),
            records: self.records().await,
            messages: self.received(),
            dead: self.dead.clone(),
            letters_seen: self.letters.clone(),
            letter_retention: letters::retention(self.kind),
            webhooks,
            redelivered,
            commands: self.command_runs(),
            acts,
            corrected: self.corrected.iter().cloned().collect(),
            waiting: self.waiting,
            asked_later: Some(HashSet::new()),
            actions,
            earlier,
            ..History::default()
        }
    }

    /// Returns the links of this run's keys at their provider.
    fn links(&self) -> Vec<Link> {
        let keys: BTreeMap<String, &str> =
            self.keys().into_iter().map(|key| (self.kind.reference(key), key)).collect();
        let of_key = |reference: &str| keys.get(reference).map(|key| (*key).to_owned());
        let Some(account) = self.kind.account() else {
            let links = self.env.provider.ledger().links;
            let links = links.into_iter().filter_map(|link| {
                Some(Link {
                    key: of_key(&link.request.reference)?,
                    amount: format!("{} {}", link.request.amount.minor_amount, link.request.amount.currency),
                    history: Some(
                        link.history().iter().map(|change| change.status.name().to_owned()).collect(),
                    ),
                    id: link.id,
                    url: Some(link.url),
                })
            });
            return links.collect();
        };
        let links = self.place.simulator(account).ledger().links;
        let links = links.into_iter().filter_map(|link| {
            let is_right = account.is_of(&link, account.money());
            Some(Link {
                key: of_key(&link.reference)?,
                amount: if is_right { in_words(account.money()) } else { link.amount },
                history: None,
                id: link.id,
                url: Some(link.url),
            })
        });
        links.collect()
    }

    pub fn received(&self) -> Vec<ReceivedMessage> {
        let replies = self.replies.lock().unwrap().clone();
        let all = replies.into_iter().map(|received| (true, received));
        let all = all.chain(self.env.results().into_iter().map(|received| (false, received)));
        let ours = all.filter(|(_, received)| {
            let (correlation, body) = (received.correlation_id(), String::from_utf8_lossy(&received.body));
            self.planned_jobs.iter().any(|planned| {
                correlation.as_ref() == Some(&planned.message_id)
                    || body.contains(&format!("\"{}\"", planned.key))
            })
        });
        ours.map(|(is_reply, received)| {
            let json = received.json();
            ReceivedMessage {
                is_reply,
                id: received.properties.message_id().as_ref().map(ToString::to_string),
                kind: received.kind(),
                key: json["merchant_payout_id"].as_str().unwrap_or_default().to_owned(),
                correlation_id: received.correlation_id(),
                link_url: json["payout_link"]["url"].as_str().map(str::to_owned),
                sequence: sequence(&json),
                queue: (!is_reply).then(|| "results".to_owned()),
                is_replayed: received.header("x-replayed").is_some(),
                // Its consumer acknowledges nothing, so nothing is delivered again.
                is_redelivered: false,
                timestamp: received.properties.timestamp().and_then(|seconds| seconds.try_into().ok()),
                body: received.body,
            }
        })
        .collect()
    }

    /// Returns a violation for each record that is unknown although no call of it began.
    pub async fn unknown_and_uncalled(&self) -> Vec<Violation> {
        let keys: Vec<&str> = self.keys().into_iter().collect();
        let uncalled = "SELECT merchant_payout_id FROM payout_links
             WHERE state = 'unknown' AND attempts = 0 AND merchant_payout_id = ANY($1)";
        let keys: Vec<String> =
            sqlx::query_scalar(uncalled).bind(&keys).fetch_all(&self.env.pool).await.unwrap();
        let evidence = |key| format!("{key} is unknown, and no call of it was begun");
        keys.into_iter().map(|key| Violation { rule: "R5b", evidence: evidence(key) }).collect()
    }

    /// Returns operators' acts on the records, and the events of the conclusions before them.
    async fn acts(&self) -> (Vec<OperatorAction>, Vec<EarlierEvent>) {
        let store = support::store(self.env.pool.clone());
        let (actions, earlier) = read_actions(&store, None).await.unwrap();
        let keys = self.keys();
        (
            actions.into_iter().filter(|action| keys.contains(action.key.as_str())).collect(),
            earlier.into_iter().filter(|event| keys.contains(event.key.as_str())).collect(),
        )
    }

    fn keys(&self) -> BTreeSet<&str> {
        self.planned_jobs.iter().map(|planned| planned.key.as_str()).collect()
    }

    /// Returns the records of this run's keys, with their events.
    pub async fn records(&self) -> Vec<Record> {
        let keys: Vec<&str> = self.keys().into_iter().collect();
        let rows = sqlx::query(
            "SELECT p.merchant_payout_id, p.amount_minor || ' ' || p.currency, p.state, p.connector_payout_id,
                p.in_doubt_since IS NOT NULL, p.holder IS NOT NULL, p.due_at IS NOT NULL,
                ARRAY(SELECT outcome FROM attempts a WHERE a.payout_link_id = p.id AND kind = 'create'
                    ORDER BY started_at),
                e.id::text, e.type, e.published_at IS NOT NULL, e.due_at IS NOT NULL, e.holder IS NOT NULL,
                e.webhook_state, e.webhook_attempts
             FROM payout_links p LEFT JOIN events e ON e.id = p.event_id
             WHERE p.merchant_payout_id = ANY($1) ORDER BY 1",
        )
        .bind(&keys)
        .fetch_all(&self.env.pool)
        .await
        .unwrap();
        rows.iter()
            .map(|row| Record {
                key: row.get(0),
                amount: row.get(1),
                state: row.get(2),
                link_id: row.get(3),
                is_unknown: row.get(4),
                leased: row.get(5),
                due: row.get(6),
                calls: row.get(7),
                event: row.get::<Option<String>, _>(8).map(|id| Event {
                    id,
                    kind: row.get(9),
                    published: row.get(10),
                    due: row.get(11),
                    leased: row.get(12),
                    webhook_state: row.get(13),
                    webhook_attempts: row.get::<i32, _>(14).unsigned_abs(),
                }),
            })
            .collect()
    }
}

fn sequence(result: &serde_json::Value) -> Option<u32> {
    result["sequence"].as_u64().and_then(|sequence| sequence.try_into().ok())
}
