//! Lists the scenarios.

use std::time::Duration;

pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub jobs: usize,
    /// Jobs a second. Without it, all jobs are published before the worker starts.
    pub rate: Option<u32>,
    /// The time that the connector takes for a call.
    pub latency: Duration,
    pub workers: usize,
    pub merchants: Merchants,
    /// Of a hundred jobs, this many get a 503 for their first call.
    pub errors_in_100: usize,
    pub before: Before,
    /// Settings of the worker that differ from their defaults.
    pub settings: &'static [(&'static str, &'static str)],
    /// The scenario whose figures these are divided by.
    pub against: Option<&'static str>,
    /// Runs only if it is named.
    pub is_long: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Merchants {
    Prompt,
    /// Of a hundred webhooks, five go to one of twenty hosts that take a second.
    SomeSlow,
    /// Of a hundred webhooks, one goes to a host that never answers. The run does not wait for it.
    OneHangs,
}

/// The content of the database when the worker starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Nothing,
    /// As many concluded records as `--history` says.
    History,
    /// A hundred thousand webhooks whose next attempt is an hour away.
    WaitingWebhooks,
    /// As many accepted jobs of another merchant as `--beside` says: more than the connector accepts in the whole
    /// run.
    AnotherMerchant,
}

const BACKLOG: Scenario = Scenario {
    name: "backlog",
    about: "20,000 jobs wait, the connector answers at once",
    jobs: 20_000,
    rate: None,
    latency: Duration::ZERO,
    workers: 1,
    merchants: Merchants::Prompt,
    errors_in_100: 0,
    before: Before::Nothing,
    settings: &[],
    against: None,
    is_long: false,
};

const BACKLOG_50: Scenario = Scenario {
    name: "backlog-50ms",
    about: "the connector takes 50 ms",
    latency: Duration::from_millis(50),
    ..BACKLOG
};

const PACED: Scenario = Scenario {
    name: "paced",
    about: "200 jobs a second for 20 s, the connector answers at once: latencies",
    jobs: 4_000,
    rate: Some(200),
    ..BACKLOG
};

/// Publishes a hundred jobs after the warm-up, to a connector that other jobs would fill.
const FAIR_ALONE: Scenario = Scenario {
    name: "fair-alone",
    about: "20 jobs a second of one merchant, the connector takes 50 ms, 64 calls at once",
    jobs: 140,
    rate: Some(20),
    settings: &[("CONNECTORS__SANDBOX__CALLS__CONCURRENCY", "64")],
    is_long: true,
    ..BACKLOG_50
};

pub const SCENARIOS: &[Scenario] = &[
    BACKLOG,
    BACKLOG_50,
    Scenario {
        name: "two-workers",
        about: "two workers, the connector takes 50 ms",
        workers: 2,
        against: Some("backlog-50ms"),
        ..BACKLOG_50
    },
    Scenario {
        name: "slow-connector",
        about: "the connector takes 2 s, 4,000 calls at once",
        latency: Duration::from_secs(2),
        settings: &[("WORKER__JOBS_IN_FLIGHT", "4096"), ("CONNECTORS__SANDBOX__CALLS__CONCURRENCY", "4000")],
        ..BACKLOG
    },
    Scenario {
        name: "errors",
        about: "5 % of first calls answered 503, 5 % of webhooks take a second",
        merchants: Merchants::SomeSlow,
        errors_in_100: 5,
        against: Some("backlog"),
        ..BACKLOG
    },
    Scenario {
        name: "waiting-webhooks",
        about: "a backlog beside 100,000 webhooks that wait for a retry",
        before: Before::WaitingWebhooks,
        against: Some("backlog"),
        ..BACKLOG
    },
    Scenario {
        name: "history",
        about: "a backlog beside --history concluded records",
        before: Before::History,
        against: Some("backlog"),
        ..BACKLOG
    },
    PACED,
    Scenario {
        name: "paced-hanging",
        about: "paced, 1 % of webhooks to a host that never answers; the others' latencies",
        merchants: Merchants::OneHangs,
        against: Some("paced"),
        ..PACED
    },
    Scenario {
        name: "paced-waiting",
        about: "paced, beside 100,000 webhooks that wait for a retry",
        before: Before::WaitingWebhooks,
        against: Some("paced"),
        ..PACED
    },
    Scenario {
        name: "long",
        about: "500,000 jobs wait: memory (some minutes)",
        jobs: 500_000,
        against: Some("backlog"),
        is_long: true,
        ..BACKLOG
    },
    FAIR_ALONE,
    Scenario {
        name: "fair",
        about: "the same beside --beside jobs of another merchant (some minutes)",
        before: Before::AnotherMerchant,
        against: Some("fair-alone"),
        ..FAIR_ALONE
    },
    Scenario { name: "idle", about: "nothing to do for 30 s: CPU", jobs: 0, is_long: true, ..BACKLOG },
];
