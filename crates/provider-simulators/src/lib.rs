//! Servers that stand for others in tests, benchmarks and the demo. The product does not depend on them.
//!
//! `sandbox` is the server of the sandbox connector, with its claim page and a receiver of webhooks. `providers` answers as
//! the real providers do. `fault_server` is what both share: the ledger of calls and the faults that can be ordered.

pub mod fault_server;
pub mod providers;
pub mod sandbox;
