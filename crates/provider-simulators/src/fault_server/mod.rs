//! Provides an HTTP server with a fault injector, on which the sandbox, its webhook receiver and the provider
//! simulators are built.
//!
//! `POST` · `GET` · `DELETE /control/faults` adds, lists and deletes fault rules ([`FaultRule`]). The control
//! endpoints need no token, so do not expose these servers to the open network.

mod access_log;
mod answer;
mod control;
mod injector;
mod fault;
mod form;
mod hold;
mod server;

pub use fault::{Fault, Garbage, Operation, When};
pub use hold::HeldCall;
pub use injector::FaultRule;

pub(crate) use answer::{Answer, ErrorReply, Reply};
pub(crate) use control::{complete, decoded, faults};
pub(crate) use fault::ActiveFault;
pub(crate) use form::{Form, PLAIN};
pub(crate) use injector::FaultInjector;
pub(crate) use server::{Bound, Connection, Server, Stop, Stopper};
