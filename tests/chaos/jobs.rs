//! Derives the stream of jobs from the seed: duplicates, conflicts, invalid jobs, every replay rule, and every
//! outcome of a connector.

use history_checker::{Published, Rule, key};
use serde_json::{Value, json};

use crate::{
    connectors::{CONNECTORS, Connector, ROAMING},
    random::Random,
    saturation::{FULL_REPLIES, Variant},
};

/// Marks every secret of a job. It is in nothing else.
pub const CANARY: &str = "canary-of-";
const PRIORITIES: [Option<&str>; 4] = [None, None, Some("INSTANT"), Some("REGULAR")];
pub const REPLIES: &str = "chaos.replies";

/// A message to publish, and what the history checker has to know of it.
#[derive(Clone)]
pub struct Message {
    pub known: Published,
    pub merchant_id: &'static str,
    pub connector: &'static str,
    pub reply_to: Option<&'static str>,
    pub body: Vec<u8>,
    /// Seconds after the case's first message.
    pub after: u64,
    /// Is published only after a result of its key was received, so it needs a reply of its own.
    pub after_conclusion: bool,
}

/// Builds the messages of the `number`th case.
pub fn case(seed: u64, number: u64, webhook_urls: &[String], variant: Option<Variant>) -> Vec<Message> {
    let mut random = Random::new(seed, number.wrapping_add(1) << 8);
    let id = format!("po-{seed}-{number}");
    let connector = match variant {
        Some(variant) => variant.connector(&mut random),
        None => &CONNECTORS[[0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6][random.index(14)]],
    };
    let priority = variant.is_some().then(|| random.pick(&PRIORITIES)).flatten();
    let job = Job {
        priority,
        merchant_id: if random.percent(20) { "m_1" } else { "" },
        connector,
        amount: amount(&mut random, connector),
        webhook_url: random.percent(60).then(|| random.pick_of(webhook_urls)),
        wants_reply: random.percent(20),
        // A connector that needs look-ups gets no wrong token: its look-ups would fail too, and the outcome would
        // stay unknown for a day.
        wrong_token: random.percent(1) && connector.rule != Rule::LookUp && connector.account.is_none(),
        id,
    };
    if variant.is_some() {
        return saturated_case(job, &mut random);
    }
    let first = job.message("one", 0);
    match random.between(0, 100) {
        // The same request comes twice at once, or again long after its conclusion.
        0..6 => vec![first, job.message("two", 0)],
        6..11 => vec![first, job.message("again", random.between(5, 40))],
        // Another request comes under the same key, at once or later.
        11..13 => vec![first, job.conflicting().message("rival", 0)],
        13..15 => vec![first, job.conflicting().message("other", random.between(5, 40))],
        15..18 => vec![job.invalid(&mut random)],
        _ => vec![first],
    }
}

/// Builds the messages of a case for the saturated mode. Some jobs name the full reply queue. Later duplicates wait
/// for the result, because behind a backlog they would come before it.
fn saturated_case(mut job: Job, random: &mut Random) -> Vec<Message> {
    // Nobody reads this queue, so the checker expects no replies to this job.
    let is_full = random.percent(8);
    job.wants_reply &= !is_full;
    let mut first = job.message("one", 0);
    first.reply_to = if is_full { Some(FULL_REPLIES) } else { first.reply_to };
    let again = || Message { after_conclusion: true, ..job.message("again", 0) };
    let is_roaming = job.connector.name == ROAMING.name;
    match random.between(0, 100) {
        // While its section is renamed, new jobs are rejected. So an immediate duplicate may get another result than
        // the first message.
        0..11 if is_roaming => vec![first, again()],
        0..15 if is_roaming => vec![first],
        0..6 => vec![first, job.message("two", 0)],
        6..11 => vec![first, again()],
        11..13 => vec![first, job.conflicting().message("rival", 0)],
        13..15 => vec![first, job.conflicting().message("other", random.between(5, 40))],
        15..18 => vec![job.invalid(random)],
        18..24 => {
            let mut invalid = job.invalid(random);
            (invalid.reply_to, invalid.known.wants_reply) = (Some(FULL_REPLIES), false);
            vec![invalid]
        }
        _ => vec![first],
    }
}

/// Builds a plain job whose result shows that the system works again.
pub fn probe(seed: u64, number: u64, connector: &'static Connector) -> Message {
    let id = format!("probe-{seed}-{number}");
    let job = Job {
        priority: None,
        merchant_id: "",
        connector,
        amount: connector.account.map_or(1250, |account| account.money().minor_units().unsigned_abs()),
        webhook_url: None,
        wants_reply: false,
        wrong_token: false,
        id,
    };
    job.message("one", 0)
}

