//! Describes a connector for the suite, and builds a connector with its simulator.

use payout_link_worker::{
    config,
    connectors::{AskedLink, Call, Connector, Connectors},
    contract::{self, DecodePolicy},
    domain::{
        CreateLink, CreatedLink, Finding, LinkAnswer, LinkStatus, Outcome, PayoutStatus, Rejection,
        TraceContext, idempotency_key,
    },
    limits::RateLimit,
};
use provider_simulators::providers::{Operation, ProviderSimulator, Settings};
use serde_json::Value;

use crate::accounts::Account;

pub struct Description {
    pub account: &'static Account,
    /// The credential as a job's `access_token`.
    pub access_token: &'static str,
    /// The provider's statuses, each with the outcome for the worker.
    pub statuses: &'static [(&'static str, Became)],
    /// The statuses of a link that is followed and was unclaimed before.
    pub follow: &'static [(&'static str, LinkStatus, PayoutStatus)],
    pub repeat: Repeat,
    /// The operation by which the provider finds a link by our reference, if there is one.
    pub asks: Option<Operation>,
    /// Statuses that, with a time to wait, say that the provider did nothing.
    pub try_later: &'static [u16],
    /// The lifetime of a link in seconds; `None` is unlimited.
    pub lifetime_seconds: Option<i64>,
    /// JSON pointers of the required fields of a job, each with the field that its rejection names.
    pub required: &'static [(&'static str, &'static str)],
    /// Rejected values: a JSON pointer, the value, the code, and the field.
    pub refused: &'static [(&'static str, &'static str, &'static str, &'static str)],
    /// Values of `connector_feature_data`, each with the key that is wrong, if one is.
    pub feature_data: &'static [(&'static str, Option<&'static str>)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    Link(PayoutStatus),
    Ended(PayoutStatus),
    /// There is no link yet.
    Underway,
}

/// The provider's answer to a repeated reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It says that the payout exists, and a look-up returns the link.
    AskedFor,
    /// It says that the payout exists, but returns no link.
    Unknown,
    /// It creates a second link, so the connector looks up before it repeats a call.
    SecondLink,
}

/// A connector and its simulator, without a worker.
pub struct Tested {
    pub simulator: ProviderSimulator,
    connectors: Connectors,
}

const EXAMPLE: &str = include_str!("../../config.example.toml");

impl Tested {
    pub async fn start(description: &Description) -> Self {
        Self::beside(description.simulator().await, description)
    }

    /// Builds the connector for another simulator than the description's.
    pub fn beside(simulator: ProviderSimulator, description: &Description) -> Self {
        let section = description.section(simulator.url());
        Self::from(simulator, &section)
    }

    /// Builds the connector with a credential that the simulator does not know.
    pub async fn with_a_wrong_secret(description: &Description) -> Self {
        let simulator = description.simulator().await;
        let section = description.section(simulator.url());
        Self::from(simulator, &section.replace(description.account.secret, "wrong-canary"))
    }

    /// Builds the connector with another server in place of the simulator.
    pub async fn calling(url: &str, description: &Description) -> Self {
        Self::from(description.simulator().await, &description.section(url))
    }

    fn from(simulator: ProviderSimulator, section: &str) -> Self {
        let file = std::env::temp_dir().join(format!("conformance-{}.toml", uuid::Uuid::new_v4()));
        // The lease is as short as that of the other tests' worker.
        let example = [
            ("lease_seconds = 45", "lease_seconds = 9"),
            ("\ntimeout_seconds = 30", "\ntimeout_seconds = 5"),
        ]
        .into_iter()
        .fold(EXAMPLE.to_owned(), |example, (from, to)| example.replace(from, to));
        std::fs::write(&file, format!("{example}\n{section}")).unwrap();
        let config = config::load(Some(&file), std::iter::empty());
        std::fs::remove_file(file).unwrap();
        Self { simulator, connectors: config.unwrap().connectors().unwrap() }
    }

    pub fn connector(&self) -> &dyn Connector {
        &*self.connectors.choose(Some("tested")).unwrap().connector
    }

    pub async fn create(&self, job: &CreateLink) -> Outcome {
        self.connector().create_link(call(job, &key(job), None)).await
    }

    /// Looks up a link by our reference, or by the connector's id.
    pub async fn find(&self, job: &CreateLink, connector_payout_id: Option<&str>) -> Finding {
        self.connector().find_link(call(job, &key(job), connector_payout_id)).await
    }

    /// Asks about one link.
    pub async fn ask(&self, link: &AskedLink) -> LinkAnswer {
        let answers = self.connector().ask_about(std::slice::from_ref(link), &RateLimit::new(None)).await;
        let [answer] = <[LinkAnswer; 1]>::try_from(answers).unwrap();
        answer
    }

    /// Creates a link, and returns the first question of the worker about it.
    pub async fn followed(&self, job: &CreateLink) -> AskedLink {
        let link = self.created(job).await;
        AskedLink {
            connector_payout_id: link.connector_payout_id,
            provider_payout_id: None,
            status: LinkStatus::Unclaimed,
            expires_at: link.expires_at,
            is_cancelled: false,
        }
    }

    /// Creates a link.
    pub async fn created(&self, job: &CreateLink) -> CreatedLink {
        match self.create(job).await {
            Outcome::Created(link) => link,
            other => panic!("{other:?}"),
        }
    }
}

fn key(job: &CreateLink) -> String {
    idempotency_key("", job.merchant_payout_id.as_str())
}

fn call<'a>(job: &'a CreateLink, key: &'a str, connector_payout_id: Option<&'a str>) -> Call<'a> {
    static TRACE: TraceContext = TraceContext { traceparent: None, tracestate: None };
    let now = time::OffsetDateTime::now_utc();
    let first_called_at = Some(now - time::Duration::MINUTE);
    Call { job, idempotency_key: key, connector_payout_id, first_called_at, now, trace: &TRACE }
}

/// Decodes a job's JSON as a worker does.
pub fn decoded(job: &Value) -> CreateLink {
    let policy = DecodePolicy::default();
    contract::create_link(job.to_string().as_bytes(), None, &policy).unwrap()
}

pub fn rejected(tested: &Tested, job: &Value) -> Option<Rejection> {
    tested.connector().supports(&decoded(job)).err()
}

impl Description {
    pub async fn simulator(&self) -> ProviderSimulator {
        ProviderSimulator::start(Settings::new((self.account.provider)())).await.unwrap()
    }

    /// Writes `[connectors.tested]` of a worker's configuration.
    pub fn section(&self, url: &str) -> String {
        let calls = "timeout_seconds = 5, concurrency = 2, max_response_bytes = 100000";
        self.account.section("tested", url, calls, 14)
    }

    pub fn job(&self, id: &str) -> CreateLink {
        decoded(&self.json(id))
    }

    pub fn json(&self, id: &str) -> Value {
        let mut job = (self.account.job)();
        job["merchant_payout_id"] = id.into();
        job
    }
}

/// Sets the value at a JSON pointer, or removes it. Missing parents are created.
pub fn put(job: &mut Value, pointer: &str, value: Option<Value>) {
    let mut at = job;
    let parts: Vec<&str> = pointer.trim_start_matches('/').split('/').collect();
    let (last, parents) = parts.split_last().unwrap();
    for parent in parents {
        at = &mut at[*parent];
    }
    match value {
        Some(value) => at[*last] = value,
        None => drop(at.as_object_mut().unwrap().remove(*last)),
    }
}
