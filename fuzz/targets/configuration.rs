//! A configuration file: read, or refused with every problem in bounds; never a panic, whatever is asked of it next.
#![no_main]

use libfuzzer_sys::fuzz_target;
use payout_link_worker::config::Config;

fuzz_target!(|text: &str| {
    // Files of this machine are nobody's to fuzz with.
    if text.contains("_file") {
        return;
    }
    match Config::from_text(text, std::iter::empty()) {
        Ok(config) => {
            config.store();
            config.broker();
            config.pipeline();
            config.webhooks();
            config.key_ring().expect("it was tried");
        }
        Err(error) => assert!(!error.0.is_empty()),
    }
});
