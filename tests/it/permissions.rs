//! Tests that the rights of docs/permissions are enough for everything that a worker does, and for nothing else.

use std::process::Command;

use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use payout_link_worker::{
    postgres::{self, Operator},
    rabbitmq::Names,
};
use provider_simulators::sandbox::{Announce, Fault, LinkChange};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{Service, Setup, TestEnv, eventually, job, store};

/// Creates a role with the rights of docs/permissions/postgres.sql, and returns the URL of the test's database for
/// it.
async fn role(env: &TestEnv) -> (String, url::Url) {
    postgres::migrate(&env.pool).await.unwrap();
    let options = env.pool.connect_options();
    let database = options.get_database().unwrap();
    let name = format!("worker_of_{database}");
    let make = format!("CREATE ROLE {name} LOGIN PASSWORD 'canary-role-password'");
    sqlx::query(AssertSqlSafe(make)).execute(&env.pool).await.unwrap();
    let grants = include_str!("../../docs/permissions/postgres.sql").replace(":\"worker\"", &name);
    sqlx::raw_sql(AssertSqlSafe(grants)).execute(&env.pool).await.unwrap();
    let mut url: url::Url = std::env::var("DATABASE_URL").unwrap().parse().unwrap();
    url.set_username(&name).unwrap();
    url.set_password(Some("canary-role-password")).unwrap();
    url.set_path(database);
    (name, url)
}

