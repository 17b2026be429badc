//! Connections that are idle for the next call to the same origin, for a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    connect::Allowance,
    connection::{Connection, Http1, Http2},
};

/// Shorter than the idle time of common servers: a request on a connection that the server is closing is in doubt, and
/// that costs more than a handshake.
const MAX_IDLE_TIME: Duration = Duration::from_secs(20);

pub(super) struct Pool {
    /// Connections that are idle at most: merchants are many, and a process has so many files and no more.
    most: usize,
    idle: Mutex<IdleConnections>,
}

#[derive(Default)]
struct IdleConnections {
    /// By scheme, host and port.
    origins: HashMap<String, Origin>,
    /// Of all origins together.
    connections: usize,
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
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, idle: Mutex::default() })
    }

    pub(super) fn take(&self, origin: &str) -> Option<Connection> {
        loop {
            let (since, mut connection) = {
                let mut idle = self.idle();
                let IdleConnections { origins, connections, .. } = &mut *idle;
                let origin = origins.get_mut(origin)?;
                if let Some((used, connection)) = &mut origin.shared {
                    if connection.is_ready() {
                        *used = Instant::now();
                        return Some(Connection::Http2(connection.clone()));
                    }
                    origin.shared = None;
                    *connections -= 1;
                }
                let idle = origin.idle.pop()?;
                *connections -= 1;
                idle
            };
            if since.elapsed() < MAX_IDLE_TIME && connection.is_ready() {
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
        let mut idle = self.idle();
        idle.evict_for_one_more(self.most);
        if !idle.origins.contains_key(origin) {
            idle.origins.insert(origin.to_owned(), Origin::default());
        }
        let Some(origin) = idle.origins.get_mut(origin) else { return };
        let is_one_more = match connection {
            Connection::Http1(connection) => {
                origin.idle.push((now, connection));
                true
            }
            // Several that were made at once come to be one: the others end with their calls.
            Connection::Http2(connection) => origin.shared.replace((now, connection)).is_none(),
        };
        idle.connections += usize::from(is_one_more);
        if !idle.is_tidied {
            idle.is_tidied = true;
            tokio::spawn(tidy(Arc::downgrade(self)));
        }
    }

    /// Takes a shared connection out that a call got no answer over: no other call should wait for the same.
    pub(super) fn discard(&self, origin: &str, shared: &Allowance) {
        let mut idle = self.idle();
        let IdleConnections { origins, connections, .. } = &mut *idle;
        let Some(origin) = origins.get_mut(origin) else { return };
        if origin.shared.take_if(|(_, connection)| connection.is(shared)).is_some() {
            *connections -= 1;
        }
    }

    fn idle(&self) -> MutexGuard<'_, IdleConnections> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdleConnections {
    /// For one more: what has not been used for longest goes first.
    fn evict_for_one_more(&mut self, most: usize) {
        let mut unused = MAX_IDLE_TIME;
        while self.connections >= most.max(1) {
            unused /= 2;
            self.close(unused);
        }
    }

    /// Closes what has not been used for so long.
    fn close(&mut self, unused: Duration) {
        self.connections = 0;
        self.origins.retain(|_, origin| {
            origin.idle.retain(|(since, _)| since.elapsed() < unused);
            origin.shared.take_if(|(used, _)| used.elapsed() >= unused);
            let left = origin.idle.len() + usize::from(origin.shared.is_some());
            self.connections += left;
            left > 0
        });
    }
}

/// Closes what has not been used for a while, until nothing is left.
async fn tidy(pool: Weak<Pool>) {
    loop {
        sleep(MAX_IDLE_TIME / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle();
        idle.close(MAX_IDLE_TIME);
        if idle.origins.is_empty() {
            idle.is_tidied = false;
            return;
        }
    }
}
