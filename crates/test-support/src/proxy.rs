//! Runs a proxy between a worker and a service that passes everything, delays it, passes one direction only, or
//! passes nothing.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use crate::calls::{AnswerReader, Calls, Reader};

/// The treatment of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Open,
    /// Delays every chunk by this time.
    Slow(Duration),
    /// Resets connections and refuses new ones.
    Refuse,
    /// Drops everything in both directions without closing a connection (half-open).
    Silent,
    /// Passes requests and drops answers.
    AnswersLost,
}

#[derive(Clone, Copy)]
struct Control {
    mode: Mode,
    /// The number of cuts. When it grows, existing connections are reset.
    cuts: u64,
}

/// A proxy in front of a server, which a test can close, silence or slow down.
pub struct Proxy {
    address: SocketAddr,
    kind: Kind,
    control: watch::Sender<Control>,
    /// The listener, or `None` while connections are refused.
    listener: Mutex<Option<JoinHandle<()>>>,
    /// Reserves the port while nothing listens: connections to a bound socket that does not listen are refused.
    _port: TcpSocket,
}

/// The fixed properties of a proxy.
#[derive(Clone)]
pub struct Kind {
    targets: Arc<[SocketAddr]>,
    /// The delay of every chunk, in each direction.
    delay: Duration,
    /// Records the create calls that pass.
    calls: Option<Calls>,
}

impl Kind {
    /// Forwards to `targets`: each connection goes to the next one that accepts it.
    pub fn to(targets: Vec<SocketAddr>) -> Self {
        Self { targets: targets.into(), delay: Duration::ZERO, calls: None }
    }

    /// Forwards to a provider, delays each direction by `delay`, and records create calls.
    pub fn provider(target: SocketAddr, delay: Duration, calls: Calls) -> Self {
        Self { targets: [target].into(), delay, calls: Some(calls) }
    }
}

impl Proxy {
    /// Starts on a free port of 127.0.0.1.
    pub async fn start(kind: Kind) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), kind).await
    }

    /// Starts at another address of the loopback interface.
    #[expect(clippy::unused_async, reason = "it spawns, so it needs a runtime")]
    pub async fn start_at(address: IpAddr, kind: Kind) -> Self {
        let port = bind((address, 0).into());
        let address = port.local_addr().unwrap();
        let control = watch::Sender::new(Control { mode: Mode::Open, cuts: 0 });
        let proxy = Self { address, kind, control, listener: Mutex::default(), _port: port };
        proxy.listens(true);
        proxy
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the port on which it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes the mode, also for existing connections.
    pub fn set(&self, mode: Mode) {
        self.listens(mode != Mode::Refuse);
        self.control.send_modify(|control| {
            control.mode = mode;
            control.cuts += u64::from(mode == Mode::Refuse);
        });
    }

    /// Resets all connections.
    pub fn cut(&self) {
        self.control.send_modify(|control| control.cuts += 1);
    }

    /// Opens the proxy again. Connections that lost bytes are reset.
    pub fn heal(&self) {
        self.control.send_modify(|control| {
            control.cuts += u64::from(!matches!(control.mode, Mode::Open | Mode::Slow(_)));
            control.mode = Mode::Open;
        });
        self.listens(true);
    }

    fn listens(&self, listens: bool) {
        let mut listener = self.listener.lock().unwrap();
        if !listens {
            listener.take().inspect(JoinHandle::abort);
        } else if listener.is_none() {
            let socket = bind(self.address).listen(1024).unwrap();
            *listener = Some(tokio::spawn(listen(socket, self.kind.clone(), self.control.subscribe())));
        }
    }
}

/// Binds a socket to the port. Two sockets may share it: one reserves it, and one listens.
fn bind(address: SocketAddr) -> TcpSocket {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listens(false);
    }
}

