//! Sealed values: what we sealed opens, and nothing else does, however it was come by.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use payout_link_worker::postgres::{Column, KeyRing, OpenError};
use uuid::Uuid;

static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    let keys = ["k2:YW5vdGhlciBzZWFsaW5nIGtleSwgYWxzbyAzMiBieXQ=", "k1:c2VhbGluZyBrZXkgb2YgYSB0ZXN0LCAzMiBieXRlcy4="];
    KeyRing::new(&keys.map(Into::into), &"ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4=".into()).expect("keys")
});

fuzz_target!(|data: &[u8]| {
    // As somebody with write access to the table would: anything at all,
    match RING.open(Column::Result, Uuid::nil(), data) {
        Ok(clear) => panic!("a forgery of {} bytes was opened", clear.len()),
        Err(OpenError::UnknownKey(id)) => assert!(id.len() <= 255),
        Err(OpenError::Corrupt | OpenError::OtherIdentity) => {}
    }
    // or one of ours, with a change.
    let [place, change, clear @ ..] = data else { return };
    let mut sealed = RING.seal(Column::Result, Uuid::nil(), clear);
    assert_eq!(RING.open(Column::Result, Uuid::nil(), &sealed).as_deref(), Ok(clear));
    if *change != 0 {
        let place = usize::from(*place) % sealed.len();
        sealed[place] ^= change;
        assert!(RING.open(Column::Result, Uuid::nil(), &sealed).is_err(), "byte {place} may be changed");
    }
});
