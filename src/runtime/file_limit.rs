//! Raises the limit of open files, because every connection is one. The usual soft limit is 1,024, for programs that
//! use select(2); other programs may raise it to the hard limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to the maximum, and warns if that is below `wanted`. A call that finds no free file descriptor
/// counts as not sent.
pub fn provide(wanted: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "open file limit not raised");
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && limit < wanted
    {
        tracing::warn!(
            limit,
            wanted,
            "open file limit is too low: the configured concurrency may want more open files"
        );
    }
}
