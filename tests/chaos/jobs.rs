//! The stream of jobs, from the seed alone: repeats, conflicts, broken ones, every replay rule, every way a
//! connector can answer.

use payout_link_worker::audit::{Published, Rule, key};
use serde_json::{Value, json};

use crate::random::Random;

/// Stands in every secret of a job, and in nothing else.
pub const CANARY: &str = "canary-of-";
pub const REPLIES: &str = "chaos.replies";

/// A connector of the workers' configuration.
pub const CONNECTORS: [(&str, Rule); 3] =
    [("keyed", Rule::SameKey), ("asked", Rule::LookUp), ("mute", Rule::Never)];

/// A connector that no fault is planned for: what is asked of it tells how the rest fares.
pub const STEADY: &str = "steady";

/// A message to publish, and what is known of it.
#[derive(Clone)]
pub struct Message {
    pub known: Published,
    pub merchant_id: &'static str,
    pub connector: &'static str,
    pub reply_to: Option<&'static str>,
    pub body: Vec<u8>,
    /// Seconds after the case's own time.
    pub after: u64,
}

/// The messages of the `number`th case.
pub fn case(seed: u64, number: u64, webhook_urls: &[String]) -> Vec<Message> {
    let mut random = Random::new(seed, number.wrapping_add(1) << 8);
    let id = format!("po-{seed}-{number}");
    let (connector, rule) = CONNECTORS[[0, 0, 0, 0, 0, 1, 1, 1, 2, 2][random.index(10)]];
    let job = Job {
        merchant_id: if random.percent(20) { "m_1" } else { "" },
        connector,
        rule,
        amount: amount(&mut random),
        webhook_url: random.percent(60).then(|| random.pick_of(webhook_urls)),
        wants_reply: random.percent(20),
        wrong_token: random.percent(1),
        id,
    };
    let first = job.message("one", 0);
    match random.between(0, 100) {
        // The same request twice at once, or once more when the first has long been concluded.
        0..6 => vec![first, job.message("two", 0)],
        6..11 => vec![first, job.message("again", random.between(5, 40))],
        // Another request under the key, at once or later.
        11..13 => vec![first, job.rival().message("rival", 0)],
        13..15 => vec![first, job.rival().message("other", random.between(5, 40))],
        15..18 => vec![job.broken(&mut random)],
        _ => vec![first],
    }
}

/// A plain job that tells when something works again.
pub fn probe(seed: u64, number: u64, connector: &'static str, rule: Rule) -> Message {
    let id = format!("probe-{seed}-{number}");
    let job = Job {
        merchant_id: "",
        connector,
        rule,
        amount: 1250,
        webhook_url: None,
        wants_reply: false,
        wrong_token: false,
        id,
    };
    job.message("one", 0)
}

/// Mostly ordinary; else one that makes the sandbox fail for this payout alone (`sandbox::amounts`). None of those
/// that leave a call with the provider for longer than the settle time.
fn amount(random: &mut Random) -> u64 {
    const TROUBLE: [u64; 16] = [
        42_200, 40_000, 50_301, 50_302, 50_001, 50_401, 42_901, 42_902, 40_901, 40_801, 61_101, 61_201,
        62_201, 64_201, 66_101, 66_401,
    ];
    if random.percent(12) { random.pick(&TROUBLE) } else { random.between(100, 30_000) }
}

#[derive(Clone)]
struct Job {
    id: String,
    merchant_id: &'static str,
    connector: &'static str,
    rule: Rule,
    amount: u64,
    webhook_url: Option<String>,
    wants_reply: bool,
    wrong_token: bool,
}

impl Job {
    fn rival(&self) -> Self {
        Self { amount: self.amount + 1, ..self.clone() }
    }

    fn message(&self, name: &str, after: u64) -> Message {
        let body = self.body();
        self.with_body(name, after, true, body.to_string().into_bytes())
    }

    fn body(&self) -> Value {
        let secret = |what: &str| format!("{CANARY}{what}-{}", self.id);
        let mut body = json!({
            "merchant_payout_id": self.id,
            "address": { "billing_address": { "line1": secret("street"), "city": secret("city") } },
            "amount": { "minor_amount": self.amount, "currency": "EUR" },
            "destination_currency": "EUR",
            "customer": { "name": "Ada Example", "email": format!("{}@example.com", secret("mail")) },
            "payout_method_data": { "passthrough": { "psp_token": secret("token"), "token_type": "sepa" } },
        });
        if let Some(url) = &self.webhook_url {
            body["webhook_url"] = json!(url);
        }
        if self.wrong_token {
            body["access_token"] = json!(secret("access"));
        }
        body
    }

    fn broken(&self, random: &mut Random) -> Message {
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
        self.with_body("broken", 0, false, bytes)
    }

    fn with_body(&self, name: &str, after: u64, is_valid: bool, body: Vec<u8>) -> Message {
        let amount = format!("{} EUR", self.amount);
        Message {
            known: Published {
                message_id: format!("{}-{name}", self.id),
                key: key(self.merchant_id, &self.id),
                fingerprint: amount.clone(),
                amount,
                is_valid,
                rule: self.rule,
                wants_webhook: self.webhook_url.is_some(),
                wants_reply: self.wants_reply,
                came_late: false,
            },
            merchant_id: self.merchant_id,
            connector: self.connector,
            reply_to: self.wants_reply.then_some(REPLIES),
            body,
            after,
        }
    }
}

impl Random {
    fn pick_of(&mut self, of: &[String]) -> String {
        of[self.index(of.len())].clone()
    }
}
