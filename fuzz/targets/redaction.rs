//! A provider's text and a secret: no run of six characters of the secret comes out of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use payout_link_worker::domain::Redactor;

const RUN: usize = 6;

fuzz_target!(|input: (&str, &str)| {
    let (secret, text) = input;
    let clean = Redactor::new([secret.into()]).redact(text);
    let letters: Vec<char> = secret.chars().collect();
    for run in letters.windows(RUN) {
        let run: String = run.iter().collect();
        // The mark that stands in its place is no secret.
        assert!(!clean.replace("[REDACTED]", "\u{fffc}").contains(&run), "{run:?} of {text:?} in {clean:?}");
    }
    let nothing = Redactor::new([]);
    assert!(text.starts_with(&nothing.redact(text)));
});
