//! The load generator: connections that call as fast as they are answered, or at a constant rate.
//!
//! At a constant rate a call is due at its own instant whatever happened to the ones before, and its
//! latency counts from that instant: a server that stalls cannot hide the calls it kept waiting.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use crate::ledger::{Ledger, task_of};
use crate::wire::{Wire, text_of};

/// As long as tokens of banks are.
const TOKEN_BYTES: usize = 800;

/// A call that is not answered within this is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is called.
#[derive(Clone)]
pub struct Target {
    pub server: SocketAddr,
    /// Who is to be rung.
    pub receiver: SocketAddr,
    dialect: Dialect,
    token: String,
}

/// How a server is asked to take a task. All say the same: call this, under this token, then ring there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// A call of its upstream with `async=true`.
    Ringback,
    /// `POST /tasks` with both addresses in JSON.
    Queue { upstream: SocketAddr },
    /// The same for a Restate handler; with an idempotency key, for only then it keeps the result.
    Restate { upstream: SocketAddr },
}

#[derive(Clone, Copy)]
pub enum Pace {
    Closed,
    Open { per_second: f64 },
}

#[derive(Clone, Copy)]
pub struct Load {
    pub connections: usize,
    pub pace: Pace,
    /// Not counted.
    pub warm_up: Duration,
    pub counted: Duration,
}

/// What the connections saw within the counted time.
#[derive(Default)]
pub struct Seen {
    pub accepted: u64,
    /// 503 and 429.
    pub refused: u64,
    /// Any other answer, and calls without one.
    pub wrong: u64,
    /// Microseconds of each 202.
    pub latencies: Vec<u32>,
}

impl Target {
    #[must_use]
    pub fn new(server: SocketAddr, receiver: SocketAddr) -> Self {
        Self { server, receiver, dialect: Dialect::Ringback, token: "t".repeat(TOKEN_BYTES) }
    }

    #[must_use]
    pub fn speaking(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// Writes call `number` as the server takes it.
    pub fn write_task(&self, out: &mut Vec<u8>, number: usize) {
        let (path, key, upstream) = match self.dialect {
            Dialect::Ringback => return self.write(out, "GET", number, ""),
            Dialect::Queue { upstream } => ("/tasks", String::new(), upstream),
            Dialect::Restate { upstream } => {
                ("/tasks/run/send", format!("Idempotency-Key: {number}\r\n"), upstream)
            }
        };
        let Self { server, receiver, token, .. } = self;
        let body = format!(
            "{{\"url\":\"http://{upstream}/bench/items/{number}\",\"webhook\":\"http://{receiver}/hook/{number}\"}}"
        );
        out.clear();
        write!(
            out,
            "POST {path} HTTP/1.1\r\nHost: {server}\r\nAuthorization: Bearer {token}\r\n{key}\
             Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("memory can be written");
    }

    /// The call that asks for the result of a task, under the same token.
    #[must_use]
    pub fn read_result(&self, task: &str) -> Vec<u8> {
        let path = match self.dialect {
            Dialect::Ringback => return read_result(task),
            Dialect::Queue { .. } => format!("/tasks/{task}"),
            Dialect::Restate { .. } => format!("/restate/invocation/{task}/output"),
        };
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.server).into_bytes()
    }

    /// Writes call `number` of Ringback.
    pub fn write(&self, out: &mut Vec<u8>, method: &str, number: usize, body: &str) {
        self.write_call(out, "bench", "", method, number, body);
    }

    /// The same with an `Idempotency-Key`, at the upstream that honours it.
    pub fn write_keyed(&self, out: &mut Vec<u8>, method: &str, number: usize, body: &str) {
        let key = format!("Idempotency-Key: call-{number}\r\n");
        self.write_call(out, "keyed", &key, method, number, body);
    }

    fn write_call(
        &self,
        out: &mut Vec<u8>,
        prefix: &str,
        key: &str,
        method: &str,
        number: usize,
        body: &str,
    ) {
        let Self { server, receiver, token, .. } = self;
        let hook = format!("http%3A%2F%2F127.0.0.1%3A{}%2Fhook%2F{number}", receiver.port());
        out.clear();
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        write!(
            out,
            "{method} /{prefix}/items/{number}?async=true&webhook_uri={hook} HTTP/1.1\r\nHost: {server}\r\n\
             Authorization: Bearer {token}\r\nAccept: application/json\r\n{key}{length}\r\n{body}"
        )
        .expect("memory can be written");
    }
}

/// Makes the load; returns when every connection has its last answer. `edge` is called at the beginning
/// and at the end of the counted time.
///
/// # Errors
/// The server cannot be connected to.
pub async fn run(
    load: Load,
    target: &Target,
    ledger: &Arc<Ledger>,
    mut edge: impl FnMut(),
) -> anyhow::Result<Seen> {
    let mut wires = Vec::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(target.server).await.context("the server takes no connection")?;
        wires.push(Wire::new(stream));
    }
    let start = Instant::now();
    let from = start + load.warm_up;
    let to = from + load.counted;
    let shared = Rc::new(Shared {
        target: target.clone(),
        ledger: Arc::clone(ledger),
        pace: load.pace,
        start,
        from,
        to,
        ticket: Cell::new(0),
        seen: RefCell::default(),
    });
    let local = LocalSet::new();
    for wire in wires {
        local.spawn_local(connection(wire, Rc::clone(&shared)));
    }
    local
        .run_until(async {
            sleep_until(from).await;
            edge();
            sleep_until(to).await;
            edge();
        })
        .await;
    local.await;
    Ok(shared.seen.take())
}

