//! Tests TLS to the broker, the database, connectors and merchants, with valid and invalid certificates.

use std::net::SocketAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use crate::support::{Authority, Certified, Service, Setup, TestEnv, eventually, job};

/// Returns the line of `check` about `what`.
fn checked(env: &TestEnv, what: &str) -> String {
    let output = env.run(&["check"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.contains(what));
    line.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

fn assert_refused(line: &str, reason: &str) {
    assert!(line.starts_with("failed") && line.contains(reason), "{reason}: {line}");
}

/// Waits until a connection is rejected: a database applies new settings a moment after the signal.
async fn until_refused(env: &TestEnv, reason: &str) {
    eventually(reason, async || checked(env, "database").contains(reason).then_some(())).await;
}

fn plain_port(url: &str) -> u16 {
    url.parse::<url::Url>().unwrap().port().unwrap()
}

/// Writes a file into the server's data folder, as the server's own account.
async fn write_beside_the_data(database: &mut PgConnection, file: &str, text: &str) {
    let text = STANDARD.encode(text);
    let copy = format!("COPY (SELECT '{text}') TO PROGRAM 'umask 077; base64 -d > {file}'");
    database.execute(sqlx::AssertSqlSafe(copy)).await.unwrap();
}

async fn show_certificate(database: &mut PgConnection, certified: &Certified) {
    write_beside_the_data(database, "tls.key", &certified.key).await;
    write_beside_the_data(database, "tls.pem", &certified.certificate).await;
    database.execute("SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_spoken_to_by_its_certificate() {
    // Given a PostgreSQL that speaks TLS, and plain connections only to this test,
    let (authority, other) = (Authority::new("the database's"), Authority::new("another"));
    let postgres = Service::start("postgres").await;
    let plain = format!("{}?sslmode=disable", postgres.url);
    let mut admin = PgConnection::connect(&plain).await.unwrap();
    write_beside_the_data(&mut admin, "ca.pem", &authority.pem()).await;
    let who =
        "hostnossl all all 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n";
    write_beside_the_data(&mut admin, "pg_hba.conf", who).await;
    show_certificate(&mut admin, &authority.server(&["127.0.0.1"])).await;
    for setting in
        ["ssl = on", "ssl_cert_file = 'tls.pem'", "ssl_key_file = 'tls.key'", "ssl_ca_file = 'ca.pem'"]
    {
        admin.execute(sqlx::AssertSqlSafe(format!("ALTER SYSTEM SET {setting}"))).await.unwrap();
    }
    admin.execute("SELECT pg_reload_conf()").await.unwrap();
    let mut env = Setup::default().database(&plain).build().await;
    let folder = env.folder.clone();
    let file = |name: &str| folder.join(name).display().to_string();
    std::fs::write(file("ca.pem"), authority.pem()).unwrap();
    std::fs::write(file("other.pem"), other.pem()).unwrap();
    authority.client("worker").write(&folder, "client");
    env.set("database.tls.mode", "verify-full");
    env.set("database.tls.ca_file", file("ca.pem"));

    // then the client certificate is needed if the server asks for it,
    until_refused(&env, "connection requires a valid client certificate").await;
    env.set("database.tls.client_certificate_file", file("client.pem"));
    env.set("database.tls.client_key_file", file("client.key"));
    assert!(checked(&env, "database").starts_with("ok      database "));

    // and a whole job uses TLS,
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    let by_tls: Vec<bool> = sqlx::query_scalar(
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'payout-link-worker'",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    assert!(!by_tls.is_empty() && by_tls.iter().all(|by_tls| *by_tls), "{by_tls:?}");
    worker.stop().await;

    // but not with a server of another authority,
    env.set("database.tls.ca_file", file("other.pem"));
    assert_refused(&checked(&env, "database"), "UnknownIssuer");
    let mut worker = env.launch_worker(&[]);
    assert_eq!(worker.exited().await.code(), Some(1), "{}", worker.log());
    env.set("database.tls.ca_file", file("ca.pem"));

    // or of another name, unless only the CA counts,
    show_certificate(&mut admin, &authority.server(&["elsewhere.example"])).await;
    until_refused(&env, "not valid for name").await;
    env.set("database.tls.mode", "verify-ca");
    assert!(checked(&env, "database").starts_with("ok      database "));

    // or with an expired certificate.
    show_certificate(&mut admin, &authority.expired(&["127.0.0.1"])).await;
    until_refused(&env, "certificate expired").await;
    // There is no fallback to a plain connection either.
    show_certificate(&mut admin, &authority.server(&["127.0.0.1"])).await;
    admin.execute("ALTER SYSTEM SET ssl = off").await.unwrap();
    admin.execute("SELECT pg_reload_conf()").await.unwrap();
    until_refused(&env, "server does not support TLS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_is_spoken_to_by_its_certificate() {
    // Given a RabbitMQ that speaks TLS to clients with a certificate,
    let (authority, other) = (Authority::new("the broker's"), Authority::new("another"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rabbitmq = Service::start_with("rabbitmq", |folder| {
        authority.server(&["localhost"]).write(folder, "tls");
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        let settings = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\n\
             ssl_options.cacertfile = {folder}/ca.pem\n\
             ssl_options.certfile = {folder}/tls.pem\n\
             ssl_options.keyfile = {folder}/tls.key\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true\n\
             auth_mechanisms.1 = PLAIN\n\
             auth_mechanisms.2 = EXTERNAL\n\
             ssl_cert_login_from = common_name\n",
            folder = folder.display()
        );
        std::fs::create_dir_all(folder.join("rabbitmq")).unwrap();
        std::fs::write(folder.join("rabbitmq/rabbitmq.conf"), settings).unwrap();
        std::fs::write(folder.join("rabbitmq/enabled_plugins"), "[rabbitmq_auth_mechanism_ssl].").unwrap();
    })
    .await;
    let show = |certified: &Certified| {
        certified.write(&rabbitmq.folder, "tls");
        rabbitmq.ctl(&["eval", "ssl:clear_pem_cache()."]);
    };
    let mut env = Setup::default().broker(&rabbitmq.url).build().await;
    let folder = env.folder.clone();
    let file = |name: &str| folder.join(name).display().to_string();
    std::fs::write(file("ca.pem"), authority.pem()).unwrap();
    std::fs::write(file("other.pem"), other.pem()).unwrap();
    authority.client("guest").write(&folder, "client");
    env.set("broker.url", format!("amqps://guest:guest@localhost:{port}/%2f"));
    env.set("broker.tls.ca_file", file("ca.pem"));

    // then the client certificate is needed,
    let said = "CertificateRequired";
    eventually(said, async || {
        let line = checked(&env, "broker");
        assert!(line.starts_with("failed"), "{line}");
        // The broker has closed the connection by the time of our first bytes, so its alert may be lost in a reset.
        line.contains(said).then_some(())
    })
    .await;
    env.set("broker.tls.client_certificate_file", file("client.pem"));
    env.set("broker.tls.client_key_file", file("client.key"));
    assert!(checked(&env, "broker").starts_with("ok      broker "));

    // and a whole job uses TLS, with the certificate instead of a password,
    env.set("broker.url", format!("amqps://localhost:{port}/%2f?auth_mechanism=external"));
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    worker.stop().await;

    // but not with a server of another authority: the CA file replaces the system's certificates,
    env.set("broker.tls.ca_file", file("other.pem"));
    assert_refused(&checked(&env, "broker"), "UnknownIssuer");
    let mut worker = env.launch_worker(&[]);
    assert_eq!(worker.exited().await.code(), Some(1), "{}", worker.log());
    env.set("broker.tls.ca_file", file("ca.pem"));

    // or of another name, unless only the CA counts,
    show(&authority.server(&["elsewhere.example"]));
    assert_refused(&checked(&env, "broker"), "not valid for name");
    env.set("broker.tls.mode", "verify-ca");
    assert!(checked(&env, "broker").starts_with("ok      broker "));
    show(&other.server(&["localhost"]));
    assert_refused(&checked(&env, "broker"), "UnknownIssuer");

    // or with an expired certificate. There is no fallback to a plain connection either.
    show(&authority.expired(&["localhost"]));
    assert_refused(&checked(&env, "broker"), "certificate expired");
    env.set("broker.url", format!("amqps://guest:guest@localhost:{}/%2f", plain_port(&rabbitmq.url)));
    assert!(checked(&env, "broker").starts_with("failed"));
}

/// Returns invalid certificates, each with the expected error.
fn not_good(authority: &Authority, other: &Authority) -> [(Certified, &'static str); 3] {
    [
        (authority.expired(&["localhost"]), "certificate expired"),
        (authority.server(&["elsewhere.example"]), "not valid for name"),
        (other.server(&["localhost"]), "UnknownIssuer"),
    ]
}

fn address(url: &str) -> SocketAddr {
    let url: url::Url = url.parse().unwrap();
    format!("127.0.0.1:{}", url.port().unwrap()).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_is_called_by_its_certificate() {
    let (authority, other) = (Authority::new("the connector's"), Authority::new("another"));
    let mut env = TestEnv::new().await;
    let ca_file = env.folder.join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let provider = address(env.provider.url());
    // Given connectors with invalid certificates,
    env.set("connectors.sandbox.calls.ca_file", ca_file.display());
    for (certified, reason) in not_good(&authority, &other) {
        let front = certified.in_front_of(provider).await;
        env.set("connectors.sandbox.url", format!("https://localhost:{}", front.port()));
        assert_refused(&checked(&env, "connector sandbox"), reason);
    }
    // and one with a valid certificate, by the CA file alone,
    let front = authority.server(&["localhost"]).in_front_of(provider).await;
    env.set("connectors.sandbox.url", format!("https://localhost:{}", front.port()));
    assert_eq!(checked(&env, "connector sandbox"), "ok      connector sandbox");
    env.set("connectors.asked.url", format!("https://localhost:{}", front.port()));
    assert_refused(&checked(&env, "connector asked"), "UnknownIssuer");
    // then a job is carried out there.
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_is_posted_to_by_its_certificate() {
    // Given merchants with invalid certificates, and one with a valid one,
    let (authority, other) = (Authority::new("the merchants'"), Authority::new("another"));
    let env = Setup::default()
        .set("webhooks.schedule_seconds", "[]")
        .set("jobs.allow_http_webhooks", false)
        .set("webhooks.allowed_hosts", "[\"localhost\"]")
        .build()
        .await;
    let ca_file = env.folder.join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let merchant = address(env.merchant.url());
    let posted_to = async |id: &str, certified: &Certified| {
        let front = certified.in_front_of(merchant).await;
        let url = format!("https://localhost:{}/webhooks", front.port());
        env.publish(job(id).with("webhook_url", json!(url))).await;
        env.wait_until_delivered(id).await
    };
    // then the webhooks of the first ones are abandoned, with the reason in the timeline,
    let worker = env.launch_worker(&[("PAYOUT_LINK__WEBHOOKS__CA_FILE", ca_file.display().to_string())]);
    worker.says("connected to RabbitMQ, consuming").await;
    for (certified, reason) in not_good(&authority, &other) {
        let shown = posted_to(reason, &certified).await;
        assert_eq!(shown["event"]["webhook_state"], "abandoned");
        assert!(shown["timeline"].to_string().contains(reason), "{shown}");
    }
    assert!(env.merchant.received().is_empty());
    // and the last one's arrives.
    posted_to("good", &authority.server(&["localhost"])).await;
    assert!(env.webhooks(1).await[0].verified);
    worker.stop().await;
    // Without a CA file the system's certificates count.
    let worker = env.launch_worker(&[]);
    let shown = posted_to("not the system's", &authority.server(&["localhost"])).await;
    assert_eq!(shown["event"]["webhook_state"], "abandoned");
    worker.stop().await;
    let _worker = env.launch_worker(&[("SSL_CERT_FILE", ca_file.display().to_string())]);
    posted_to("the system's", &authority.server(&["localhost"])).await;
    assert_eq!(env.webhooks(2).await.len(), 2);
}
