//! Open files: every connection is one. The usual limit of a process is 1,024, for the sake of programs that cannot count
//! further (select(2)); one that can asks for as many as it may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Asks for all that there is, and tells where that is less than what may be `wanted`: a call that finds none left is
/// an attempt that was not sent.
pub fn provide(wanted: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files stays what it is");
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && limit < wanted
    {
        tracing::warn!(
            limit,
            wanted,
            "as many calls at once as the configuration allows may want more open files than there may be"
        );
    }
}
