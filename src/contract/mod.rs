//! Converts between JSON and the domain. Only this module knows the spelling of the contract.

mod decode;
mod encode;
mod fingerprint;
mod masked;
mod patch;
mod result;
mod schema;
mod status_update;

pub use self::{
    decode::{
        DecodePolicy, UnknownFields, claimed_identifier, create_link, create_link_noting, link_request,
        stored_request,
    },
    encode::{CanonicalRequest, canonical_request},
    fingerprint::{FingerprintKey, differences, fingerprint},
    masked::{MASKED, Outline, masked, outline},
    patch::{PatchError, merge_patch},
    result::{EventContent, conclusion, rejection, webhook},
    schema::Schema,
    status_update::{StatusUpdate, anonymous, status_error, status_update},
};
