//! Describes an account at each real provider: its simulator, its section in a worker's configuration, and a job.

use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use payout_link_worker::domain::{Currency, Money, idempotency_uuid};
use provider_simulators::providers::{
    ACCESS_TOKEN_LIFETIME, ACCOUNTS, HyperswitchSettings, Link, Provider, RazorpayXSettings, RevolutClient,
    RevolutSettings, XenditSettings,
};
use serde_json::{Value, json};

/// An account of a provider simulator, with the configuration that a worker has for it.
pub struct Account {
    /// The connector kind.
    pub kind: &'static str,
    /// Builds the settings of its simulator, which knows the secret.
    pub provider: fn() -> Provider,
    /// Part of the credential, with "canary" in it.
    pub secret: &'static str,
    /// Writes the settings of `[connectors.NAME]` besides `kind`, `url` and `calls`, with this settle time if it has
    /// one.
    pub settings: fn(settle_seconds: u32) -> String,
    /// Builds a job with all required fields.
    pub job: fn() -> Value,
    /// Converts an amount to the digits that the provider is sent, or `None` if it cannot be sent.
    pub amount: fn(Money) -> Option<String>,
    /// Converts a record's idempotency key to the provider's reference of the link.
    pub reference: fn(&str) -> String,
}

impl Account {
    /// Writes `[connectors.NAME]` of a worker's configuration.
    pub fn section(&self, name: &str, url: &str, calls: &str, settle_seconds: u32) -> String {
        let (kind, settings) = (self.kind, (self.settings)(settle_seconds));
        format!(
            "[connectors.{name}]\nkind = \"{kind}\"\naccount = \"test\"\nurl = \"{url}\"\ncalls = {{ {calls} }}\n{settings}\n"
        )
    }
}

impl Account {
    /// Returns the amount of the job.
    pub fn money(&self) -> Money {
        let amount = &(self.job)()["amount"];
        let currency = Currency::new(amount["currency"].as_str().unwrap()).unwrap();
        Money::new(amount["minor_amount"].as_i64().unwrap(), currency).unwrap()
    }

    /// Says whether the link is of this amount.
    pub fn is_of(&self, link: &Link, money: Money) -> bool {
        (self.amount)(money).as_ref() == Some(&link.amount) && link.currency == money.currency.as_str()
    }
}

/// An account of Hyperswitch.
pub static HYPERSWITCH: Account = Account {
    kind: "hyperswitch",
    provider: || Provider::Hyperswitch(HyperswitchSettings::new("snd_canary")),
    secret: "snd_canary",
    settings: |settle_seconds| {
        format!(
            "api_key = \"snd_canary\"\nsettle_seconds = {settle_seconds}\ndefaults = {{ session_expiry = 3600 }}"
        )
    },
    job: || {
        json!({
            "address": { "billing_address": { "first_name": "Ada", "last_name": "Example", "line1": "1 Main Street",
                "zip_code": "10115", "city": "Berlin", "country_alpha2_code": "DE", "phone_number": "30123456" } },
            "amount": { "minor_amount": 1250, "currency": "EUR" },
            "destination_currency": "EUR",
            "customer": { "id": "cus_1", "name": "Ada Example", "email": "ada@example.com",
                "phone_number": "30123456", "phone_country_code": "+49" },
            "priority": "CROSS_BORDER",
            "description": "Your refund",
            "browser_info": { "color_depth": 24, "ip_address": "192.0.2.1", "language": "de" },
        })
    },
    amount: |money| Some(money.minor_units().to_string()),
    reference: |key| idempotency_uuid(key).hyphenated().to_string(),
};

static REVOLUT_KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).unwrap());

/// Returns the data that Revolut knows of the client of [`REVOLUT`].
pub fn revolut_client() -> RevolutClient {
    RevolutClient {
        client_id: "client-1".into(),
        issuer: "merchant.example".into(),
        refresh_token: "canary-refresh".into(),
        public_key: REVOLUT_KEY.public_key().as_ref().to_vec(),
        access_token_lifetime: ACCESS_TOKEN_LIFETIME,
        access_token: Some("canary-access".into()),
    }
}

/// An account of Revolut.
pub static REVOLUT: Account = Account {
    kind: "revolut",
    provider: || {
        Provider::Revolut(RevolutSettings { at_once: true, ..RevolutSettings::new(revolut_client()) })
    },
    secret: "canary-refresh",
    settings: |settle_seconds| {
        let key: Pkcs8V1Der<'_> = REVOLUT_KEY.as_der().unwrap();
        format!(
            "client_id = \"client-1\"\nissuer = \"merchant.example\"\nsettle_seconds = {settle_seconds}\n\
             private_key = \"\"\"\n-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n\"\"\"\n\
             refresh_token = \"canary-refresh\"\naccounts = {{ GBP = \"{}\" }}",
            BASE64_STANDARD.encode(key.as_ref()),
            ACCOUNTS[0].0
        )
    },
    job: || {
        json!({
            "address": {},
            "amount": { "minor_amount": 2599, "currency": "GBP" },
            "destination_currency": "GBP",
            "customer": { "name": "Ada Example" },
            "description": "Your refund",
        })
    },
    amount: |money| {
        let fits = money.currency.as_str() == "GBP" && (100..=250_000).contains(&money.minor_units());
        fits.then(|| money.major_units())
    },
    reference: str::to_owned,
};

/// An account of RazorpayX.
pub static RAZORPAYX: Account = Account {
    kind: "razorpayx",
    provider: || Provider::RazorpayX(RazorpayXSettings::new("rzp_live_1", "canary-secret")),
    secret: "canary-secret",
    settings: |settle_seconds| {
        format!(
            "key_id = \"rzp_live_1\"\nkey_secret = \"canary-secret\"\naccount_number = \"7878780080316316\"\n\
         purpose = \"refund\"\ndescription = \"Your refund\"\nsettle_seconds = {settle_seconds}\n\
         defaults = {{ lifetime_seconds = 3600 }}"
        )
    },
    job: || {
        json!({
            "address": {},
            "amount": { "minor_amount": 259_900, "currency": "INR" },
            "destination_currency": "INR",
            "customer": { "name": "Asha Example", "phone_number": "9000012345", "phone_country_code": "+91" },
        })
    },
    amount: |money| {
        let fits = money.currency.as_str() == "INR" && money.minor_units() >= 100;
        fits.then(|| money.minor_units().to_string())
    },
    reference: str::to_owned,
};

/// An account of Xendit.
pub static XENDIT: Account = Account {
    kind: "xendit",
    provider: || Provider::Xendit(XenditSettings::new("xnd_canary")),
    secret: "xnd_canary",
    settings: |_| "api_key = \"xnd_canary\"".into(),
    job: || {
        json!({
            "address": {},
            "amount": { "minor_amount": 2_300_000, "currency": "IDR" },
            "destination_currency": "IDR",
            "customer": { "name": "Budi Contoh", "email": "budi@example.com" },
        })
    },
    amount: |money| {
        let is_whole = money.currency.as_str() == "IDR" && money.minor_units() % 100 == 0;
        is_whole.then(|| (money.minor_units() / 100).to_string())
    },
    reference: str::to_owned,
};
