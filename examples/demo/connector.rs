//! Five jobs for a real connector, at the simulator for its provider.

use anyhow::{Context, bail, ensure};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use provider_simulators::providers::{
    ACCESS_TOKEN_LIFETIME, ACCOUNTS, Fault, FaultRule, HyperswitchSettings, Provider, ProviderSimulator,
    RazorpayXSettings, RevolutClient, RevolutSettings, Settings, XenditSettings,
};
use serde_json::{Value, json};

use crate::{expect, shown, stage::Stage, stay_up, title};

/// The data that a demo of a connector kind needs.
struct Shown {
    kind: &'static str,
    provider: Provider,
    /// Of `[connectors.KIND]`, beside `kind` and `url`.
    settings: String,
    /// Of a job, beside its id.
    job: Value,
    /// Whether a lost answer can be resolved there. Otherwise the outcome is unknown.
    is_settled: bool,
}

fn all() -> anyhow::Result<Vec<Shown>> {
    Ok(vec![
        Shown {
            kind: "hyperswitch",
            provider: Provider::Hyperswitch(HyperswitchSettings::new("snd_demo")),
            settings: "api_key = \"snd_demo\"".into(),
            job: json!({
                "address": {},
                "amount": { "minor_amount": 1250, "currency": "EUR" },
                "destination_currency": "EUR",
                "customer": { "id": "cus_1", "name": "Ada Example", "email": "ada@example.com" },
            }),
            is_settled: true,
        },
        Shown {
            kind: "xendit",
            provider: Provider::Xendit(XenditSettings::new("xnd_demo")),
            settings: "api_key = \"xnd_demo\"".into(),
            job: json!({
                "address": {},
                "amount": { "minor_amount": 2_300_000, "currency": "IDR" },
                "destination_currency": "IDR",
                "customer": { "name": "Budi Contoh", "email": "budi@example.com" },
            }),
            is_settled: false,
        },
        Shown {
            kind: "razorpayx",
            provider: Provider::RazorpayX(RazorpayXSettings::new("rzp_demo", "demo")),
            settings: "key_id = \"rzp_demo\"\nkey_secret = \"demo\"\naccount_number = \"7878780080316316\"\n\
                       purpose = \"refund\"\ndescription = \"Your refund\""
                .into(),
            job: json!({
                "address": {},
                "amount": { "minor_amount": 259_900, "currency": "INR" },
                "destination_currency": "INR",
                "customer": { "name": "Asha Example", "email": "asha@example.com" },
            }),
            is_settled: true,
        },
        revolut()?,
    ])
}

/// With a key pair made for the occasion. A new link is not active before it was asked for once.
fn revolut() -> anyhow::Result<Shown> {
    let key = KeyPair::generate(KeySize::Rsa2048)?;
    let private_key: Pkcs8V1Der<'_> = key.as_der()?;
    let client = RevolutClient {
        client_id: "demo".into(),
        issuer: "merchant.example".into(),
        refresh_token: "oa_demo".into(),
        public_key: key.public_key().as_ref().to_vec(),
        access_token_lifetime: ACCESS_TOKEN_LIFETIME,
        access_token: None,
    };
    let settings = format!(
        "client_id = \"demo\"\nissuer = \"merchant.example\"\nrefresh_token = \"oa_demo\"\n\
         private_key = \"-----BEGIN PRIVATE KEY-----\\n{}\\n-----END PRIVATE KEY-----\"\n\
         accounts = {{ GBP = \"{}\" }}",
        BASE64_STANDARD.encode(private_key.as_ref()),
        ACCOUNTS[0].0,
    );
    Ok(Shown {
        kind: "revolut",
        provider: Provider::Revolut(RevolutSettings::new(client)),
        settings,
        job: json!({
            "address": {},
            "amount": { "minor_amount": 2599, "currency": "GBP" },
            "destination_currency": "GBP",
            "customer": { "name": "Ada Example" },
        }),
        is_settled: true,
    })
}

