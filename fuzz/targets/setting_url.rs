//! URLs of the configuration: whatever is read leads to one host, and an error repeats no password.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use payout_link_worker::setting_url::{BROKER, DATABASE, MARK, SERVICE};
use url::Url;

fuzz_target!(|text: &str| {
    for form in [&BROKER, &DATABASE, &SERVICE] {
        match form.parse(text) {
            Ok(read) => {
                let Some(host) = read.host else { continue };
                assert!(!host.is_empty() && !host.contains(['@', '/', '?', '#', '[', ']', '%']), "{host}");
                assert!(!host.contains(':') || host.parse::<IpAddr>().is_ok(), "{host}");
                // What is behind the last @ is the host, and nothing is behind the host but what belongs there.
                let (_, behind) = text.split_once("://").expect("a URL");
                assert!(behind.matches('@').count() <= 1 && !behind.contains('#'), "{text}");
                assert_ne!(read.url.port(), Some(0));
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.starts_with(MARK));
                // Ten characters are in none of the errors' own words.
                let url = Url::parse(text).ok();
                let password = url.as_ref().and_then(Url::password).filter(|password| password.len() >= 10);
                let is_ours = |password: &str| form.parse("").is_err_and(|own| own.to_string().contains(password));
                assert!(password.is_none_or(|password| !error.contains(password) || is_ours(password)), "{text}");
            }
        }
    }
});
