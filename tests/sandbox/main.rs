//! The sandbox, called over HTTP as its clients call it.

mod api;
mod client;
mod faults;
