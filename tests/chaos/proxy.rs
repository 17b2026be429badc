//! What stands between a worker and a service: passes everything, slowly, in one direction only, or not at all.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Open,
    /// Every chunk is so late.
    Slow(Duration),
    /// Connections are reset, new ones at once.
    Refuse,
    /// Half-open: what is sent is swallowed, in both directions, and nobody is told.
    Silent,
    /// What the service says is swallowed; what it is told arrives.
    AnswersLost,
}

#[derive(Clone, Copy)]
struct Control {
    mode: Mode,
    /// Connections that were there when it last grew are reset.
    cuts: u64,
}

pub struct Proxy {
    address: SocketAddr,
    control: watch::Sender<Control>,
    listener: JoinHandle<()>,
}

impl Proxy {
    /// In front of any of `targets`: each connection goes to the next that takes it.
    pub async fn start(targets: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = watch::Sender::new(Control { mode: Mode::Open, cuts: 0 });
        let heard = control.subscribe();
        Self { address, control, listener: tokio::spawn(listen(listener, targets.into(), heard)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set(&self, mode: Mode) {
        self.control.send_modify(|control| {
            control.mode = mode;
            control.cuts += u64::from(mode == Mode::Refuse);
        });
    }

    /// Resets what is connected.
    pub fn cut(&self) {
        self.control.send_modify(|control| control.cuts += 1);
    }

    /// Open again. What was swallowed is gone, so connections that lost something are reset.
    pub fn heal(&self) {
        self.control.send_modify(|control| {
            control.cuts += u64::from(!matches!(control.mode, Mode::Open | Mode::Slow(_)));
            control.mode = Mode::Open;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn listen(listener: TcpListener, targets: Arc<[SocketAddr]>, control: watch::Receiver<Control>) {
    let mut next = 0;
    loop {
        // Out of file descriptors, say: the next may work.
        let Ok((client, _)) = listener.accept().await else { continue };
        next += 1;
        tokio::spawn(connection(client, targets.clone(), next, control.clone()));
    }
}

async fn connection(
    mut client: TcpStream,
    targets: Arc<[SocketAddr]>,
    first: usize,
    control: watch::Receiver<Control>,
) {
    let Control { mode, cuts } = *control.borrow();
    let _ = client.set_nodelay(true);
    let mut until_cut = control.clone();
    let cut = async move {
        let _ = until_cut.wait_for(|control| control.cuts > cuts).await;
    };
    tokio::select! {
        ended = carry(mode, &mut client, &targets, first, &control) => if ended.is_err() {
            let _ = client.set_zero_linger();
        },
        () = cut => {
            // Without lingering, closing the socket sends RST instead of FIN.
            let _ = client.set_zero_linger();
        }
    }
}

async fn carry(
    mode: Mode,
    client: &mut TcpStream,
    targets: &[SocketAddr],
    first: usize,
    control: &watch::Receiver<Control>,
) -> std::io::Result<()> {
    match mode {
        Mode::Refuse => return Err(std::io::ErrorKind::ConnectionRefused.into()),
        // It is taken by the kernel, and never heard of again.
        Mode::Silent => std::future::pending().await,
        Mode::Open | Mode::Slow(_) | Mode::AnswersLost => {}
    }
    let mut server = connect(targets, first).await?;
    let _ = server.set_nodelay(true);
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    let carried = tokio::try_join!(
        pump(client_reads, server_writes, control, |mode| mode == Mode::Silent),
        pump(server_reads, client_writes, control, |mode| matches!(mode, Mode::Silent | Mode::AnswersLost)),
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
    Err(std::io::ErrorKind::ConnectionRefused.into())
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    control: &watch::Receiver<Control>,
    swallows: impl Fn(Mode) -> bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        let mode = control.borrow().mode;
        if let Mode::Slow(late) = mode {
            sleep(late).await;
        }
        match length {
            // The end is news as well.
            0 if swallows(mode) => std::future::pending().await,
            0 => return to.shutdown().await,
            _ if swallows(mode) => {}
            _ => to.write_all(&buffer[..length]).await?,
        }
    }
}