async fn drop_role(env: &TestEnv, name: &str) {
    let drop = format!("DROP OWNED BY {name}; DROP ROLE {name}");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&env.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_rights_are_enough() {
    // Given a worker under that role,
    let mut env = Setup::default()
        .set("worker.migrate", false)
        .set("retention.requests_days", 0)
        .set("retention.events_days", 0)
        .set("retention.attempts_days", 0)
        .set("worker.sweep_interval_ms", 50)
        .set("worker.provider_webhooks_listen", "127.0.0.1:0")
        .set("connectors.sandbox.follow.webhook_secrets", r#"["canary-inbound-secret"]"#)
        .build()
        .await;
    let (name, url) = role(&env).await;
    env.set("database.url", url);
    let worker = env.start_worker().await;
    // when it does everything: a link, a duplicate, a conflict, a decline, a retry, an unknown outcome,
    for answers in [1, 2] {
        env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
        env.wait_for_results("po_1", answers).await;
    }
    env.publish(job("po_1").amount(99)).await;
    env.dead_letter().await;
    for (id, fault) in [("po_2", 422), ("po_3", 429), ("po_4", 500)] {
        env.provider.inject_fault(Fault::status(fault));
        env.publish(job(id)).await;
        env.result_of(id).await;
    }
    // a change that its provider announces,
    let webhooks = format!("{}/connectors/sandbox/webhooks", worker.provider_webhooks_url().await);
    env.provider.announce(Some(Announce::to(webhooks, "canary-inbound-secret")));
    let link = env.result_of("po_1").await.json()["connector_payout_id"].as_str().unwrap().to_owned();
    env.provider.change(&link, LinkChange::Claim).unwrap();
    eventually("the change", async || {
        let results = env.results_of("po_1");
        results.iter().any(|result| result.kind() == "payout_link.claimed").then_some(())
    })
    .await;
    let old = "UPDATE provider_webhooks SET received_at = now() - interval '8 days'";
    assert_eq!(sqlx::query(old).execute(&env.pool).await.unwrap().rows_affected(), 1);
    // and deletes everything after its retention, except the newest event of a link that it asks about,
    let left = "SELECT (SELECT count(*) FROM payout_links WHERE request IS NOT NULL)
        + (SELECT count(*) FROM events WHERE id NOT IN (
            SELECT coalesce(newest_event_id, event_id) FROM payout_links WHERE follow_due_at IS NOT NULL
        ))
        + (SELECT count(*) FROM attempts) + (SELECT count(*) FROM provider_webhooks)";
    eventually("all to be erased", async || {
        let left: i64 = sqlx::query_scalar(left).fetch_one(&env.pool).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
    // then nothing was denied,
    assert!(worker.stop().await.success());
    for command in
        [&["keys", "status"][..], &["keys", "rotate"], &["show", "po_1"], &["verify-history", "--help"]]
    {
        let output = env.run(command);
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    drop_role(&env, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_rights_are_no_more_than_enough() {
    let env = TestEnv::new().await;
    let (name, url) = role(&env).await;
    let mut session = PgConnection::connect(url.as_str()).await.unwrap();
    for statement in [
        "DELETE FROM payout_links",
        "TRUNCATE events",
        "UPDATE attempts SET outcome = 'created'",
        "UPDATE provider_webhooks SET connector = 'another'",
        "UPDATE operator_actions SET reason = 'another'",
        "DELETE FROM operator_actions",
        "TRUNCATE operator_actions",
        "DROP TABLE attempts",
        "ALTER TABLE payout_links DISABLE TRIGGER ALL",
        "CREATE TABLE mine (id integer)",
        "SELECT * FROM _sqlx_migrations",
        "COPY payout_links TO '/tmp/stolen'",
        "CREATE ROLE another",
    ] {
        let refused = sqlx::query(statement).execute(&mut session).await.unwrap_err();
        let code =
            refused.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        assert_eq!(code, "42501", "{statement}: {refused}");
    }
    session.close().await.unwrap();
    drop_role(&env, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn not_even_the_owner_of_the_table_can_change_operators_actions() {
    // Given an action of an operator,
    let env = TestEnv::new().await;
    postgres::migrate(&env.pool).await.unwrap();
    let operator = Operator { actor: "ada".into(), reason: "seen at the provider".into() };
    let (store, record) = (store(env.pool.clone()), uuid::Uuid::now_v7());
    let details = serde_json::json!({"to": "created"});
    store.record_action(&operator, "resolve", Some(record), &details).await.unwrap();
    // when its owner, who may do everything else, changes it,
    for statement in [
        "UPDATE operator_actions SET reason = 'another'",
        "DELETE FROM operator_actions",
        "TRUNCATE operator_actions",
        "SET session_replication_role = replica; DELETE FROM operator_actions",
    ] {
        // then that is denied,
        let refused = sqlx::raw_sql(statement).execute(&env.pool).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{statement}: {refused}");
    }
    // and the action is unchanged.
    let actions = store.actions_of(record, ("", "")).await.unwrap();
    let [action] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(
        (&*action.actor, &*action.reason, &*action.command),
        ("ada", "seen at the provider", "resolve")
    );
    assert_eq!(action.details, details);
}

/// Starts a broker with a user that has the rights of docs/permissions/rabbitmq.sh for a role. Returns the user's URL.
async fn broker_with_a_user(role: &str) -> (Service, url::Url) {
    let broker = Service::start("rabbitmq").await;
    broker.ctl(&["add_user", "worker", "canary-broker-password"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/permissions/rabbitmq.sh");
    let ctl = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services ctl");
    let granted = Command::new(script)
        .args(["worker", "/", role])
        .env("RABBITMQCTL", ctl)
        .env("SERVICES_DIR", &broker.folder)
        .output()
        .unwrap();
    assert!(granted.status.success(), "{}", String::from_utf8_lossy(&granted.stderr));
    let mut url: url::Url = broker.url.parse().unwrap();
    url.set_username("worker").unwrap();
    url.set_password(Some("canary-broker-password")).unwrap();
    (broker, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_user_can_do_its_work_and_nothing_else() {
    let (broker, url) = broker_with_a_user("worker").await;
    // Given a worker of that user, with the names of the contract,
    let mut env = Setup::default().names(Names::default()).broker(&broker.url).build().await;
    env.set("broker.url", &url);
    let worker = env.start_worker().await;
    // when it does everything there: results, replies, dead letters, and results without a queue,
    let (queue, replies) = env.reply_queue().await;
    env.publish(job("po_1").reply_to(&queue)).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    eventually("the reply", async || (!replies.lock().unwrap().is_empty()).then_some(())).await;
    env.publish(job("po_2").amount(0)).await;
    env.dead_letter().await;
    assert!(worker.stop().await.success());
    // then it may do nothing else.
    let connection = Connection::connect(url.as_str(), ConnectionProperties::default()).await.unwrap();
    let consume = async |queue: &'static str| {
        let channel = connection.create_channel().await.unwrap();
        let consuming = channel.basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        consuming.await.err().map(|error| error.to_string())
    };
    for queue in ["payout_links.create.dead", "payout_links.results.unrouted"] {
        assert!(consume(queue).await.unwrap().contains("ACCESS"), "{queue}");
    }
    let channel = connection.create_channel().await.unwrap();
    let declared =
        channel.queue_declare("another".into(), QueueDeclareOptions::default(), FieldTable::default()).await;
    assert!(declared.unwrap_err().to_string().contains("ACCESS"));
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let options = BasicPublishOptions::default();
    let published = channel
        .basic_publish("payout_links".into(), "create".into(), options, b"{}", BasicProperties::default())
        .await
        .unwrap()
        .await;
    assert!(published.unwrap_err().to_string().contains("ACCESS"), "a job of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retentions_user_can_delete_dead_letters_and_read_no_results() {
    // Given a worker with a retention of dead letters, and a letter past it,
    let (broker, url) = broker_with_a_user("retention").await;
    let setup = Setup::default().names(Names::default()).broker(&broker.url);
    let mut env = setup.set("retention.dead_letters_days", 1).build().await;
    env.start_worker().await.stop().await;
    env.publish_dead_letter(job("old").header("x-rejected-at", "2020-01-01T00:00:00Z")).await;
    // when it runs as that user, then it deletes the letter and still does its work,
    env.set("broker.url", &url);
    let worker = env.start_worker().await;
    worker.measures("payout_links_dead_letters_deleted_total", 1).await;
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert!(worker.stop().await.success());
    // and the user cannot read unrouted results.
    let connection = Connection::connect(url.as_str(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = BasicConsumeOptions::default();
    let queue = "payout_links.results.unrouted".into();
    let consumed = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await;
    assert!(consumed.unwrap_err().to_string().contains("ACCESS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_secrets_that_everybody_may_read_is_reported() {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};
    let mut env = TestEnv::new().await;
    let file = env.folder.join("fingerprint");
    std::fs::write(&file, "ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4=").unwrap();
    env.set("keys.fingerprint_file", file.display());
    let config = env.folder.join("worker.toml");
    for (mode, warnings) in [(0o644, 2), (0o640, 0), (0o600, 0)] {
        for file in [&file, &config] {
            std::fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        }
        let said = String::from_utf8(env.run(&["check"]).stdout).unwrap();
        assert_eq!(
            said.matches("the file has secrets and is readable by every user").count(),
            warnings,
            "{said}"
        );
        assert!(!said.contains("ZmluZ2Vy"), "{said}");
    }
}
