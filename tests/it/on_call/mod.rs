//! Tests the commands of an engineer on call, beside a running worker and ten thousand records, and on a terminal.

mod list;
mod status;
mod show;
mod program;
mod plans;
mod acting;
mod terminal;
mod targets;
mod waits;

use std::process::Output;

use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::support::{Setup, TestEnv, Worker};

const RECORDS: i64 = 10_000;

/// The number of records that one statement inserts.
const STEP: i64 = 250_000;

/// Inserts records as workers would have left them after several months.
async fn make_records(env: &TestEnv, count: i64) {
    for first in (1..=count).step_by(usize::try_from(STEP).unwrap()) {
        sqlx::query(include_str!("many_records.sql"))
            .bind(first)
            .bind((first + STEP - 1).min(count))
            .bind(count)
            .execute(&env.pool)
            .await
            .unwrap();
    }
    sqlx::raw_sql("VACUUM ANALYZE payout_links; ").execute(&env.pool).await.unwrap();
    sqlx::raw_sql("VACUUM ANALYZE events").execute(&env.pool).await.unwrap();
}

async fn with_records() -> (TestEnv, Worker) {
    let env = Setup::default().build().await;
    let worker = env.start_worker().await;
    make_records(&env, RECORDS).await;
    (env, worker)
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn count_where(env: &TestEnv, condition: &str) -> u64 {
    let count = format!("SELECT count(*) FROM payout_links WHERE {condition}");
    let count: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&env.pool).await.unwrap();
    count.unsigned_abs()
}

/// The conditions of `--where`, each with its SQL.
const CONDITIONS: &[(&str, &str)] = &[
    ("", "true"),
    ("state=open", "state = 'open'"),
    ("state=failed", "state = 'failed'"),
    ("state=unknown", "state = 'unknown'"),
    ("state=open,failed", "state IN ('open', 'failed')"),
    ("state=created,failed", "state IN ('created', 'failed')"),
    ("payout-status=PENDING", "payout_status = 'PENDING'"),
    ("link=expired", "link_status = 'expired'"),
    ("link=payout_failed", "link_status = 'payout_failed'"),
    ("merchant=m_big", "merchant_id = 'm_big'"),
    ("merchant=m_7", "merchant_id = 'm_7'"),
    ("merchant=m_big state=failed", "merchant_id = 'm_big' AND state = 'failed'"),
    ("merchant=m_big state=open", "merchant_id = 'm_big' AND state = 'open'"),
    ("connector=gone", "connector = 'gone'"),
    ("error=CONNECTOR_UNAVAILABLE", "error_code = 'CONNECTOR_UNAVAILABLE'"),
    ("since=1h", "created_at >= now() - interval '1 hour'"),
    ("until=2h state=failed", "created_at < now() - interval '2 hours' AND state = 'failed'"),
    (
        "min-amount=9000 max-amount=9500 currency=IDR",
        "amount_minor BETWEEN 9000 AND 9500 AND currency = 'IDR'",
    ),
    ("retrying", "state = 'open' AND attempts > 0 AND in_doubt_since IS NULL"),
    ("overdue", "due_at < now() - interval '1 minute'"),
    ("unknown", "state = 'unknown' OR in_doubt_since IS NOT NULL"),
];
