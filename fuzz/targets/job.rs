//! A job's body and message_id. What is taken has one form, which reads as the same job; what is refused is told
//! within bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use payout_link_worker::contract::{
    DecodePolicy, FingerprintKey, canonical_request, claimed_identifier, create_link, differences, fingerprint,
    stored_request,
};

fuzz_target!(|data: &[u8]| {
    // The last bytes, after a zero, are the message_id: a seed without one is a body as it stands.
    let (body, message_id) = match data.iter().rposition(|byte| *byte == 0) {
        Some(end) => (&data[..end], std::str::from_utf8(&data[end + 1..]).ok()),
        None => (data, None),
    };
    if let Some(id) = claimed_identifier(body, message_id) {
        assert!((1..=255).contains(&id.len()) && !id.chars().any(char::is_control));
    }
    match create_link(body, message_id, &DecodePolicy::default()) {
        Ok(job) => {
            let stored = canonical_request(&job);
            let again = stored_request(stored.as_bytes()).expect("what was taken can be read again");
            assert!(differences(&job, &again).is_empty());
            let (again, key) = (canonical_request(&again), FingerprintKey::new(&[7; 32]));
            assert_eq!(again.as_bytes(), stored.as_bytes());
            assert_eq!(fingerprint(&stored, "c", &key), fingerprint(&again, "c", &key));
        }
        Err(rejection) => {
            assert!(rejection.message.len() < 1024, "{}", rejection.message.len());
            let field = rejection.field.unwrap_or_default();
            assert!(field.len() < 1024 && !field.chars().any(char::is_control), "{field:?}");
        }
    }
});
