//! Lists the connectors of the workers' configuration, and starts a sandbox or a provider simulator for each.

use history_checker::{Link, Published, Rule};
use payout_link_worker::domain::{Currency, Money, idempotency_key};
use provider_simulators::{
    providers::{self, ProviderSimulator},
    sandbox::{FaultRule, Idempotency, Operation, Sandbox},
};

use crate::{
    accounts::{self, Account},
    announcements::SECRET,
};

/// `calls` of a connector without limits.
pub const CALLS: &str = "timeout_seconds = 3, connect_timeout_seconds = 2";

pub struct Connector {
    pub name: &'static str,
    pub rule: Rule,
    /// The account at a provider simulator. Without one, the provider is a sandbox.
    pub account: Option<&'static Account>,
}

/// The connectors for which faults are planned.
pub static CONNECTORS: [Connector; 7] = [
    Connector { name: "keyed", rule: Rule::SameKey, account: None },
    Connector { name: "asked", rule: Rule::LookUp, account: None },
    Connector { name: "mute", rule: Rule::Never, account: None },
    // These providers offer a look-up, whatever they do with a repeated call.
    Connector { name: "hyperswitch", rule: Rule::LookUp, account: Some(&accounts::HYPERSWITCH) },
    Connector { name: "revolut", rule: Rule::LookUp, account: Some(&accounts::REVOLUT) },
    Connector { name: "razorpayx", rule: Rule::LookUp, account: Some(&accounts::RAZORPAYX) },
    // This provider rejects a repeated call and does not return the link.
    Connector { name: "xendit", rule: Rule::SameKey, account: Some(&accounts::XENDIT) },
];

/// A connector without planned faults. Its probes show how the rest of the system works.
pub static STEADY: Connector = Connector { name: "steady", rule: Rule::SameKey, account: None };

/// A connector whose section is renamed while records are open. No other fault is planned for it.
pub static ROAMING: Connector = Connector { name: "roaming", rule: Rule::SameKey, account: None };
/// `follow` of a sandbox's connector. The maximum interval leaves enough CPU to the rest of the run.
const FOLLOW: &str = "min_interval_seconds = 1\nmax_interval_seconds = 20";

/// The other name of the `roaming` connector.
pub const RENAMED: &str = "renamed";

const TOKEN: &str = "canary-of-the-connector";
/// The base URL of all links. A link may be in a result, but not in a log, and only encrypted in the database.
pub const LINKS: &str = "https://links.chaos.example";

impl Connector {
    pub fn variable(&self) -> String {
        format!("PAYOUT_LINK__CONNECTORS__{}__URL", self.name.to_uppercase())
    }

    /// Writes `[connectors.NAME]`, and for a sandbox `[connectors.NAME.follow]`.
    pub fn section_with_recipients(&self, url: &str, calls: &str) -> String {
        let section = self.section(url, calls);
        match self.account {
            Some(_) => section,
            None => format!(
                "{section}[connectors.{}.follow]\n{FOLLOW}\nwebhook_secrets = [\"{SECRET}\"]\n",
                self.name
            ),
        }
    }

    /// Writes `[connectors.NAME]`.
    pub fn section(&self, url: &str, calls: &str) -> String {
        if let Some(account) = self.account {
            // The settle time is longer than any pause of a worker.
            return account.section(self.name, url, calls, 25);
        }
        let replay = match self.rule {
            Rule::SameKey => "same-key",
            Rule::LookUp => "look-up",
            Rule::Never => "never",
        };
        format!(
            "[connectors.{}]\nkind = \"sandbox\"\naccount = \"chaos\"\nurl = \"{url}\"\ntoken = \"{TOKEN}\"\nreplay = \"{replay}\"\n\
             settle_seconds = 25\ncalls = {{ {calls} }}\n",
            self.name
        )
    }
}