/// Picks an amount: mostly an ordinary one, else one that makes the sandbox fail for this payout
/// (`sandbox::amounts`). No amount makes a call last longer than the settle time. A simulator gets an amount that it
/// accepts.
fn amount(random: &mut Random, connector: &Connector) -> u64 {
    const FAULTY: [u64; 16] = [
        42_200, 40_000, 50_301, 50_302, 50_001, 50_401, 42_901, 42_902, 40_901, 40_801, 61_101, 61_201,
        62_201, 64_201, 66_101, 66_401,
    ];
    if let Some(account) = connector.account {
        return account.money().minor_units().unsigned_abs();
    }
    if random.percent(12) { random.pick(&FAULTY) } else { random.between(100, 30_000) }
}

#[derive(Clone)]
pub struct Job {
    id: String,
    merchant_id: &'static str,
    connector: &'static Connector,
    amount: u64,
    webhook_url: Option<String>,
    wants_reply: bool,
    wrong_token: bool,
    priority: Option<&'static str>,
}

impl Job {
    fn conflicting(&self) -> Self {
        // 200 more is a whole number of rupiah, and no amount that the sandbox always declines, as 100 more than
        // 40000 would be (401).
        Self { amount: self.amount + 200, ..self.clone() }
    }

    fn message(&self, name: &str, after: u64) -> Message {
        let body = self.body();
        self.with_body(name, after, true, body.to_string().into_bytes())
    }

    fn body(&self) -> Value {
        let secret = |what: &str| format!("{CANARY}{what}-{}", self.id);
        let mut body = self.connector.account.map_or_else(|| self.plain(secret), |account| (account.job)());
        body["merchant_payout_id"] = json!(self.id);
        body["amount"]["minor_amount"] = json!(self.amount);
        if let Some(url) = &self.webhook_url {
            body["webhook_url"] = json!(url);
        }
        if let Some(priority) = self.priority.filter(|_| self.connector.account.is_none()) {
            body["priority"] = json!(priority);
        }
        if self.wrong_token {
            body["access_token"] = json!(secret("access"));
        }
        body
    }

    fn plain(&self, secret: impl Fn(&str) -> String) -> Value {
        json!({
            "address": { "billing_address": { "line1": secret("street"), "city": secret("city") } },
            "amount": { "minor_amount": self.amount, "currency": "EUR" },
            "destination_currency": "EUR",
            "customer": { "name": "Ada Example", "email": format!("{}@example.com", secret("mail")) },
            "payout_method_data": { "passthrough": { "psp_token": secret("token"), "token_type": "sepa" } },
        })
    }

    /// Builds a message that is larger than the worker accepts: 256 KiB.
    pub fn oversized(seed: u64, number: u64) -> Message {
        let id = format!("large-{seed}-{number}");
        let job = Self {
            priority: None,
            merchant_id: "",
            connector: &CONNECTORS[0],
            amount: 1250,
            webhook_url: None,
            wants_reply: false,
            wrong_token: false,
            id,
        };
        job.with_body("oversized", 0, false, vec![b' '; 300 * 1024])
    }

    fn invalid(&self, random: &mut Random) -> Message {
        let mut body = self.body();
        let whole = |body: &Value| body.to_string().into_bytes();
        let bytes = match random.index(5) {
            0 => b"{\"merchant_payout_id\": \"canary-of-not-json".to_vec(),
            1 => {
                body["amount"]["minor_amount"] = json!(-5);
                whole(&body)
            }
            2 => {
                body["amount"]["currency"] = json!("XXQ");
                whole(&body)
            }
            3 => {
                body["surprise"] = json!(1);
                whole(&body)
            }
            _ => b"[]".to_vec(),
        };
        self.with_body("invalid", 0, false, bytes)
    }

    fn with_body(&self, name: &str, after: u64, is_valid: bool, body: Vec<u8>) -> Message {
        let currency = self.connector.account.map_or("EUR", |account| account.money().currency.as_str());
        let amount = format!("{} {currency}", self.amount);
        Message {
            known: Published {
                message_id: format!("{}-{name}", self.id),
                key: key(self.merchant_id, &self.id),
                fingerprint: amount.clone(),
                amount,
                is_valid,
                rule: self.connector.rule,
                wants_webhook: self.webhook_url.is_some(),
                wants_reply: self.wants_reply,
                came_late: false,
            },
            merchant_id: self.merchant_id,
            connector: self.connector.name,
            reply_to: self.wants_reply.then_some(REPLIES),
            body,
            after,
            after_conclusion: false,
        }
    }
}

impl Random {
    fn pick_of(&mut self, of: &[String]) -> String {
        of[self.index(of.len())].clone()
    }
}