pub async fn demo(kind: &str, stay: bool) -> anyhow::Result<()> {
    let all = all()?;
    let kinds: Vec<String> = all.iter().map(|shown| shown.kind.to_owned()).collect();
    let Some(shown) = all.into_iter().find(|shown| shown.kind == kind) else {
        bail!("--connector {kind}: there are {}", kinds.join(", "));
    };
    let simulator = ProviderSimulator::start(Settings::new(shown.provider.clone())).await?;
    let section =
        format!("[connectors.{kind}]\nkind = \"{kind}\"\nurl = \"{}\"\n{}", simulator.url(), shown.settings);
    let show = Show { stage: Stage::build(kind, &section).await?, simulator, shown };
    println!("\n  worker     log in {}", show.stage.folder.join("worker.log").display());
    println!("  connector  {} (a simulator for {kind}: its links open nowhere)", show.simulator.url());
    println!("  merchant   {}\n", show.stage.merchant.url());

    show.plain_job().await.context("(a)")?;
    show.same_job_again().await.context("(b)")?;
    show.answer_is_lost().await.context("(c)")?;
    show.provider_refuses().await.context("(d)")?;
    show.job_is_not_for_it().await.context("(e)")?;

    println!("All five went as described.");
    if stay {
        stay_up(&show.stage, show.simulator.url(), &show.job("po_mine")).await?;
    }
    Ok(())
}

struct Show {
    stage: Stage,
    simulator: ProviderSimulator,
    shown: Shown,
}

impl Show {
    fn job(&self, id: &str) -> Value {
        let mut job = self.shown.job.clone();
        job["merchant_payout_id"] = id.into();
        job
    }

    async fn plain_job(&self) -> anyhow::Result<()> {
        title("(a) a plain job");
        let mut job = self.job("po_1001");
        job["webhook_url"] = self.stage.merchant.url().into();
        self.stage.publish(&job, None, "a").await?;
        let result = self.stage.result("a").await?;
        ensure!(result["error"].is_null(), "{}", result["error"]);
        shown("result", &result);
        let webhook = self.stage.webhook("po_1001").await?;
        ensure!(webhook.verified, "the webhook's signature does not verify: {:?}", webhook.problem);
        shown("webhook", &json!({ "type": webhook.event_type, "signature": "verified" }));
        Ok(())
    }

    async fn same_job_again(&self) -> anyhow::Result<()> {
        title("(b) the same job again: no second link");
        self.stage.publish(&self.job("po_1001"), None, "b").await?;
        let result = self.stage.result("b").await?;
        shown("link", &result["payout_link"]["url"]);
        let links = self.simulator.ledger().links.len();
        ensure!(links == 1, "the provider has {links} links");
        shown("links at the provider", &links.into());
        Ok(())
    }

    async fn answer_is_lost(&self) -> anyhow::Result<()> {
        title("(c) the link is created and the answer is lost: no second link");
        self.simulator.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
        self.stage.publish(&self.job("po_1002"), None, "c").await?;
        let result = self.stage.result("c").await?;
        if self.shown.is_settled {
            ensure!(result["error"].is_null(), "{}", result["error"]);
            shown("link", &result["payout_link"]["url"]);
        } else {
            expect(&result["error"]["unified_details"], "code", "OUTCOME_UNKNOWN")?;
            shown("error", &result["error"]["unified_details"]);
        }
        for call in self.stage.show("po_1002")?["timeline"].as_array().into_iter().flatten() {
            let kind = call["kind"].as_str().unwrap_or_default();
            shown(kind, &json!([call["status_code"], call["outcome"]]));
        }
        let links = self.simulator.ledger().links.len();
        ensure!(links == 2, "the provider has {links} links");
        Ok(())
    }

    async fn provider_refuses(&self) -> anyhow::Result<()> {
        title("(d) the provider declines: the result has its code and message");
        self.simulator.inject_fault(Fault::status(422));
        self.stage.publish(&self.job("po_1003"), None, "d").await?;
        let result = self.stage.result("d").await?;
        expect(&result["error"]["unified_details"], "code", "CONNECTOR_REJECTED")?;
        shown("error", &result["error"]["connector_details"]);
        Ok(())
    }

    async fn job_is_not_for_it(&self) -> anyhow::Result<()> {
        title("(e) a job that the provider does not support: rejected before any call");
        let mut other = self.job("po_1004");
        other["destination_currency"] = "CHF".into();
        self.stage.publish(&other, None, "e").await?;
        let result = self.stage.result("e").await?;
        expect(&result["error"]["unified_details"], "code", "UNSUPPORTED_BY_CONNECTOR")?;
        shown("error", &result["error"]["unified_details"]);
        Ok(())
    }
}
