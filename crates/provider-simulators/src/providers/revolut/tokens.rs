//! Issues Revolut's access tokens for a refresh token and an assertion that the client signed. They are valid for a
//! while.
//!
//! The assertion is a JWT (RFC 7519) of RS256: `iss` is the domain of the redirect URI, `sub` the client's id, `aud`
//! `https://revolut.com`, and `exp` in the future.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use time::OffsetDateTime;
use url::form_urlencoded;
use uuid::Uuid;

use super::super::api::{Job, Request, same};
use crate::fault_server::{ErrorReply, Reply};

/// The lifetime of an access token: 40 minutes less a second, as in the documentation's example.
pub const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(2399);

const AUDIENCE: &str = "https://revolut.com";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The data by which a client is known.
#[derive(Clone)]
pub struct RevolutClient {
    /// The client's id, the `sub` of its assertion.
    pub client_id: String,
    /// The domain of the redirect URI.
    pub issuer: String,
    /// The token for which access tokens are issued.
    pub refresh_token: String,
    /// The public key of the uploaded certificate: RSA, DER (X.509 or PKCS#1).
    pub public_key: Vec<u8>,
    /// The time in which an access token is accepted.
    pub access_token_lifetime: Duration,
    /// An access token that never expires, such as a job may bring.
    pub access_token: Option<String>,
}

/// Limits a lifetime, which may be longer than a clock can count.
const MAX_LIFETIME: Duration = Duration::from_hours(365 * 24);

impl RevolutClient {
    /// Reads a public key in PEM, as `openssl rsa -pubout` writes it.
    pub fn public_key_from_pem(pem: &str) -> Option<Vec<u8>> {
        let (_, rest) = pem.split_once("-----BEGIN PUBLIC KEY-----")?;
        let (text, _) = rest.split_once("-----END PUBLIC KEY-----")?;
        BASE64_STANDARD.decode(text.split_whitespace().collect::<String>()).ok()
    }
}

pub(super) struct Tokens {
    client: RevolutClient,
    /// The issued tokens, each with its end.
    given: Mutex<HashMap<String, Instant>>,
}

impl Tokens {
    pub(super) fn new(client: RevolutClient) -> Self {
        Self { client, given: Mutex::default() }
    }

    pub(super) fn knows(&self, token: &str) -> bool {
        let always = self.client.access_token.as_deref().is_some_and(|known| same(token, known));
        always || self.given().get(token).is_some_and(|end| Instant::now() < *end)
    }

    /// Invalidates all issued tokens.
    pub(super) fn forget(&self) {
        self.given().clear();
    }

    /// Issues a token. It stays valid even if the answer is lost.
    pub(super) fn grant(&self, request: &Request) -> Result<Job, ErrorReply> {
        self.check(request)?;
        let token = format!("oa_stand_in_{}", Uuid::new_v4().simple());
        let lifetime = self.client.access_token_lifetime;
        self.given().insert(token.clone(), Instant::now() + lifetime.min(MAX_LIFETIME));
        let granted = json!({
            "access_token": token,
            "token_type": "bearer",
            "expires_in": lifetime.as_secs(),
        });
        Ok(Job::new(move |_| Reply::json(StatusCode::OK, &granted)))
    }

    fn check(&self, request: &Request) -> Result<(), ErrorReply> {
        if request.content_type().as_deref() != Some("application/x-www-form-urlencoded") {
            return Err(bad("invalid_request", "the body is a form"));
        }
        let mut form: HashMap<String, String> = form_urlencoded::parse(&request.body).into_owned().collect();
        let mut take = |name: &str| form.remove(name).unwrap_or_default();
        let (kind, assertion_type) = (take("grant_type"), take("client_assertion_type"));
        let (refresh_token, assertion) = (take("refresh_token"), take("client_assertion"));
        if !form.is_empty() {
            return Err(bad("invalid_request", "a parameter is not known"));
        }
        if kind != "refresh_token" {
            return Err(bad("unsupported_grant_type", "grant_type is refresh_token"));
        }
        if assertion_type != ASSERTION_TYPE {
            return Err(bad("invalid_request", "client_assertion_type is that of a JWT"));
        }
        self.verify(&assertion, OffsetDateTime::now_utc()).map_err(|why| {
            let body = json!({ "error": "unauthorized_client", "error_description": why });
            ErrorReply(StatusCode::UNAUTHORIZED, body)
        })?;
        if !same(&refresh_token, &self.client.refresh_token) {
            return Err(bad("invalid_grant", "the refresh token is not known"));
        }
        Ok(())
    }

    fn verify(&self, assertion: &str, now: OffsetDateTime) -> Result<(), &'static str> {
        let (signed, signature) = assertion.rsplit_once('.').ok_or("the assertion is no JWT")?;
        let (header, claims) = signed.split_once('.').ok_or("the assertion is no JWT")?;
        let signature =
            BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| "the signature is not base64url")?;
        let (header, claims) = (object(header)?, object(claims)?);
        if header["alg"] != "RS256" {
            return Err("the algorithm is RS256");
        }
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.client.public_key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| "the signature does not verify")?;
        if claims["iss"] != self.client.issuer.as_str() {
            return Err("iss is not the domain of the redirect URI");
        }
        if claims["sub"] != self.client.client_id.as_str() {
            return Err("sub is not the client's id");
        }
        if claims["aud"] != AUDIENCE {
            return Err("aud is not https://revolut.com");
        }
        match claims["exp"].as_i64() {
            Some(end) if end > now.unix_timestamp() => Ok(()),
            _ => Err("exp is missing or over"),
        }
    }

    fn given(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn object(part: &str) -> Result<Value, &'static str> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| "the assertion is not base64url")?;
    serde_json::from_slice(&bytes).map_err(|_| "the assertion is not JSON")
}

fn bad(error: &str, description: &str) -> ErrorReply {
    ErrorReply(StatusCode::BAD_REQUEST, json!({ "error": error, "error_description": description }))
}
