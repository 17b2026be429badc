//! Tests which addresses webhooks are sent to, with DNS answers that lie and every spelling of an address.
//!
//! 127.0.0.2 is allowed and represents a public address. 127.0.0.1 is not allowed, and a server there counts the
//! clients that connect.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hickory_proto::op::ResponseCode;
use provider_simulators::sandbox::{Fault, Receiver};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Answer, Dns, Setup, TestEnv, Worker, addresses, job};

struct Scene {
    env: TestEnv,
    /// The merchant, at 127.0.0.2.
    merchant: Receiver,
    /// Connections to the same port of 127.0.0.1, which is not allowed.
    trespassers: Arc<AtomicUsize>,
    port: u16,
    dns: Dns,
}

impl Scene {
    async fn new(answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        let dns = Dns::start(answer).await;
        let (inside, port, merchant) = loop {
            let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = inside.local_addr().unwrap().port();
            // Another process may use that port at the other address.
            if let Ok(merchant) = Receiver::listen(([127, 0, 0, 2], port).into(), &[]).await {
                break (inside, port, merchant);
            }
        };
        let trespassers = Arc::<AtomicUsize>::default();
        let counted = trespassers.clone();
        tokio::spawn(async move {
            while inside.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let env = Setup::default()
            .set("webhooks.allowed_networks", "[\"127.0.0.2/32\"]")
            .set("webhooks.dns_servers", format!("[\"{}\"]", dns.address))
            .set("webhooks.schedule_seconds", "[1]")
            .set("webhooks.timeout_seconds", 5)
            .build()
            .await;
        Self { env, merchant, trespassers, port, dns }
    }

    async fn start_worker(&self) -> Worker {
        self.env.start_worker().await
    }

    /// Sends a webhook to this host, and waits for its outcome.
    async fn post_to(&self, host: &str) -> Value {
        let url = format!("http://{host}:{}/webhooks", self.port);
        self.env.publish(job(host).with("webhook_url", json!(url))).await;
        self.env.wait_until_delivered(host).await
    }

    async fn arrives(&self, host: &str) {
        let shown = self.post_to(host).await;
        assert_eq!(shown["event"]["webhook_state"], "delivered", "{host}: {shown}");
    }

    async fn is_not_posted_to(&self, host: &str, reason: &str) {
        let shown = self.post_to(host).await;
        assert_eq!(shown["event"]["webhook_state"], "abandoned", "{host}: {shown}");
        assert!(shown["timeline"].to_string().contains(reason), "{host}: {shown}");
        assert_eq!(self.trespassers.load(Ordering::SeqCst), 0, "{host}");
    }
}

const NOT_PUBLIC: &str = "does not resolve to a public address";

/// Checks DNS rebinding: the worker connects to the address that it checked, at the first attempt and at the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_turns_inwards_is_not_followed_there() {
    // Given a name that resolves to a public address first, and to a private one next,
    let scene =
        Scene::new(|_, before| addresses(&[if before == 0 { "127.0.0.2" } else { "127.0.0.1" }])).await;
    let _worker = scene.start_worker().await;
    // then a webhook that needs one resolution arrives, and there was only one,
    scene.arrives("once.example.com").await;
    assert_eq!(scene.dns.asked("once.example.com"), 1);
    // and a webhook that has to be sent again arrives nowhere the second time.
    scene.merchant.inject_fault(Fault::Close);
    scene.is_not_posted_to("twice.example.com", NOT_PUBLIC).await;
    assert!(scene.dns.asked("twice.example.com") >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_mixed_answer_the_public_addresses_count() {
    let scene = Scene::new(|name, _| match name {
        "mixed.example.com" => addresses(&["127.0.0.1", "10.0.0.1", "127.0.0.2", "::1", "169.254.169.254"]),
        _ => addresses(&["127.0.0.1", "10.0.0.1", "::ffff:127.0.0.2", "::1", "fd00::1", "64:ff9b::7f00:1"]),
    })
    .await;
    let _worker = scene.start_worker().await;
    scene.arrives("mixed.example.com").await;
    // An IPv4 address that is mapped to IPv6 is judged as IPv4.
    scene.arrives("mapped.example.com").await;
    assert_eq!(scene.trespassers.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_are_followed_to_what_they_come_to() {
    let chain = |length: usize| (0..length).map(|link| format!("link{link}.example.com")).collect::<Vec<_>>();
    let scene = Scene::new(move |name, _| match name {
        "outwards.example.com" => Answer::Aliases(chain(5), vec!["127.0.0.2".parse().unwrap()]),
        "inwards.example.com" => Answer::Aliases(chain(5), vec!["127.0.0.1".parse().unwrap()]),
        "local.example.com" => Answer::Aliases(vec!["localhost".into()], vec!["127.0.0.1".parse().unwrap()]),
        "ends.example.com" => Answer::Aliases(chain(1), vec![]),
        link if link.starts_with("link") => addresses(&[]),
        // Every name is an alias of another one.
        _ => Answer::Aliases(vec![format!("{}{}", 'x', &name[..name.len().min(40)])], vec![]),
    })
    .await;
    let _worker = scene.start_worker().await;
    scene.arrives("outwards.example.com").await;
    scene.is_not_posted_to("inwards.example.com", NOT_PUBLIC).await;
    scene.is_not_posted_to("local.example.com", NOT_PUBLIC).await;
    scene.is_not_posted_to("ends.example.com", "could not connect").await;
    scene.is_not_posted_to("endless.example.com", "could not connect").await;
}

/// Checks more records than a datagram holds and than a client would try.
#[tokio::test(flavor = "multi_thread")]
async fn very_many_records_are_looked_through_and_few_are_tried() {
    let inside = || (0..1500).map(|number| format!("10.9.{}.{}", number / 250, number % 250));
    let scene = Scene::new(move |name, _| {
        let outside = (name == "needle.example.com").then(|| "127.0.0.2".to_owned());
        Answer::Addresses(inside().chain(outside).map(|address| address.parse().unwrap()).collect())
    })
    .await;
    let worker = scene.start_worker().await;
    let before = worker.peak_memory();
    scene.arrives("needle.example.com").await;
    scene.is_not_posted_to("haystack.example.com", NOT_PUBLIC).await;
    assert!(worker.peak_memory() < before + 64 * 1024 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_do_not_resolve_end_in_time_and_delay_no_other() {
    let scene = Scene::new(|name, _| match name.split('.').next().unwrap_or_default() {
        "good" => addresses(&["127.0.0.2"]),
        "nothing" => addresses(&[]),
        "unknown" => Answer::Code(ResponseCode::NXDomain),
        "failing" => Answer::Code(ResponseCode::ServFail),
        "refusing" => Answer::Code(ResponseCode::Refused),
        "garbage" => Answer::Bytes(b"certainly not DNS".to_vec()),
        _ => Answer::Silence,
    })
    .await;
    let _worker = scene.start_worker().await;
    // Given more names without an answer than the system's resolver would have threads for,
    for number in 0..600 {
        let url = format!("http://silent.{number}.example.com/webhooks");
        scene.env.publish(job(&format!("silent_{number}")).with("webhook_url", json!(url))).await;
    }
    // then another merchant's webhook arrives meanwhile,
    scene.arrives("good.example.com").await;
    // and a name that does not resolve is reported as such.
    for host in ["nothing.example.com", "unknown.example.com", "failing.example.com", "refusing.example.com"]
    {
        scene.is_not_posted_to(host, "could not connect").await;
    }
    scene.is_not_posted_to("garbage.example.com", "timed out").await;
    scene.is_not_posted_to("silent.example.com", "timed out").await;
}

/// Checks that an address is judged by what it resolves to, never by its spelling.
#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_an_address_leads_inwards() {
    let scene = Scene::new(|name, _| match name {
        // A resolver might return this for a spelling, if it were asked.
        "good.example.com" => addresses(&["127.0.0.2"]),
        _ => addresses(&["127.0.0.1"]),
    })
    .await;
    let _worker = scene.start_worker().await;
    let spellings = [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "127.1.",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0x7F.1",
        "0177.0.0.1",
        "0x7f.0x0.0x0.0x1",
        "0177.0.0x0.1",
        "00000000177.0.0.1",
        "0",
        "0.0.0.0",
        "0x0",
        "%31%32%37.0.0.1",
        "127%2e0.0.1",
        "127%E3%80%820.0.1",
        "１２７.0.0.1",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[::]",
        "[fe80::1]",
        "[fc00::1]",
        "[fec0::1]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "%6c%6f%63alhost",
        "loc\u{ad}alhost",
        "foo.localhost",
        "inside.example.com",
        "inside.example.com.",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "[fd00:ec2::254]",
        "[::ffff:a9fe:a9fe]",
        "100.100.100.200",
        "192.0.0.192",
        "metadata.google.internal",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.2.1",
        "203.0.113.1",
    ];
    for (number, host) in spellings.iter().enumerate() {
        let url = format!("http://{host}:{}/webhooks", scene.port);
        scene.env.publish(job(&format!("odd_{number}")).with("webhook_url", json!(url))).await;
    }
    // Given a host of every spelling, then each job is rejected or its webhook is abandoned,
    for (number, host) in spellings.iter().enumerate() {
        let id = format!("odd_{number}");
        let result = scene.env.result_of(&id).await;
        if result.error_code().as_deref() == Some("INVALID_JOB") {
            assert_eq!(result.field().as_deref(), Some("webhook_url"), "{host}");
        } else {
            let shown = scene.env.wait_until_delivered(&id).await;
            assert_eq!(shown["event"]["webhook_state"], "abandoned", "{host}: {shown}");
        }
    }
    assert_eq!(scene.trespassers.load(Ordering::SeqCst), 0);
    assert!(scene.merchant.received().is_empty());
    // and a webhook to an allowed address arrives, by name and by every spelling of the address.
    scene.arrives("good.example.com").await;
    for host in ["127.0.0.2", "2130706434", "0x7f.2", "[::ffff:127.0.0.2]"] {
        scene.arrives(host).await;
    }
}
