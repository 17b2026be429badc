//! Connections that are kept for the next call to the same origin, for a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::connection::{Connection, Http1, Http2};

/// Shorter than the idle time of common servers: a request on a connection that the server is closing is in doubt, and
/// that costs more than a handshake.
const KEPT: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Pool {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By scheme, host and port.
    origins: HashMap<String, Origin>,
    /// A task closes what is too old, while there is anything.
    is_tidied: bool,
}

#[derive(Default)]
struct Origin {
    /// The last to be used is the next to be used.
    idle: Vec<(Instant, Http1)>,
    shared: Option<(Instant, Http2)>,
}

impl Pool {
    pub(super) fn take(&self, origin: &str) -> Option<Connection> {
        loop {
            let (since, mut connection) = {
                let mut kept = self.kept();
                let origin = kept.origins.get_mut(origin)?;
                match &mut origin.shared {
                    Some((used, connection)) if connection.is_ready() => {
                        *used = Instant::now();
                        return Some(Connection::Http2(connection.clone()));
                    }
                    Some(_) => origin.shared = None,
                    None => {}
                }
                origin.idle.pop()?
            };
            if since.elapsed() < KEPT && connection.is_ready() {
                return Some(Connection::Http1(connection));
            }
        }
    }

    /// For the next call, if it is one that another can be made over.
    pub(super) fn keep(self: &Arc<Self>, origin: &str, mut connection: Connection) {
        if !connection.is_ready() {
            return;
        }
        let now = Instant::now();
        let mut kept = self.kept();
        if !kept.origins.contains_key(origin) {
            kept.origins.insert(origin.to_owned(), Origin::default());
        }
        let Some(origin) = kept.origins.get_mut(origin) else { return };
        match connection {
            Connection::Http1(connection) => origin.idle.push((now, connection)),
            // Several that were made at once come to be one: the others end with their calls.
            Connection::Http2(connection) => origin.shared = Some((now, connection)),
        }
        if !kept.is_tidied {
            kept.is_tidied = true;
            tokio::spawn(tidy(Arc::downgrade(self)));
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what has not been used for a while, until nothing is left.
async fn tidy(pool: Weak<Pool>) {
    loop {
        sleep(KEPT / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut kept = pool.kept();
        kept.origins.retain(|_, origin| {
            origin.idle.retain(|(since, _)| since.elapsed() < KEPT);
            origin.shared.take_if(|(used, _)| used.elapsed() >= KEPT);
            !origin.idle.is_empty() || origin.shared.is_some()
        });
        if kept.origins.is_empty() {
            kept.is_tidied = false;
            return;
        }
    }
}