struct Shared {
    target: Target,
    ledger: Arc<Ledger>,
    pace: Pace,
    start: Instant,
    from: Instant,
    to: Instant,
    ticket: Cell<u32>,
    seen: RefCell<Seen>,
}

impl Shared {
    /// When the next call is due; `None` once the time is over.
    async fn next_due(&self) -> Option<Instant> {
        let due = match self.pace {
            Pace::Closed => Instant::now(),
            Pace::Open { per_second } => {
                let ticket = self.ticket.get();
                self.ticket.set(ticket + 1);
                self.start + Duration::from_secs_f64(f64::from(ticket) / per_second)
            }
        };
        if due >= self.to {
            return None;
        }
        if matches!(self.pace, Pace::Open { .. }) {
            if due > Instant::now() {
                sleep_until(due).await;
            } else if Instant::now() >= self.to {
                // Far behind the rate: what was due and never sent is no call.
                return None;
            }
        }
        Some(due)
    }

    fn note(&self, due: Instant, outcome: &Outcome) {
        let now = Instant::now();
        if now < self.from || now >= self.to {
            return;
        }
        let mut seen = self.seen.borrow_mut();
        match outcome {
            Outcome::Accepted => {
                seen.accepted += 1;
                let micros = now.duration_since(due).as_micros();
                seen.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
            }
            Outcome::Refused => seen.refused += 1,
            Outcome::Wrong => seen.wrong += 1,
        }
    }
}

/// The call that asks for a result, under the same token.
#[must_use]
pub fn read_result(task: &str) -> Vec<u8> {
    read_result_below("bench", task)
}

/// The same of the upstream with this prefix.
#[must_use]
pub fn read_result_below(prefix: &str, task: &str) -> Vec<u8> {
    let token = "t".repeat(TOKEN_BYTES);
    format!("GET /{prefix}/results/{task} HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {token}\r\n\r\n")
        .into_bytes()
}

enum Outcome {
    Accepted,
    Refused,
    Wrong,
}

async fn connection(mut wire: Wire, shared: Rc<Shared>) {
    let mut request = Vec::new();
    while let Some(due) = shared.next_due().await {
        let number = shared.ledger.call();
        shared.target.write_task(&mut request, number);
        let outcome = timeout(PATIENCE, exchange(&mut wire, &request)).await;
        match outcome {
            Ok(Ok((202, Some(task)))) => {
                shared.ledger.accepted(number, task);
                shared.note(due, &Outcome::Accepted);
            }
            Ok(Ok((503 | 429, _))) => shared.note(due, &Outcome::Refused),
            Ok(Ok(_)) => shared.note(due, &Outcome::Wrong),
            Ok(Err(_)) | Err(_) => {
                shared.note(due, &Outcome::Wrong);
                let Ok(stream) = TcpStream::connect(shared.target.server).await else { return };
                wire = Wire::new(stream);
            }
        }
    }
}

/// Sends a call and reads its answer: the status, and the id of the task where the answer is a whole 202.
///
/// # Errors
/// The connection broke.
pub async fn exchange(wire: &mut Wire, request: &[u8]) -> std::io::Result<(u16, Option<Uuid>)> {
    wire.stream.write_all(request).await?;
    let reply = wire.reply().await?;
    let is_taken = matches!(text_of(reply.body, "status"), Some("Queued" | "Accepted"));
    let name = text_of(reply.body, "task_id").or_else(|| text_of(reply.body, "invocationId"));
    Ok((reply.status, name.filter(|_| is_taken).map(task_of)))
}
