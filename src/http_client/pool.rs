//! A pool of idle connections, by origin.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    connect::Allowance,
    connection::{Connection, Http1, Http2},
};

use crate::lock::lock;

/// The maximum idle time of a connection. It is shorter than that of common servers, because a request on a connection that the
/// server closes has an unknown outcome. That costs more than a handshake.
const MAX_IDLE_TIME: Duration = Duration::from_secs(20);

pub(super) struct Pool {
    /// The maximum number of idle connections, because a process has a limited number of open files.
    most: usize,
    idle: Mutex<IdleConnections>,
}

#[derive(Default)]
struct IdleConnections {
    /// The idle connections by scheme, host and port.
    origins: HashMap<String, Origin>,
    /// The number of connections of all origins.
    connections: usize,
    /// `true` while a task closes old connections.
    is_tidied: bool,
}

#[derive(Default)]
struct Origin {
    /// A stack: the connection that was used last is used next.
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

    /// Returns a connection to the pool, if another call can use it.
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
            // Of several concurrent connections one remains. The others end with their calls.
            Connection::Http2(connection) => origin.shared.replace((now, connection)).is_none(),
        };
        idle.connections += usize::from(is_one_more);
        if !idle.is_tidied {
            idle.is_tidied = true;
            tokio::spawn(tidy(Arc::downgrade(self)));
        }
    }

    /// Removes a shared connection on which a call timed out, so that no other call waits on it.
    pub(super) fn discard(&self, origin: &str, shared: &Allowance) {
        let mut idle = self.idle();
        let IdleConnections { origins, connections, .. } = &mut *idle;
        let Some(origin) = origins.get_mut(origin) else { return };
        if origin.shared.take_if(|(_, connection)| connection.is(shared)).is_some() {
            *connections -= 1;
        }
    }

    fn idle(&self) -> MutexGuard<'_, IdleConnections> {
        lock(&self.idle)
    }
}

impl IdleConnections {
    /// Closes the least recently used connections until one more fits.
    fn evict_for_one_more(&mut self, most: usize) {
        let mut unused = MAX_IDLE_TIME;
        while self.connections >= most.max(1) {
            unused /= 2;
            self.close(unused);
        }
    }

    /// Closes the connections that were idle for `unused`.
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

/// Closes old connections periodically, until the pool is empty.
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
