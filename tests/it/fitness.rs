//! Tests addresses and databases that a worker cannot use: `run` and `check` read them, connect and fail in the same
//! way.

use std::{
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use payout_link_worker::postgres;
use sqlx::{AssertSqlSafe, Executor};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use url::Url;

use crate::support::{TestEnv, eventually, job};

/// Returns the line of `check` about `what`.
fn checked(env: &TestEnv, what: &str) -> String {
    let output = env.run(&["check"]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    said.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// Checks that `check` fails with these words, and that `run` ends with the same.
async fn refused(env: &TestEnv, words: &str) {
    let line = checked(env, "  database");
    assert!(line.starts_with("failed") && line.contains(words), "{words}: {line}");
    let mut worker = env.launch_worker(&[]);
    assert_eq!(worker.exited().await.code(), Some(1), "{words}: {}", worker.log());
    // The database's address has no space.
    let (_, reason) = line.split_once("  database ").unwrap().1.split_once(": ").unwrap();
    assert!(worker.log().contains(reason), "{reason}: {}", worker.log());
}

/// Forwards an IPv6 address. Its port is free on 127.0.0.1, except for the second listener, which counts connections.
async fn forwarded(to: SocketAddr) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let trap = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let trapped = Arc::new(AtomicUsize::new(0));
    let count = trapped.clone();
    tokio::spawn(async move {
        while trap.accept().await.is_ok() {
            count.fetch_add(1, Relaxed);
        }
    });
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut to = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    (port, trapped)
}

fn address(url: &Url) -> SocketAddr {
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()).parse().unwrap()
}

fn database_url(env: &TestEnv) -> Url {
    let mut url: Url = std::env::var("DATABASE_URL").unwrap().parse().unwrap();
    url.set_path(env.pool.connect_options().get_database().unwrap());
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_address_is_connected_to_and_nothing_else_is() {
    let mut env = TestEnv::new().await;
    let mut amqp: Url = std::env::var("AMQP_URL").unwrap().parse().unwrap();
    let (port, trapped) = forwarded(address(&amqp)).await;
    amqp.set_host(Some("[::1]")).unwrap();
    amqp.set_port(Some(port)).unwrap();
    env.set("broker.url", &amqp);
    let mut database = database_url(&env);
    let (port, trapped_too) = forwarded(address(&database)).await;
    database.set_host(Some("[::1]")).unwrap();
    database.set_port(Some(port)).unwrap();
    env.set("database.url", &database);
    assert!(checked(&env, "  broker").starts_with("ok"), "{}", checked(&env, "  broker"));
    assert!(checked(&env, "  database").starts_with("ok"), "{}", checked(&env, "  database"));
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert_eq!((trapped.load(Relaxed), trapped_too.load(Relaxed)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_place_and_the_first_cause() {
    let mut env = TestEnv::new().await;
    env.set("broker.url", "amqp://guest:canary@127.0.0.1:1/%2f");
    env.set("database.url", "postgres://worker:canary@[::1]:1/payout_links");
    env.set("connectors.mute.url", "http://127.0.0.1:1/");
    for (what, place) in
        [("  broker", "127.0.0.1:1: "), ("  database", "[::1]:1: "), ("  connector mute", "127.0.0.1:1: ")]
    {
        let line = checked(&env, what);
        assert!(line.starts_with("failed") && line.contains(place), "{line}");
        assert!(line.to_lowercase().contains("connection refused") && !line.contains("timed out"), "{line}");
        assert!(!line.contains("canary"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_utf8_is_refused() {
    let mut env = TestEnv::new().await;
    let name = format!("{}_latin", env.pool.connect_options().get_database().unwrap());
    let make =
        format!("CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    env.pool.execute(AssertSqlSafe(make)).await.unwrap();
    let mut url = database_url(&env);
    url.set_path(&name);
    env.set("database.url", &url);
    refused(&env, "the database's encoding is LATIN1").await;
    env.pool.execute(AssertSqlSafe(format!("DROP DATABASE {name}"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_and_too_few_sessions_are_refused() {
    let mut env = TestEnv::new().await;
    let role = format!("narrow_{}", env.pool.connect_options().get_database().unwrap());
    let make = format!("CREATE ROLE {role} LOGIN PASSWORD 'canary'");
    env.pool.execute(AssertSqlSafe(make)).await.unwrap();
    let mut url = database_url(&env);
    url.set_username(&role).unwrap();
    url.set_password(Some("canary")).unwrap();
    env.set("database.url", &url);
    // The role may not create tables,
    env.pool.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await.unwrap();
    refused(&env, "this role may not migrate the database").await;
    // no tables exist,
    env.set("worker.migrate", false);
    refused(&env, "tables, columns or privileges are missing: payout_links: SELECT").await;
    // they exist, but the role may not use them,
    postgres::migrate(&env.pool).await.unwrap();
    refused(&env, "tables, columns or privileges are missing: payout_links: SELECT").await;
    // or may use them, but not change them.
    let grant = format!(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; REVOKE UPDATE ON sealing_keys FROM {role}"
    );
    env.pool.execute(sqlx::raw_sql(AssertSqlSafe(grant))).await.unwrap();
    refused(&env, "privileges are missing: sealing_keys: UPDATE").await;
    let grant = format!("GRANT UPDATE ON sealing_keys TO {role}; ALTER ROLE {role} CONNECTION LIMIT 7");
    env.pool.execute(sqlx::raw_sql(AssertSqlSafe(grant))).await.unwrap();
    refused(&env, "the role's CONNECTION LIMIT is 7, and this worker needs 8 sessions").await;
    let raise = format!("ALTER ROLE {role} CONNECTION LIMIT 8");
    env.pool.execute(AssertSqlSafe(raise)).await.unwrap();
    assert!(checked(&env, "  database").starts_with("ok"), "{}", checked(&env, "  database"));
    assert!(env.start_worker().await.stop().await.success());
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    env.pool.execute(sqlx::raw_sql(AssertSqlSafe(drop))).await.unwrap();
}

/// A running PgBouncer.
struct Pooler(Child);

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pooler {
    /// Starts a PgBouncer. Prints a note and returns `None` if it is not installed.
    async fn start(env: &TestEnv, more: &str) -> Option<(Self, Url)> {
        let mut url = database_url(env);
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let file = env.folder.join(format!("pgbouncer-{port}.ini"));
        let place = address(&url);
        let password = url.password().map(|password| format!(" password={password}")).unwrap_or_default();
        let configuration = format!(
            "[databases]\n* = host={} port={} user={}{password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = any\ndefault_pool_size = 30\nmax_client_conn = 100\nunix_socket_dir =\n{more}\n",
            place.ip(),
            place.port(),
            url.username(),
        );
        std::fs::write(&file, configuration).unwrap();
        // Debian has it in a folder that is not on every PATH.
        let installed = std::path::Path::new("/usr/sbin/pgbouncer");
        let mut command =
            if installed.exists() { Command::new(installed) } else { Command::new("pgbouncer") };
        command.arg("-q").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        // It does not run as root, and only root may choose another user.
        if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            command.args(["-u", "nobody"]);
        }
        let pooler = match command.spawn() {
            Ok(child) => Self(child),
            Err(error) => {
                eprintln!("pgbouncer: {error}: it is NOT tried");
                return None;
            }
        };
        eventually("the pooler listens", async || TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
        url.set_port(Some(port)).unwrap();
        Some((pooler, url))
    }
}

/// Checks a pooler with every parameter that it passes on or ignores at the start of a session.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_transaction_mode_is_refused_and_one_in_session_mode_is_not() {
    for (more, words) in [
        ("pool_mode = transaction", "a connection pooler shares sessions"),
        (
            "pool_mode = transaction\nignore_startup_parameters = extra_float_digits,options",
            "two connections share one session: a connection pooler shares sessions",
        ),
        (
            "pool_mode = statement\nignore_startup_parameters = extra_float_digits,options",
            "a connection pooler shares sessions",
        ),
    ] {
        let mut env = TestEnv::new().await;
        let Some((pooler, url)) = Pooler::start(&env, more).await else { return };
        env.set("database.url", &url);
        refused(&env, words).await;
        drop(pooler);
    }
    let mut env = TestEnv::new().await;
    let more = "pool_mode = session\nignore_startup_parameters = extra_float_digits";
    let Some((pooler, url)) = Pooler::start(&env, more).await else { return };
    env.set("database.url", &url);
    assert!(checked(&env, "  database").starts_with("ok"), "{}", checked(&env, "  database"));
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert!(worker.stop().await.success());
    drop(pooler);
}
