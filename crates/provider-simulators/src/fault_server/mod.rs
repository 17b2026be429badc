//! An HTTP server that goes wrong when it is told to: what the sandbox, its webhook receiver and the stand-ins are
//! built on.
//!
//! `POST` · `GET` · `DELETE /control/faults` orders faults ([`FaultRule`]), shows those that wait, and forgets them.
//! The control endpoints ask for no token, so none of these is a server for the open network.

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
pub(crate) use server::{Bound, Connection, Server, Stopper};
