//! Access tokens: 40 minutes each, for a refresh token and an assertion that we sign.
//!
//! Source: developer.revolut.com/docs/guides/manage-accounts/get-started/make-your-first-api-request.

use std::{collections::VecDeque, time::Duration};

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::header::CONTENT_TYPE;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};
use url::{Url, form_urlencoded};

use crate::{
    connectors::exchange::{parse, unreadable},
    domain::{ConnectorError, Outcome},
    http_client::{Answer, CallError, Client},
    lock::lock,
};

/// A token is refreshed so long before its end, or a quarter of its life where that is less.
const AHEAD: Duration = Duration::from_mins(5);
/// The longest lifetime that is believed: no clock can represent every number.
const MAX_LIFE: Duration = Duration::from_hours(24);
const ASSERTION_LIFETIME: time::Duration = time::Duration::minutes(5);
/// Two refreshes: an assertion and a token each, and one more of both for calls that were under way meanwhile.
const MAX_REMEMBERED: usize = 6;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Who we are to Revolut.
pub(super) struct Identity {
    pub(super) client_id: String,
    pub(super) issuer: String,
    pub(super) refresh_token: SecretString,
    pub(super) private_key: KeyPair,
}

/// The token that is good now. One refresh at a time: who comes meanwhile waits for it.
pub(super) struct Tokens {
    url: Url,
    identity: Identity,
    http: Client,
    current: Mutex<Option<Token>>,
    /// Recently sent tokens, the newest last: a token that was replaced, and an assertion, may still be repeated in an answer.
    sent: std::sync::Mutex<VecDeque<SecretString>>,
}

#[derive(Clone)]
pub(super) struct Token {
    pub(super) secret: SecretString,
    refresh_at: Instant,
    ends_at: Instant,
}

/// No token: nothing was asked of the API itself.
#[derive(Debug)]
pub(super) enum NoToken {
    /// The question has not left, or its answer is lost; a token given in it harms nobody.
    Unanswered(ConnectorError),
    /// A deployment's mistake, or too many.
    Refused { error: ConnectorError, retry_after: Option<Duration> },
}

#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    /// Seconds.
    expires_in: u64,
}

/// RFC 6749, 5.2.
#[derive(Deserialize)]
struct Denied {
    error: String,
    error_description: Option<String>,
}

impl Tokens {
    pub(super) fn new(http: Client, url: Url, identity: Identity) -> Self {
        Self { url, identity, http, current: Mutex::new(None), sent: std::sync::Mutex::default() }
    }

    /// Returns every secret that a text of Revolut can repeat.
    pub(super) fn secrets(&self) -> Vec<SecretString> {
        let Identity { client_id, refresh_token, .. } = &self.identity;
        let sent = lock(&self.sent);
        [SecretString::from(client_id.as_str()), refresh_token.clone()]
            .into_iter()
            .chain(sent.iter().cloned())
            .collect()
    }

    fn remember(&self, secret: SecretString) {
        let mut sent = lock(&self.sent);
        sent.push_back(secret);
        if sent.len() > MAX_REMEMBERED {
            sent.pop_front();
        }
    }

    /// Returns a token that is valid now.
    pub(super) async fn current(&self, deadline: Instant) -> Result<Token, NoToken> {
        self.get(None, deadline).await
    }

    /// Returns a token in place of one that the API refused.
    pub(super) async fn instead_of(&self, refused: &Token, deadline: Instant) -> Result<Token, NoToken> {
        self.get(Some(refused), deadline).await
    }

    async fn get(&self, refused: Option<&Token>, deadline: Instant) -> Result<Token, NoToken> {
        let waited = timeout_at(deadline, self.current.lock()).await;
        let mut current = waited.map_err(|_| unanswered("timed out waiting for an access token"))?;
        let now = Instant::now();
        let known = current.clone().filter(|token| !refused.is_some_and(|refused| refused.is(token)));
        match known {
            Some(token) if now < token.refresh_at => return Ok(token),
            Some(_) | None => {}
        }
        match self.refresh(deadline).await {
            Ok(token) => {
                *current = Some(token.clone());
                Ok(token)
            }
            // Refreshed ahead of its end, so that a failure to do so need not hurt.
            Err(error) => known.filter(|token| now < token.ends_at).ok_or(error),
        }
    }

    async fn refresh(&self, deadline: Instant) -> Result<Token, NoToken> {
        let assertion = self
            .identity
            .assertion(OffsetDateTime::now_utc())
            .ok_or_else(|| unanswered("the private key cannot sign"))?;
        self.remember(assertion.as_str().into());
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", self.identity.refresh_token.expose_secret())
            .append_pair("client_assertion_type", ASSERTION_TYPE)
            .append_pair("client_assertion", &assertion)
            .finish();
        let asked = Instant::now();
        let request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .timeout(deadline - asked)
            .body(form);
        let answer = self.http.call(request).await.map_err(lost)?;
        let granted = parse::<Granted>(&answer).filter(|_| answer.status.is_success());
        let Some(Granted { access_token, expires_in }) = granted else {
            let retry_after = answer.retry_after(OffsetDateTime::now_utc());
            return Err(NoToken::Refused { error: denied(&answer), retry_after });
        };
        self.remember(access_token.clone());
        let life = Duration::from_secs(expires_in).min(MAX_LIFE);
        let ends_at = asked + life;
        tracing::debug!(expires_in_seconds = expires_in, "access token refreshed");
        Ok(Token { secret: access_token, refresh_at: ends_at - AHEAD.min(life / 4), ends_at })
    }
}

impl Token {
    fn is(&self, other: &Self) -> bool {
        self.secret.expose_secret() == other.secret.expose_secret()
    }
}

impl Identity {
    /// Builds the client assertion: a JWT (RFC 7519), signed with RS256.
    fn assertion(&self, now: OffsetDateTime) -> Option<String> {
        let header = json!({ "alg": "RS256", "typ": "JWT" });
        let claims = json!({
            "iss": self.issuer,
            "sub": self.client_id,
            "aud": "https://revolut.com",
            "exp": (now + ASSERTION_LIFETIME).unix_timestamp(),
        });
        let part = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.private_key.public_modulus_len()];
        self.private_key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .ok()?;
        Some(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Reads an RSA key in PEM, PKCS#8 or PKCS#1, without a passphrase.
pub(super) fn private_key(pem: &SecretString) -> Option<KeyPair> {
    match PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).ok()? {
        PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()).ok(),
        _ => None,
    }
}

impl From<NoToken> for Outcome {
    fn from(no_token: NoToken) -> Self {
        match no_token {
            NoToken::Unanswered(error) => Self::NotSent(error),
            NoToken::Refused { error, retry_after } => Self::TryLater { error, retry_after },
        }
    }
}

fn denied(answer: &Answer) -> ConnectorError {
    match parse::<Denied>(answer) {
        Some(Denied { error, error_description }) => {
            let message = error_description.as_deref().unwrap_or("no access token was given");
            ConnectorError::new(answer.status.as_u16(), Some(&error), message, None)
        }
        None => unreadable(answer),
    }
}

fn lost(error: CallError) -> NoToken {
    unanswered(&format!("no access token: {error}"))
}

fn unanswered(reason: &str) -> NoToken {
    NoToken::Unanswered(ConnectorError::unanswered(reason))
}
