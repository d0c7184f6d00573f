//! A scripted HTTP/1.1 server: the upstream of most tests, and beneath every receiver.
//!
//! It records each call exactly as it came and answers by script: a sequence of replies for a path
//! (the last one repeats), or for every path without a script of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::reply::{Reply, Step};
use super::wire::{Received, Wire};
use super::within;

/// A peer on a port of its own; it stops with the test's runtime.
#[derive(Clone)]
pub struct Peer {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
}

/// The upstream a task or a proxied call is sent to.
pub type Upstream = Peer;

struct State {
    scripts: Mutex<HashMap<String, Script>>,
    calls: watch::Sender<Vec<Arc<Received>>>,
    seen: watch::Sender<Counters>,
}

#[derive(Clone, Copy, Default)]
struct Counters {
    connections: usize,
    /// Call heads read.
    begun: usize,
    body_bytes: u64,
    /// Calls whose other side went away before the answer was sent whole.
    abandoned: usize,
    in_flight: usize,
    peak: usize,
}

struct Script {
    replies: Vec<Reply>,
    next: usize,
}

/// Bodies larger than this are counted, not kept.
const KEPT: usize = 64 << 20;

impl Peer {
    pub async fn start() -> Self {
        Self::listen("127.0.0.1:0").await
    }

    pub async fn listen(address: &str) -> Self {
        Self::on(TcpListener::bind(address).await.expect("an address of this machine can be bound"), None)
    }