async fn listen(listener: TcpListener, kind: Kind, control: watch::Receiver<Control>) {
    let mut next = 0;
    loop {
        // An error, such as too few file descriptors, concerns this connection only.
        let Ok((client, _)) = listener.accept().await else { continue };
        next += 1;
        tokio::spawn(connection(client, kind.clone(), next, control.clone()));
    }
}

async fn connection(mut client: TcpStream, kind: Kind, first: usize, control: watch::Receiver<Control>) {
    let Control { mode, cuts } = *control.borrow();
    let _ = client.set_nodelay(true);
    let mut reader = kind.calls.clone().map(Reader::new);
    let mut until_cut = control.clone();
    let cut = async move {
        let _ = until_cut.wait_for(|control| control.cuts > cuts).await;
    };
    let is_reset = tokio::select! {
        ended = carry(mode, &mut client, &kind, first, &mut reader, &control) => ended.is_err(),
        () = cut => true,
    };
    // A call may have arrived without being read. It counts as one that passed.
    drain(&client, &mut reader);
    if is_reset {
        // Without lingering, closing the socket sends RST instead of FIN.
        let _ = client.set_zero_linger();
    }
}

fn drain(client: &TcpStream, reader: &mut Option<Reader>) {
    let Some(reader) = reader else { return };
    let mut buffer = [0; 16 * 1024];
    loop {
        match client.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => reader.read(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

async fn carry(
    mode: Mode,
    client: &mut TcpStream,
    kind: &Kind,
    first: usize,
    reader: &mut Option<Reader>,
    control: &watch::Receiver<Control>,
) -> std::io::Result<()> {
    match mode {
        Mode::Refuse => return Err(ErrorKind::ConnectionRefused.into()),
        // The kernel accepts the connection, and nothing is ever read from it.
        Mode::Silent => std::future::pending().await,
        Mode::Open | Mode::Slow(_) | Mode::AnswersLost => {}
    }
    let mut server = connect(&kind.targets, first).await?;
    let _ = server.set_nodelay(true);
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    let delay = kind.delay;
    let mut answers = reader.as_ref().map(Reader::answers);
    let (mut no_reader, mut no_answers) = (None, None);
    let carried = tokio::try_join!(
        pump(client_reads, server_writes, delay, Seen(reader, &mut no_answers), control, |mode| mode
            == Mode::Silent),
        pump(server_reads, client_writes, delay, Seen(&mut no_reader, &mut answers), control, |mode| {
            matches!(mode, Mode::Silent | Mode::AnswersLost)
        }),
    );
    if carried.is_err() {
        let _ = server.set_zero_linger();
    }
    carried.map(|_| ())
}

async fn connect(targets: &[SocketAddr], first: usize) -> std::io::Result<TcpStream> {
    for place in 0..targets.len() {
        if let Ok(server) = TcpStream::connect(targets[(first + place) % targets.len()]).await {
            return Ok(server);
        }
    }
    Err(ErrorKind::ConnectionRefused.into())
}

/// Observes the bytes of a connection when they are read and when they are written.
struct Seen<'a>(&'a mut Option<Reader>, &'a mut Option<AnswerReader>);

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    delay: Duration,
    seen: Seen<'_>,
    control: &watch::Receiver<Control>,
    drops: impl Fn(Mode) -> bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if let Some(reader) = &mut *seen.0 {
            reader.read(&buffer[..length]);
        }
        let mode = control.borrow().mode;
        let slow = if let Mode::Slow(late) = mode { late } else { Duration::ZERO };
        if !(delay + slow).is_zero() {
            sleep(delay + slow).await;
        }
        match length {
            // The end of the stream is dropped too.
            0 if drops(mode) => std::future::pending().await,
            0 => return to.shutdown().await,
            _ if drops(mode) => {}
            _ => {
                to.write_all(&buffer[..length]).await?;
                if let Some(answers) = &mut *seen.1 {
                    answers.wrote(&buffer[..length]);
                }
            }
        }
    }
}
