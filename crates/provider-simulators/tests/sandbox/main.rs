//! The sandbox, called over HTTP as its clients call it.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod announcements;
mod api;
mod binary;
mod changes;
mod claim;
mod client;
mod faults;
mod receiver;
