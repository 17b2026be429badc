//! Tests the simulators over HTTP. Each is as strict as its provider's documentation.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod announcements;
mod changes;
mod client;
mod everywhere;
mod hyperswitch;
mod razorpayx;
mod revolut;
mod revolut_changes;
mod xendit;
