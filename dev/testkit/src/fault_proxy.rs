//! A TCP proxy that can be told to misbehave: what stands between a test and a service whose network must fail.
//!
//! It knows bytes only. It runs on a thread of its own, so a test without an async runtime can hold it, and keeps its
//! port for its whole life, also while it refuses connections.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{Result, error::Doing, eventually};

const BACKLOG: u32 = 128;
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks in flight in one direction of a connection: with [`CHUNK_BYTES`], what a slow or broken way can hold.
const CHUNKS_MAX: usize = 64;
const SWITCH_BOUND: Duration = Duration::from_secs(10);
const REBIND_EVERY: Duration = Duration::from_millis(20);

/// What the proxy does with connections and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// Bytes go through.
    Pass,
    /// Connections are accepted and stay open, and nothing goes through in either direction. As with a network that
    /// drops packets and then heals, what was sent meanwhile arrives once the mode changes.
    BlackHole,
    /// Connections are cut, and new ones are refused as by a machine on which nobody listens.
    Refuse,
    /// Bytes go through, each this much later, in each direction.
    Delay(Duration),
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: ProxyMode,
    target: Option<SocketAddr>,
    cuts: u64,
    version: u64,
}

impl State {
    fn forwards(&self) -> bool {
        self.target.is_some() && matches!(self.mode, ProxyMode::Pass | ProxyMode::Delay(_))
    }
}

/// A running proxy in front of one address. Dropped, it cuts its connections and frees its port.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    state: Option<watch::Sender<State>>,
    applied: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts a proxy on a free port, in mode [`ProxyMode::Pass`]. Connections wait until
    /// [`FaultProxy::forward_to`] has said where they go.
    ///
    /// # Errors
    /// When there is no port or no thread to be had.
    pub fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing(|| "making a fault proxy's runtime".into())?;
        let (reserved, address) = {
            let _in_runtime = runtime.enter();
            reserve_port().doing(|| "finding a port for a fault proxy".into())?
        };
        let (state, watched) =
            watch::channel(State { mode: ProxyMode::Pass, target: None, cuts: 0, version: 0 });
        let applied = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new()
            .name(format!("fault-proxy-{}", address.port()))
            .spawn({
                let applied = Arc::clone(&applied);
                move || {
                    runtime.block_on(serve(address, watched, &applied));
                    drop(reserved);
                }
            })
            .doing(|| "starting a fault proxy's thread".into())?;
        let proxy = FaultProxy { address, state: Some(state), applied, thread: Some(thread) };
        proxy.change(|_| ())?;
        Ok(proxy)
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says where connections go from now on; those that stand stay where they are.
    ///
    /// # Errors
    /// When the proxy's thread does not follow.
    pub fn forward_to(&self, target: SocketAddr) -> Result<()> {
        self.change(|state| state.target = Some(target))
    }

    /// Changes the mode, for the connections that stand and for new ones. It holds when this returns.
    ///
    /// # Errors
    /// When the proxy's thread does not follow.
    pub fn set(&self, mode: ProxyMode) -> Result<()> {
        self.change(|state| state.mode = mode)
    }

    /// Cuts all connections now, whatever the mode. New ones are treated as the mode says.
    ///
    /// # Errors
    /// When the proxy's thread does not follow.
    pub fn cut(&self) -> Result<()> {
        self.change(|state| state.cuts += 1)
    }

    fn change(&self, with: impl FnOnce(&mut State)) -> Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut version = 0;
        state.send_modify(|state| {
            with(state);
            state.version += 1;
            version = state.version;
        });
        let followed = || (self.applied.load(Ordering::SeqCst) >= version).then_some(());
        eventually(SWITCH_BOUND, "the fault proxy to follow", followed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.state = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket that is bound and never listens: it keeps the port ours while the proxy refuses connections.
fn reserve_port() -> std::io::Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Follows the state until its sender is gone: listens unless the mode refuses, and relays what it accepts.
async fn serve(address: SocketAddr, mut state: watch::Receiver<State>, applied: &AtomicU64) {
    let mut listener = None;
    loop {
        let now = *state.borrow_and_update();
        if now.mode == ProxyMode::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener =
                listen(address).inspect_err(|error| eprintln!("fault proxy on {address}: {error}")).ok();
            if listener.is_none() {
                tokio::time::sleep(REBIND_EVERY).await;
                continue;
            }
        }
        applied.store(now.version, Ordering::SeqCst);
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() { return },
            accepted = accepted => if let Ok((client, _)) = accepted {
                tokio::spawn(relay(client, now.cuts, state.clone()));
            },
        }
    }
}

/// Carries one connection until it ends at both sides or is cut.
async fn relay(client: TcpStream, cuts: u64, state: watch::Receiver<State>) {
    let mut cut = state.clone();
    tokio::select! {
        biased;
        _ = cut.wait_for(|state| state.cuts > cuts || state.mode == ProxyMode::Refuse) => {}
        _ = carry(client, state) => {}
    }
}

async fn carry(client: TcpStream, mut state: watch::Receiver<State>) -> Option<()> {
    let target = state.wait_for(State::forwards).await.ok()?.target?;
    let server = TcpStream::connect(target).await.ok()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true).ok()?;
    }
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    tokio::join!(pump(client_reads, server_writes, state.clone()), pump(server_reads, client_writes, state));
    Some(())
}

/// One direction: reads ahead, up to a bound, and writes each chunk when its time has come and the mode lets it through.
async fn pump<R, W>(mut from: R, mut to: W, mut state: watch::Receiver<State>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let mode = state.clone();
    let reads = async move {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = from.read(&mut chunk).await.unwrap_or(0);
            let delay = match mode.borrow().mode {
                ProxyMode::Delay(delay) => delay,
                _ => Duration::ZERO,
            };
            chunk.truncate(read);
            if send.send((Instant::now() + delay, chunk)).await.is_err() || read == 0 {
                return;
            }
        }
    };
    let writes = async move {
        while let Some((due, chunk)) = receive.recv().await {
            sleep_until(due).await;
            if state.wait_for(State::forwards).await.is_err() {
                return;
            }
            // An empty chunk is the end of this direction.
            let written = if chunk.is_empty() { to.shutdown().await } else { to.write_all(&chunk).await };
            if chunk.is_empty() || written.is_err() {
                return;
            }
        }
    };
    tokio::join!(reads, writes);
}
