//! Operators end unknown records and have failed ones tried again, beside running workers and each other.

mod resolve;
mod retry;
mod look_up;
mod bulk;
mod erase;
mod history;
mod not_created;
mod together;

use std::process::{Child, Output, Stdio};

use provider_simulators::sandbox::{Fault, FaultRule};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use crate::support::{TestEnv, eventually, job};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Returns the acts on a payout: command, actor and details.
async fn acts(env: &TestEnv, id: &str) -> Vec<(String, String, Value)> {
    let acts = "SELECT command, actor, details FROM operator_actions
        JOIN payout_links p ON p.id = payout_link_id WHERE merchant_payout_id = $1 ORDER BY operator_actions.id";
    sqlx::query_as(acts).bind(id).fetch_all(&env.pool).await.unwrap()
}

/// Creates an unknown payout: its call had no answer, at a connector that cannot be asked by our reference.
async fn unknown(env: &TestEnv, id: &str) -> String {
    env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
    env.publish(job(id).connector("mute").with("webhook_url", env.webhook_url())).await;
    assert_eq!(env.result_of(id).await.kind(), "payout_link.pending");
    env.provider.ledger().links.last().unwrap().id.clone()
}

async fn reply_of_duplicate(env: &TestEnv, job: crate::support::Job) -> crate::support::ReceivedMessage {
    let (queue, replies) = env.reply_queue().await;
    env.publish(job.reply_to(&queue)).await;
    eventually("a reply", async || replies.lock().unwrap().first().cloned()).await
}

/// Makes every write to a record wait, inside its transaction, until the gate is dropped.
async fn gate(env: &TestEnv) -> PgConnection {
    let mut gate = PgConnection::connect_with(&env.pool.connect_options()).await.unwrap();
    for statement in [
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$",
        "CREATE TRIGGER wait AFTER UPDATE ON payout_links FOR EACH STATEMENT EXECUTE FUNCTION wait()",
        "SELECT pg_advisory_lock(1)",
    ] {
        sqlx::query(statement).execute(&mut gate).await.unwrap();
    }
    gate
}

async fn until_waiting(env: &TestEnv, wanted: i64) {
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
        AND (locktype = 'transactionid' OR locktype = 'advisory' AND objsubid = 1)
        AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())";
    eventually("the acts wait", async || {
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(&env.pool).await.unwrap();
        (count >= wanted).then_some(())
    })
    .await;
}

fn begin(env: &TestEnv, arguments: &[&str]) -> Child {
    env.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}
