//! Connect, and connect again: jittered backoff without end, one line in the log for each change of state.

use std::{net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use async_rs::TokioRuntime;
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
    uri::{AMQPScheme, AMQPUri},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    net::lookup_host,
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    BrokerSettings,
    screen::{self, Screen},
    tls::{self, BrokerTls},
    topology,
};
use crate::{domain::retry::jittered, setting_url};

#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// It passes: the broker is away, restarting, or broke the connection off.
    #[error("{0}")]
    Lost(String),
    /// It does not pass by waiting: credentials, vhost, rights.
    #[error("RabbitMQ refused: {0}")]
    Refused(String),
    /// Nor does this: one side's certificate is not good enough for the other.
    #[error("no TLS with RabbitMQ: {0}")]
    Untrusted(String),
    /// A queue or exchange is there with other arguments. It is never deleted or made anew.
    #[error(
        "{what} is there already with other arguments: {said}. Give it another name in the configuration, set what it has, or delete it by hand when it is empty"
    )]
    Mismatch { what: String, said: String },
}

impl BrokerError {
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

impl BrokerError {
    fn at(self, place: &str) -> Self {
        match self {
            Self::Lost(reason) => Self::Lost(format!("{place}: {reason}")),
            Self::Refused(reason) => Self::Refused(format!("{place}: {reason}")),
            Self::Untrusted(reason) => Self::Untrusted(format!("{place}: {reason}")),
            mismatch @ Self::Mismatch { .. } => mismatch,
        }
    }
}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(refusal)
                if matches!(
                    refusal.kind(),
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                        | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
                ) =>
            {
                Self::Refused(refusal.get_message().to_string())
            }
            ErrorKind::IOError(cause) if tls::is_refusal(cause) => Self::Untrusted(cause.to_string()),
            // "connection refused", without the number that goes with it.
            ErrorKind::IOError(cause) if cause.raw_os_error().is_some() => {
                Self::Lost(cause.kind().to_string())
            }
            ErrorKind::IOError(cause) => Self::Lost(cause.to_string()),
            _ => Self::Lost(error.to_string()),
        }
    }
}

/// Every wait for the broker has an end.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn within<T>(
    operation: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    timeout(DEADLINE, operation)
        .await
        .map_err(|_| BrokerError::Lost("the broker does not answer".into()))?
        .map_err(Into::into)
}

/// A connection that ends with whoever holds it, however that ends.
///
/// lapin closes a connection when the last of its handles is dropped, and a call that was given up keeps one inside
/// lapin: such a connection lives on, heartbeats and all, and a consumer on it takes jobs that nobody works on.
pub(super) struct Held {
    connection: Arc<Connection>,
    /// What marks properties that could not be read, on this connection.
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
            // Said or not: from here on it has no heartbeat either, and the broker lets go of it by itself.
            runtime.spawn(async move { within(connection.close(200, "given up".into())).await });
        }
    }
}

/// Bytes of a frame, and so of a message's properties and headers, at most: RabbitMQ's own default.
pub(super) const FRAME: u32 = 128 * 1024;

/// A connection of the given name, with the topology declared.
pub(super) async fn connect(settings: &BrokerSettings, purpose: &str) -> Result<Held, BrokerError> {
    let uri = address(settings)?;
    let (host, port) = (&uri.authority.host, uri.authority.port);
    let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let name = format!("payout-link-worker {purpose}");
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    // On a task of its own: one that comes too late is taken, and closed.
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
    let connection = within(connected).await.map_err(|error| error.at(&place))?;
    topology::declare(&connection, settings).await?;
    Ok(connection)
}

/// The broker's URL, and what it leaves unsaid.
fn address(settings: &BrokerSettings) -> Result<AMQPUri, BrokerError> {
    let text = settings.url.expose_secret();
    let unreadable = |problem: &dyn std::fmt::Display| BrokerError::Refused(problem.to_string());
    let read = setting_url::BROKER.parse(text).map_err(|error| unreadable(&error))?;
    let mut uri: AMQPUri = text.parse().map_err(|_| unreadable(&"a parameter of its URL cannot be read"))?;
    // lapin knows names alone: an IPv6 address would become localhost, which would get the password.
    uri.authority.host = read.host.ok_or_else(|| unreadable(&"its URL has no host"))?;
    let query = &mut uri.query;
    query.heartbeat = query.heartbeat.or(u16::try_from(settings.heartbeat.as_secs()).ok());
    query.connection_timeout =
        query.connection_timeout.or(u64::try_from(settings.connect_timeout.as_millis()).ok());
    // lapin's buffers are 32 frames each. Said here, they are made as zeroes that take up nothing until they are used, and
    // where the broker has no limit of its own they still have one.
    query.frame_max = query.frame_max.or(Some(FRAME));
    Ok(uri)
}

/// What is wrong with a broker's URL, if anything is.
pub fn url_problem(url: &SecretString) -> Option<String> {
    let text = url.expose_secret();
    match setting_url::BROKER.parse(text) {
        Err(error) => Some(error.to_string()),
        Ok(_) if text.parse::<AMQPUri>().is_err() => {
            Some("a value of its parameters cannot be read".to_owned())
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

pub(super) async fn channel(connection: &Connection) -> Result<Channel, BrokerError> {
    within(connection.create_channel()).await
}

/// Can the broker be reached, and is the topology as it should be?
pub async fn check(settings: &BrokerSettings) -> Result<(), BrokerError> {
    let connection = connect(settings, "check").await?;
    within(connection.close(200, "checked".into())).await
}

/// What follows the end of a session: the next one, after a pause, or the end.
pub(super) struct KeepUp {
    purpose: &'static str,
    up: watch::Sender<bool>,
    worked: bool,
    told: bool,
    pause: Duration,
}

impl KeepUp {
    pub(super) fn new(purpose: &'static str, up: watch::Sender<bool>) -> Self {
        Self { purpose, up, worked: false, told: false, pause: FIRST_PAUSE }
    }

    pub(super) fn up(&self) -> &watch::Sender<bool> {
        &self.up
    }

    /// Waits until the next session may begin; `Some` is the end.
    ///
    /// What does not pass ends it only while nothing has worked yet: a credential that is wrong from the start is a
    /// mistake to be told, one that is refused later may be in the middle of being changed.
    pub(super) async fn after(&mut self, ended: Result<(), BrokerError>) -> Option<Result<(), BrokerError>> {
        if self.up.send_replace(false) {
            (self.worked, self.told, self.pause) = (true, false, FIRST_PAUSE);
        }
        match ended {
            Ok(()) => return Some(Ok(())),
            Err(error) if !self.worked && !error.passes() => return Some(Err(error)),
            Err(error) if !self.told => {
                tracing::warn!(connection.purpose = self.purpose, %error, "RabbitMQ is away, trying again until it is back");
                self.told = true;
            }
            Err(error) => {
                tracing::debug!(connection.purpose = self.purpose, %error, "RabbitMQ is still away")
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
        // Not said, a broker without a limit of its own would be met with buffers for 32 frames of 4 GiB.
        assert_eq!(frame_max("amqp://127.0.0.1:1/%2f"), Some(131_072));
        assert_eq!(frame_max("amqp://127.0.0.1:1/%2f?frame_max=1048576"), Some(1_048_576));
    }
}