pub enum Provider {
    Sandbox(Sandbox),
    ProviderSimulator(&'static Account, ProviderSimulator),
}

impl Provider {
    pub async fn start(connector: &Connector) -> Result<Self, String> {
        if let Some(account) = connector.account {
            let mut settings = providers::Settings::new((account.provider)());
            LINKS.clone_into(&mut settings.links_url);
            let simulator = ProviderSimulator::start(settings).await.map_err(|error| error.to_string())?;
            return Ok(Self::ProviderSimulator(account, simulator));
        }
        let mut settings = provider_simulators::sandbox::Settings::new(TOKEN);
        settings.public_url = Some(LINKS.to_owned());
        // If the provider ignores keys, every repeated call makes a second link.
        let keys_count = connector.rule == Rule::SameKey;
        settings.idempotency = if keys_count { Idempotency::On } else { Idempotency::Off };
        Sandbox::start(settings).await.map(Self::Sandbox).map_err(|error| error.to_string())
    }

    pub fn url(&self) -> &str {
        match self {
            Self::Sandbox(sandbox) => sandbox.url(),
            Self::ProviderSimulator(_, simulator) => simulator.url(),
        }
    }

    pub fn inject_fault(&self, rule: FaultRule) {
        match self {
            Self::Sandbox(sandbox) => sandbox.inject_fault(rule),
            Self::ProviderSimulator(_, simulator) => simulator.inject_fault(rule),
        }
    }

    pub fn clear_faults(&self) {
        match self {
            Self::Sandbox(sandbox) => sandbox.clear_faults(),
            Self::ProviderSimulator(_, simulator) => simulator.clear_faults(),
        }
    }

    /// Counts the calls that the provider recognized as repeated, if its ledger says so.
    pub fn repeats(&self) -> u64 {
        match self {
            Self::Sandbox(sandbox) => {
                sandbox.ledger().calls.iter().filter(|call| call.replayed).count() as u64
            }
            Self::ProviderSimulator(..) => 0,
        }
    }

    /// Lists the payout references of the create calls that arrived, answered or not.
    pub fn references(&self) -> Vec<String> {
        match self {
            Self::Sandbox(sandbox) => {
                let calls = sandbox.ledger().calls;
                let creates = calls.into_iter().filter(|call| call.operation == Operation::Create);
                creates.filter_map(|call| call.idempotency_key).collect()
            }
            Self::ProviderSimulator(_, simulator) => {
                simulator.ledger().references_seen().into_iter().map(str::to_owned).collect()
            }
        }
    }

    /// Lists every link that the provider made. `of` returns the jobs of an idempotency key.
    pub fn links<'a>(&self, of: impl Fn(&str) -> Option<Vec<&'a Published>>) -> Vec<Link> {
        let key = |jobs: &Option<Vec<&Published>>, reference: &str| {
            jobs.as_ref().map_or_else(|| reference.to_owned(), |jobs| jobs[0].key.clone())
        };
        match self {
            Self::Sandbox(sandbox) => {
                let links = sandbox.ledger().links.into_iter().map(|link| Link {
                    key: key(&of(&link.request.reference), &link.request.reference),
                    amount: format!("{} {}", link.request.amount.minor_amount, link.request.amount.currency),
                    history: Some(
                        link.history().iter().map(|change| change.status.name().to_owned()).collect(),
                    ),
                    id: link.id,
                    url: Some(link.url),
                });
                links.collect()
            }
            Self::ProviderSimulator(account, simulator) => {
                let links = simulator.ledger().links.into_iter().map(|link| {
                    let jobs = of(&link.reference);
                    let asked = jobs.iter().flatten().find(|job| account.is_of(&link, money(&job.amount)));
                    Link {
                        key: key(&jobs, &link.reference),
                        amount: asked.map_or_else(|| link.amount.clone(), |job| job.amount.clone()),
                        history: None,
                        id: link.id,
                        url: Some(link.url),
                    }
                });
                links.collect()
            }
        }
    }
}

/// Reads an amount such as `1250 EUR`.
fn money(text: &str) -> Money {
    let (minor_amount, currency) = text.split_once(' ').unwrap();
    Money::new(minor_amount.parse().unwrap(), Currency::new(currency).unwrap()).unwrap()
}

/// Lists every reference that a connector may use for the link of a record.
pub fn references(merchant_id: &str, id: &str) -> impl Iterator<Item = String> {
    let key = idempotency_key(merchant_id, id);
    let theirs = CONNECTORS.iter().filter_map(|connector| connector.account);
    let theirs: Vec<String> = theirs.map(|account| (account.reference)(&key)).collect();
    theirs.into_iter().chain([key])
}
