//! Connects to RabbitMQ, and reconnects with jittered backoff and without limit. Logs each change of state once.

use std::{net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use async_rs::TokioRuntime;
use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    uri::{AMQPScheme, AMQPUri},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::lookup_host, runtime::Handle, sync::watch, time::sleep};
use uuid::Uuid;

use super::{
    BrokerSettings,
    deadline::within,
    error::BrokerError,
    screen::{self, Screen},
    tls::BrokerTls,
    topology,
};
use crate::{domain::retry::jittered, setting_url};

/// A connection that is closed when it is dropped.
///
/// lapin closes a connection when the last of its handles is dropped, and an abandoned call keeps one inside lapin.
/// Without this type such a connection would live on, with heartbeats, and its consumer would take jobs that nothing
/// processes.
pub(super) struct Held {
    connection: Arc<Connection>,
    /// The mark of unreadable properties on this connection.
    pub(super) mark: Uuid,
}

impl Deref for Held {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.connection.status().connected()
            && let Ok(runtime) = Handle::try_current()
        {
            let connection = self.connection.clone();
            // Whether or not the broker gets it: the connection has no heartbeat any more, so the broker closes it.
            runtime.spawn(async move { within(connection.close(200, "dropped".into())).await });
        }
    }
}

/// Maximum size of a frame in bytes, and so of a message's properties and headers. It is RabbitMQ's default.
pub(super) const FRAME: u32 = 128 * 1024;

/// Opens a connection of the given name, and declares the topology.
pub(super) async fn connect(settings: &BrokerSettings, purpose: &str) -> Result<Held, BrokerError> {
    let connection = connect_only(settings, purpose).await?;
    topology::declare(&connection, settings).await?;
    Ok(connection)
}

/// Opens a connection of the given name, and changes nothing at the broker.
pub(super) async fn connect_only(settings: &BrokerSettings, purpose: &str) -> Result<Held, BrokerError> {
    let uri = address(settings)?;
    let (host, port) = (&uri.authority.host, uri.authority.port);
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let name = format!("payout-link-worker {purpose}");
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    // On a task of its own: a connection that comes too late is still closed.
    let tls = settings.tls.clone();
    let connecting = tokio::spawn(async move {
        let mark = Uuid::new_v4();
        let connection = open(uri, properties, &tls, mark).await?;
        Ok::<_, lapin::Error>(Held { connection: Arc::new(connection), mark })
    });
    let connected = async {
        let stopped = |_| Err(lapin::Error::from(std::io::Error::from(std::io::ErrorKind::Interrupted)));
        connecting.await.unwrap_or_else(stopped)
    };
    within(connected).await.map_err(|error| error.at(&address))
}

/// Returns the broker's URL with its defaults.
fn address(settings: &BrokerSettings) -> Result<AMQPUri, BrokerError> {
    let text = settings.url.expose_secret();
    let unreadable = |problem: &dyn std::fmt::Display| BrokerError::AccessDenied(problem.to_string());
    let read = setting_url::BROKER.parse(text).map_err(|error| unreadable(&error))?;
    let mut uri: AMQPUri = text.parse().map_err(|_| unreadable(&"a parameter of the URL cannot be read"))?;
    // lapin accepts names only: it would replace an IPv6 address by localhost, which would get the password.
    uri.authority.host = read.host.ok_or_else(|| unreadable(&"the URL has no host"))?;
    let query = &mut uri.query;
    query.heartbeat = query.heartbeat.or(u16::try_from(settings.heartbeat.as_secs()).ok());
    query.connection_timeout =
        query.connection_timeout.or(u64::try_from(settings.connect_timeout.as_millis()).ok());
    // lapin's buffers are 32 frames each. With a size given here, they are zeroed pages that use no memory until they
    // are needed. If the broker has no limit of its own, this is one.
    query.frame_max = query.frame_max.or(Some(FRAME));
    Ok(uri)
}

