//! The beginning of a merchant's answer, for operators: without the link and without the secret parts of the webhook's URL,
//! which an endpoint may repeat.

use secrecy::SecretString;
use serde_json::Value;
use url::Url;

use crate::domain::{Redactor, escape_control};

/// The maximum length of an excerpt, in characters.
const MAX_CHARS: usize = 200;

/// Returns the beginning of `answer`, on one line; nothing if it is empty. `body` is the webhook, and `url` its address.
pub(super) fn excerpt(answer: &[u8], body: &[u8], url: &Url) -> String {
    let text = String::from_utf8_lossy(answer);
    // Before it is cut, so that no part of a secret remains.
    let redacted = Redactor::new(secrets(body, url)).redact(&text);
    let line = redacted.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = line.chars().take(MAX_CHARS).collect();
    escape_control(&cut).into_owned()
}

/// Returns the parts that only the merchant and the recipient may know: paths and queries. Host names are in many texts.
fn secrets(body: &[u8], url: &Url) -> Vec<SecretString> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let link = body["data"]["payout_link"]["url"].as_str().and_then(|link| link.parse::<Url>().ok());
    let parts = |url: &Url| {
        let path = url.path().to_owned();
        [Some(path), url.query().map(str::to_owned), url.fragment().map(str::to_owned)]
    };
    let all = link.iter().chain([url]).flat_map(parts).flatten();
    all.map(SecretString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answer: &str) -> String {
        let body = br#"{"type":"payout_link.created","data":{"payout_link":{"url":"https://pay.example/l/canary-token?k=canary-key"}}}"#;
        let url = "https://hooks.example/in/canary-path".parse().unwrap();
        excerpt(answer.as_bytes(), body, &url)
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(of(""), "");
        assert_eq!(of(" out of\n\torder\u{1b}[2J "), "out of order\\u{1b}[2J");
        assert_eq!(of(&"é".repeat(1000)).chars().count(), MAX_CHARS);
    }

    #[test]
    fn an_answer_that_repeats_the_webhook_shows_no_secret_of_it() {
        for repeated in
            ["https://pay.example/l/canary-token?k=canary-key", "/in/canary-path", "Y2FuYXJ5LXRva2Vu"]
        {
            let shown = of(&format!("cannot store {repeated} now"));
            assert!(shown.starts_with("cannot store ") && shown.ends_with(" now"), "{shown}");
            assert!(!shown.contains("canary") && !shown.contains("Y2FuYXJ5LXRva2Vu"), "{shown}");
        }
    }
}
