//! Provides simulated providers for tests, benchmarks and the demo. The product does not depend on this crate.
//!
//! `sandbox` is the server of the sandbox connector, with its claim page and a webhook receiver. `providers`
//! simulates the real providers. Both are built on `fault_server`, an HTTP server with a fault injector. Both change
//! links by [`LinkChange`] and announce the changes ([`Announce`]).

mod announce;
pub mod fault_server;
mod link_change;
pub mod providers;
pub mod sandbox;

pub use announce::{Announce, Announced, Behaviour, Fate};
pub use link_change::LinkChange;