/// Returns the host, the port and the vhost of the broker, without credentials. `None` if the URL cannot be used.
pub fn target(settings: &BrokerSettings) -> Option<String> {
    let uri = address(settings).ok()?;
    let (host, port) = (&uri.authority.host, uri.authority.port);
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Some(format!("{address}, vhost {}", uri.vhost))
}

/// Returns what is wrong with a broker's URL, if anything is.
pub fn url_problem(url: &SecretString) -> Option<String> {
    let text = url.expose_secret();
    match setting_url::BROKER.parse(text) {
        Err(error) => Some(error.to_string()),
        Ok(_) if text.parse::<AMQPUri>().is_err() => {
            Some("a parameter has a value that cannot be read".to_owned())
        }
        Ok(_) => None,
    }
}

async fn open(
    uri: AMQPUri,
    properties: ConnectionProperties,
    tls: &BrokerTls,
    mark: Uuid,
) -> Result<Connection, lapin::Error> {
    let connector = match uri.scheme {
        AMQPScheme::AMQP => None,
        AMQPScheme::AMQPS => Some(tls.connector().await?),
    };
    let host = uri.authority.host.clone();
    let addresses: Vec<SocketAddr> = lookup_host((host.as_str(), uri.authority.port)).await?.collect();
    let connect = async move |_: AMQPUri, _| {
        let stream = AsyncTcpStream::connect(&TokioRuntime::tokio_current(), addresses.clone()).await?;
        let stream = match &connector {
            None => stream,
            Some(connector) => stream.into_rustls(connector, &host).await?,
        };
        Ok(AsyncTcpStream::Plain(Screen::new(stream, mark)))
    };
    Connection::connector(uri, screen::runtime(), connect, properties).await
}

/// Connects, declares the topology, and closes the connection.
///
/// # Errors
///
/// Any [`BrokerError`].
pub async fn check(settings: &BrokerSettings) -> Result<(), BrokerError> {
    let connection = connect(settings, "check").await?;
    within(connection.close(200, "checked".into())).await
}

/// Decides after the end of a session whether another one follows, and waits for it.
pub(super) struct KeepUp {
    purpose: &'static str,
    up: watch::Sender<bool>,
    worked: bool,
    logged: bool,
    pause: Duration,
}

impl KeepUp {
    pub(super) fn new(purpose: &'static str, up: watch::Sender<bool>) -> Self {
        Self { purpose, up, worked: false, logged: false, pause: FIRST_PAUSE }
    }

    pub(super) fn up(&self) -> &watch::Sender<bool> {
        &self.up
    }

    /// Waits until the next session may begin. `Some` means that none follows.
    ///
    /// An error that waiting does not resolve is final only before the first session. A credential that is wrong from
    /// the start is a mistake; one that is rejected later may be in the middle of a change.
    pub(super) async fn after(&mut self, ended: Result<(), BrokerError>) -> Option<Result<(), BrokerError>> {
        if self.up.send_replace(false) {
            (self.worked, self.logged, self.pause) = (true, false, FIRST_PAUSE);
        }
        match ended {
            Ok(()) => return Some(Ok(())),
            Err(error) if !self.worked && !error.passes() => return Some(Err(error)),
            Err(error) if !self.logged => {
                tracing::warn!(connection.purpose = self.purpose, %error, "RabbitMQ unavailable, will retry");
                self.logged = true;
            }
            Err(error) => {
                tracing::debug!(connection.purpose = self.purpose, %error, "RabbitMQ still unavailable");
            }
        }
        sleep(jittered(self.pause, LAST_PAUSE)).await;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        None
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn frame_max(url: &str) -> Option<u32> {
        let mut settings = Config::default().broker();
        settings.url = url.into();
        address(&settings).unwrap().query.frame_max
    }

    #[test]
    fn a_frame_has_a_limit_whatever_the_broker_offers() {
        // Without it, a broker without a limit of its own would lead to buffers of 32 frames of 4 GiB.
        assert_eq!(frame_max("amqp://127.0.0.1:1/%2f"), Some(131_072));
        assert_eq!(frame_max("amqp://127.0.0.1:1/%2f?frame_max=1048576"), Some(1_048_576));
    }
}
