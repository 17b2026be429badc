//! Tests a running worker from outside: `/metrics`, health and the log.

use std::collections::{BTreeMap, BTreeSet};

use provider_simulators::sandbox::{Fault, FaultRule, Sandbox, Settings};

use crate::support::{Setup, TOKEN, TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_the_outcomes_of_jobs() {
    // Given a worker that has processed a job of each outcome:
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    // created, with a webhook that succeeds the second time; a duplicate; a conflict;
    env.merchant.inject_fault(Fault::status(500));
    env.publish(job("created").with("webhook_url", env.webhook_url())).await;
    env.result_of("created").await;
    env.publish(job("created")).await;
    env.publish(job("created").amount(1)).await;
    env.wait_for_results("created", 3).await;
    // an invalid job, and a job for an unknown connector;
    env.publish(job("invalid").amount(0)).await;
    env.publish(job("lost").connector("nowhere")).await;
    env.result_of("invalid").await;
    env.result_of("lost").await;
    // declined by the provider, unknown, and unknown until a look-up.
    env.provider.inject_fault(Fault::status(422));
    env.publish(job("refused")).await;
    env.result_of("refused").await;
    for (id, connector) in [("doubtful", "mute"), ("found", "asked")] {
        env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
        env.publish(job(id).connector(connector)).await;
        env.result_of(id).await;
    }
    env.wait_until_delivered("created").await;

    // When nothing is left to do,
    let measured = eventually("rest", async || {
        let measured = worker.series().await;
        let is_at_rest = ["payout_links_jobs_in_flight", "payout_links_events_in_flight"]
            .iter()
            .all(|gauge| measured[*gauge] == "0");
        let settled: u32 = ["accepted", "replayed", "rejected"]
            .iter()
            .map(|became| {
                measured[&format!("payout_links_jobs_total{{outcome=\"{became}\"}}")].parse::<u32>()
            })
            .map(Result::unwrap)
            .sum();
        (is_at_rest && settled == 8).then_some(measured)
    })
    .await;
    // then each is counted in its series, and nothing else is.
    let expected = [
        (r#"jobs_total{outcome="accepted"}"#, 4),
        (r#"jobs_total{outcome="replayed"}"#, 1),
        (r#"jobs_total{outcome="rejected"}"#, 3),
        (r#"rejected_total{code="IDEMPOTENCY_CONFLICT"}"#, 1),
        (r#"rejected_total{code="INVALID_JOB"}"#, 1),
        (r#"rejected_total{code="UNKNOWN_CONNECTOR"}"#, 1),
        (r#"concluded_total{connector="sandbox",state="created",code=""}"#, 1),
        (r#"concluded_total{connector="sandbox",state="failed",code="CONNECTOR_REJECTED"}"#, 1),
        (r#"concluded_total{connector="mute",state="unknown",code="OUTCOME_UNKNOWN"}"#, 1),
        (r#"concluded_total{connector="asked",state="created",code=""}"#, 1),
        (r#"connector_calls_total{connector="sandbox",kind="create",outcome="created"}"#, 1),
        (r#"connector_calls_total{connector="sandbox",kind="create",outcome="declined"}"#, 1),
        (r#"connector_calls_total{connector="mute",kind="create",outcome="unknown"}"#, 1),
        (r#"connector_calls_total{connector="asked",kind="create",outcome="unknown"}"#, 1),
        (r#"connector_calls_total{connector="asked",kind="look_up",outcome="found"}"#, 1),
        (r#"results_total{outcome="published"}"#, 8),
        (r#"webhooks_total{outcome="failed"}"#, 1),
        (r#"webhooks_total{outcome="delivered"}"#, 1),
    ];
    let counted: BTreeMap<&str, u32> = measured
        .iter()
        .filter_map(|(series, value)| Some((series.strip_prefix("payout_links_")?, value)))
        .filter(|(series, value)| series.contains("_total") && *value != "0")
        .map(|(series, value)| (series, value.parse().unwrap()))
        .collect();
    assert_eq!(counted, BTreeMap::from(expected));
    let at = |series: &str| measured[&format!("payout_links_{series}")].as_str();
    let durations = "connector_call_duration_seconds";
    assert_eq!(at(&format!(r#"{durations}_count{{connector="sandbox",kind="create"}}"#)), "2");
    assert_eq!(at(&format!(r#"{durations}_bucket{{le="+Inf",connector="asked",kind="look_up"}}"#)), "1");
    assert_eq!((at("consuming"), at("publishing")), ("1", "1"));
    assert_eq!(at(&format!(r#"build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"))), "1");
    // No value of a job is a label, or there would be as many series as jobs.
    assert!(!measured.keys().any(|series| series.contains("nowhere")), "{measured:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_is_seen_to_open_to_try_and_to_close() {
    // Given an account whose provider fails twice, where each failure ends its job without a retry,
    let broken = Sandbox::start(Settings::new(TOKEN)).await.unwrap();
    let account = r#"
        replay = "never"
        settle_seconds = 30
        calls = { timeout_seconds = 20, breaker_failures = 2, breaker_pause_seconds = 1 }
    "#;
    let long = ["worker.lease_seconds", "connectors.sandbox.settle_seconds"];
    let settings = long.iter().fold(Setup::default(), |settings, setting| settings.set(setting, 30));
    let env = settings.only_connector("sandbox").broken_account(&broken, account).build().await;
    let worker = env.start_worker().await;
    let seen = async |shown: &str, level: &str| {
        let series = r#"payout_links_connector_breaker_state{connector="broken"}"#;
        eventually(&format!("the breaker is {shown}"), async || {
            let is_reported = worker.readiness().await.1["connectors"]["broken"] == shown;
            (is_reported && worker.series().await[series] == level).then_some(())
        })
        .await;
    };
    seen("closed", "0").await;
    broken.inject_fault(FaultRule::new(Fault::status(500)).times(2));
    for id in ["fails_1", "fails_2"] {
        env.publish(job(id).connector("broken")).await;
        assert_eq!(env.result_of(id).await.kind(), "payout_link.pending");
    }
    // then the breaker is seen open until a call can test it,
    seen("open", "2").await;
    worker.says(r#""breaker":"open""#).await;
    // half-open while that call is under way,
    let held = broken.hold_next_call();
    env.publish(job("tries").connector("broken")).await;
    held.arrived().await;
    seen("half-open", "1").await;
    worker.says(r#""breaker":"half-open""#).await;
    let taken = &worker.series().await[r#"payout_links_connector_permits_taken{connector="broken"}"#];
    assert_eq!(taken, "1");
    // and closed after its success; the other breakers never changed.
    held.release();
    assert_eq!(env.result_of("tries").await.kind(), "payout_link.created");
    seen("closed", "0").await;
    worker.says(r#""breaker":"closed""#).await;
    assert_eq!(worker.series().await[r#"payout_links_connector_breaker_state{connector="sandbox"}"#], "0");
}

/// Checks that the documented metrics and the served ones are the same, because dashboards follow the documentation.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_one_is_there() {
    // Given a connector whose name has every character that a label must escape,
    let account = format!(
        r#"
            [connectors.'odd "\ name']
            kind = "sandbox"
            url = "http://127.0.0.1:1"
            token = "{TOKEN}"
            calls = {{ timeout_seconds = 2 }}
        "#
    );
    let env = Setup::default().connector(&account).build().await;
    let worker = env.start_worker().await;
    let answer = reqwest::get(format!("{}/metrics", worker.health_url().await)).await.unwrap();
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.headers()["content-type"], format);
    let text = answer.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains(r#"breaker_state{connector="odd \"\\ name"} 0"#), "{text}");
    // then the served metrics are those of the table.
    let served: BTreeSet<(String, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| match kind {
            "counter" => (format!("{name}_total"), kind.to_owned()),
            "info" => (format!("{name}_info"), "gauge".to_owned()),
            _ => (name.to_owned(), kind.to_owned()),
        })
        .collect();
    let documented: BTreeSet<(String, String)> = include_str!("../../docs/reference/metrics-and-logs.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `payout_links_"))
        .map(|row| row.split('|').map(str::trim).collect::<Vec<_>>())
        .map(|cells| (format!("payout_links_{}", cells[0].trim_end_matches('`')), cells[1].to_owned()))
        .collect();
    assert_eq!(served, documented);
}
