//! Tests the sandbox over HTTP, as its clients use it.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod announcements;
mod api;
mod binary;
mod changes;
mod claim;
mod client;
mod faults;
mod receiver;
