//! An HTTP server that goes wrong when it is told to: what the sandbox, its webhook receiver and the stand-ins are
//! built on.
//!
//! `POST` · `GET` · `DELETE /control/faults` orders faults ([`Order`]), shows those that wait, and forgets them.
//! The control endpoints ask for no token, so none of these is a server for the open network.

mod access_log;
mod answer;
mod control;
mod desk;
mod fault;
mod form;
mod hold;
mod server;

pub use desk::Order;
pub use fault::{Fault, Garbage, Operation, When};
pub use hold::HeldCall;

pub(crate) use answer::{Answer, Refused, Reply};
pub(crate) use control::{complete, decoded, faults};
pub(crate) use desk::Desk;
pub(crate) use fault::Trouble;
pub(crate) use form::{Form, PLAIN};
pub(crate) use server::{Bound, Connection, Server, Stopper};