    /// Serves `https` with this certificate.
    pub async fn with_tls(acceptor: TlsAcceptor) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a port is free"), Some(acceptor))
    }

    /// Serves on a socket the test has bound itself.
    pub fn on(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let state = Arc::new(State {
            scripts: Mutex::new(HashMap::new()),
            calls: watch::Sender::new(Vec::new()),
            seen: watch::Sender::new(Counters::default()),
        });
        let address = listener.local_addr().expect("a bound socket has an address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        tokio::spawn(accept(listener, tls, Arc::clone(&state)));
        Self { address, scheme, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:4711`, with `path` behind it.
    pub fn uri(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Answers calls of `path` by `replies`; the last one repeats.
    pub fn script(&self, path: &str, replies: impl Into<Vec<Reply>>) {
        let script = Script { replies: replies.into(), next: 0 };
        assert!(!script.replies.is_empty(), "a script has a reply");
        self.state.scripts.lock().expect("no test panics holding it").insert(path.to_owned(), script);
    }

    /// As [`Peer::script`], for every path without its own.
    pub fn always(&self, replies: impl Into<Vec<Reply>>) {
        self.script("*", replies);
    }

    /// The calls whose body has come whole, oldest first.
    pub fn calls(&self) -> Vec<Arc<Received>> {
        self.state.calls.borrow().clone()
    }

    /// The calls of one path.
    pub fn calls_of(&self, path: &str) -> Vec<Arc<Received>> {
        self.calls().into_iter().filter(|call| call.path() == path).collect()
    }

    /// The only call there was.
    #[track_caller]
    pub fn only_call(&self) -> Arc<Received> {
        let mut calls = self.calls();
        assert_eq!(calls.len(), 1, "not one call but {}", calls.len());
        calls.remove(0)
    }

    pub async fn wait_for_calls(&self, count: usize) -> Vec<Arc<Received>> {
        let mut calls = self.state.calls.subscribe();
        let what = format!("{} was called {count} times", self.address);
        within(&what, calls.wait_for(|calls| calls.len() >= count)).await.expect("the sender lives").clone()
    }

    /// Waits until so many calls have begun to arrive.
    pub async fn wait_for_begun(&self, count: usize) {
        self.wait("calls began", |seen| seen.begun >= count).await;
    }

    pub async fn wait_for_body_bytes(&self, count: u64) {
        self.wait("body bytes arrived", |seen| seen.body_bytes >= count).await;
    }

    /// Waits until callers have gone away from so many calls.
    pub async fn wait_for_abandoned(&self, count: usize) {
        self.wait("callers went away", |seen| seen.abandoned >= count).await;
    }

    pub fn body_bytes(&self) -> u64 {
        self.state.seen.borrow().body_bytes
    }

    pub fn in_flight(&self) -> usize {
        self.state.seen.borrow().in_flight
    }

    /// The most calls that were ever in flight together.
    pub fn peak(&self) -> usize {
        self.state.seen.borrow().peak
    }

    /// How often somebody connected.
    pub fn connections(&self) -> usize {
        self.state.seen.borrow().connections
    }

    /// Checks that nobody so much as connected.
    #[track_caller]
    pub fn saw_nobody(&self) {
        assert_eq!(self.state.seen.borrow().connections, 0, "somebody connected to {}", self.address);
    }

    async fn wait(&self, what: &str, reached: impl Fn(&Counters) -> bool) {
        let mut seen = self.state.seen.subscribe();
        within(what, seen.wait_for(|seen| reached(seen))).await.expect("the sender lives");
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (state, tls) = (Arc::clone(&state), tls.clone());
        state.seen.send_modify(|seen| seen.connections += 1);
        tokio::spawn(async move {
            // A connection that breaks is part of many tests; what matters is counted by `serve`.
            let _ = match tls {
                None => serve(stream, &state, true).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, &state, false).await,
                    Err(error) => Err(error),
                },
            };
        });
    }
}

/// A stream whose end can be made a reset.
trait Resettable {
    fn reset_on_close(&self);
}

impl Resettable for TcpStream {
    fn reset_on_close(&self) {
        self.set_zero_linger().expect("a TCP socket has the option");
    }
}

impl Resettable for tokio_rustls::server::TlsStream<TcpStream> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

async fn serve<S>(mut stream: S, state: &State, plain: bool) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Resettable + Unpin,
{
    let mut wire = Wire::new();
    while let Some(mut call) = wire.head(&mut stream).await? {
        state.seen.send_modify(|seen| {
            seen.begun += 1;
            seen.in_flight += 1;
            seen.peak = seen.peak.max(seen.in_flight);
        });
        let answered = answer(&mut stream, &mut wire, &mut call, state).await;
        state.seen.send_modify(|seen| {
            seen.in_flight -= 1;
            seen.abandoned += usize::from(matches!(answered, Err(_) | Ok(After::Abandoned)));
        });
        match answered? {
            After::Next => {}
            After::Close if plain => return stream.shutdown().await,
            // Without a closing alert a TLS connection is not ended but cut.
            After::Abandoned | After::Close => return Ok(()),
        }
    }
    Ok(())
}

enum After {
    Next,
    Close,
    Abandoned,
}

async fn answer<S>(
    stream: &mut S,
    wire: &mut Wire,
    call: &mut Received,
    state: &State,
) -> std::io::Result<After>
where
    S: AsyncRead + AsyncWrite + Resettable + Unpin,
{
    if call.header("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    wire.body(stream, call, |call, piece| {
        state.seen.send_modify(|seen| seen.body_bytes += piece.len() as u64);
        if call.body.len() + piece.len() <= KEPT {
            call.body.extend_from_slice(piece);
        }
    })
    .await?;
    let steps = state.reply_to(call.path()).into_steps(&call.method);
    let call = Arc::new(call.clone());
    state.calls.send_modify(|calls| calls.push(call));
    for step in steps {
        match step {
            Step::Send(bytes) => stream.write_all(&bytes).await?,
            Step::Zeros(count) => zeros(stream, count).await?,
            Step::Wait(gate) => tokio::select! {
                () = gate.opened() => {}
                () = wire.until_end(stream) => return Ok(After::Abandoned),
            },
            Step::Cut => return Ok(After::Close),
            Step::Reset => {
                stream.reset_on_close();
                return Ok(After::Abandoned);
            }
            Step::Echo => {
                let mut come = wire.rest();
                while !come.is_empty() || stream.read_buf(&mut come).await? > 0 {
                    stream.write_all(&come.split()).await?;
                }
                return Ok(After::Close);
            }
        }
        stream.flush().await?;
    }
    Ok(After::Next)
}

async fn zeros(stream: &mut (impl AsyncWrite + Unpin), count: u64) -> std::io::Result<()> {
    let block = Bytes::from(vec![0; 256 << 10]);
    let mut left = count;
    while left > 0 {
        let here = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        stream.write_all(&block[..here]).await?;
        left -= here as u64;
    }
    Ok(())
}

impl State {
    fn reply_to(&self, path: &str) -> Reply {
        let mut scripts = self.scripts.lock().expect("no test panics holding it");
        let name = if scripts.contains_key(path) { path } else { "*" };
        let Some(script) = scripts.get_mut(name) else {
            return Reply::json(200, r#"{"results":[],"status":"Succeeded"}"#);
        };
        let reply = script.replies[script.next].clone();
        script.next = (script.next + 1).min(script.replies.len() - 1);
        reply
    }
}
