//! Runs an operator's command through the proxies, and again if it fails.

use std::time::Instant;

use serde_json::json;

use crate::{
    evidence::{GLANCE, PATIENCE, Run},
    history::{CommandRun, RecordedAct, Violation},
    kinds::Kind,
    proxy::Proxies,
    support::DEADLINE,
};

/// Exit statuses of the program.
const DONE: i32 = 0;
const IN_PART: i32 = 3;
const NOTHING_FOUND: i32 = 4;
const REFUSED: i32 = 5;

pub struct Operator {
    /// The command, as its act is recorded.
    command: &'static str,
    /// The key of its record.
    key: String,
    arguments: Vec<String>,
    settings: Vec<(&'static str, String)>,
    is_running: bool,
    /// The exit status of each run; `None`: ended by a signal.
    runs: Vec<Option<i32>>,
    /// The number of webhooks of the record that arrived before the command.
    posts_before: usize,
}

impl Kind {
    pub fn is_operated(self) -> bool {
        matches!(
            self,
            Self::RetriedByOperator
                | Self::ResolvedByOperator
                | Self::CancelledByOperator
                | Self::RequeuedByOperator
                | Self::RedeliveredByOperator
        )
    }
}

impl Run<'_> {
    /// Starts the command.
    pub fn operate(
        &mut self,
        proxies: &Proxies,
        command: &'static str,
        id: &str,
        settings: Vec<(&'static str, String)>,
    ) {
        let mut arguments: Vec<String> = command.split(' ').map(str::to_owned).collect();
        arguments.extend([id, "--reason", "of the matrix"].map(str::to_owned));
        match self.kind {
            Kind::ResolvedByOperator => {
                let reference = self.kind.reference(id);
                let links = self.env.provider.ledger().links;
                let link = links.iter().find(|link| link.request.reference == reference).unwrap();
                arguments.extend(["--created".to_owned(), link.id.clone()]);
            }
            Kind::RequeuedByOperator => {
                let patch = self.env.folder.join(format!("{id}-patch.json"));
                std::fs::write(&patch, json!({ "amount": { "minor_amount": 1250 } }).to_string()).unwrap();
                arguments.extend(["--yes", "--patch"].map(str::to_owned));
                arguments.push(patch.display().to_string());
            }
            Kind::RedeliveredByOperator => arguments.push("--yes".to_owned()),
            _ => {}
        }
        self.operator = Some(Operator {
            command,
            key: id.to_owned(),
            arguments,
            settings,
            is_running: false,
            runs: Vec::new(),
            posts_before: self.posts_of(id),
        });
        self.run_command(proxies);
    }

    fn run_command(&mut self, proxies: &Proxies) {
        let Some(operator) = &mut self.operator else { return };
        let arguments: Vec<&str> = operator.arguments.iter().map(String::as_str).collect();
        proxies.watch_over_command(self.env.launch(&arguments, &operator.settings));
        operator.is_running = true;
    }

    /// Runs the command until it is done, as an operator does.
    pub async fn operated(&mut self, proxies: &Proxies) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(operator) = &mut self.operator else { return };
            if operator.is_running {
                let ended = tokio::time::timeout(DEADLINE, proxies.command_ended()).await;
                operator.is_running = false;
                operator.runs.push(ended.ok().flatten().and_then(|status| status.code()));
            } else if Instant::now() > deadline || self.is_carried_out().await {
                return;
            } else {
                // The servers notice that the connections of a killed command have ended.
                tokio::time::sleep(GLANCE).await;
                self.run_command(proxies);
            }
        }
    }

    /// Returns whether the last run succeeded or found the command done, and no dead letter is left.
    async fn is_carried_out(&self) -> bool {
        let Some(operator) = &self.operator else { return true };
        let is_done = match operator.runs.last() {
            Some(Some(DONE | IN_PART)) => true,
            Some(Some(NOTHING_FOUND | REFUSED)) => {
                let has_record = self.records().await.iter().any(|record| record.key == operator.key);
                has_record && self.recorded_acts().await.iter().any(|act| act.command == operator.command)
            }
            _ => false,
        };
        is_done && (self.env.ready(&self.env.names.dead_queue).await == 0)
    }

    /// Returns a violation if the command never succeeded. A run may fail without an injected fault, because the database's
    /// timeouts are short.
    pub async fn not_carried_out(&self) -> Vec<Violation> {
        let Some(operator) = &self.operator else { return Vec::new() };
        if self.is_carried_out().await {
            return Vec::new();
        }
        let evidence = format!("{} ended with {:?}", operator.command, operator.runs);
        vec![Violation { rule: "R24", evidence }]
    }

    pub fn command_runs(&self) -> Vec<CommandRun> {
        let Some(operator) = &self.operator else { return Vec::new() };
        let run = |status: &Option<i32>| CommandRun {
            key: operator.key.clone(),
            command: operator.command.to_owned(),
            is_done: *status == Some(DONE),
        };
        operator.runs.iter().map(run).collect()
    }

    /// A dead letter's act belongs to no record.
    pub async fn recorded_acts(&self) -> Vec<RecordedAct> {
        let acts = "SELECT coalesce(p.merchant_payout_id, a.details->>'merchant_payout_id'), a.command,
                CASE WHEN a.command = 'webhooks redeliver' THEN a.details->>'event' END
             FROM operator_actions a LEFT JOIN payout_links p ON p.id = a.payout_link_id
             WHERE coalesce(p.merchant_payout_id, a.details->>'merchant_payout_id') = ANY($1) ORDER BY a.id";
        let acts: Vec<(String, String, Option<String>)> =
            sqlx::query_as(acts).bind(self.names()).fetch_all(&self.env.pool).await.unwrap();
        acts.into_iter().map(|(key, command, event_id)| RecordedAct { key, command, event_id }).collect()
    }

    /// Returns whether the record's webhook with this number (in the order of arrival, from 0) was delivered again.
    pub fn is_redelivery(&self, key: &str, number: usize) -> bool {
        self.kind == Kind::RedeliveredByOperator
            && self
                .operator
                .as_ref()
                .is_some_and(|operator| operator.key == key && number >= operator.posts_before)
    }

    fn posts_of(&self, key: &str) -> usize {
        let posts = self.env.merchant.received();
        posts.iter().filter(|post| post.reference.as_deref() == Some(key)).count()
    }
}
