//! A lean HTTP/1.1 server on a thread of its own: the upstream and the receiver.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::ledger::{Ledger, task_of};
use crate::wire::{Call, Wire, text_of};
use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::sleep;
use webhook_signature::{Claim, PublicKey, SharedSecret, TOLERANCE_SECONDS, Verifier};

/// As large as an account statement's first page.
const ANSWER_BYTES: usize = 2048;

/// Nobody else says this.
pub const FILLER: &str = "xxxxxxxxxxxxxxxx";

/// Whoever may sign what the receiver gets; once each.
#[derive(Default)]
pub struct Signers(OnceLock<[Verifier; 2]>);

impl Signers {
    /// From now on every webhook must carry both: a `v1` signature with this secret, `v1a` by this key.
    pub fn set(&self, secret: SharedSecret, key: PublicKey) {
        // A node has one pair; a second call says the same.
        let _ = self.0.set([Verifier::new().with_secret(secret), Verifier::new().with_key(key)]);
    }

    /// `None`: nobody asked.
    fn know(&self, call: &Call<'_>) -> Option<bool> {
        let verifiers = self.0.get()?;
        let (Some(id), Some(timestamp), Some(signatures)) =
            (call.webhook_id, call.webhook_timestamp, call.webhook_signature)
        else {
            return Some(false);
        };
        let claim = Claim { id, timestamp, signatures };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let now = i64::try_from(now).unwrap_or(0);
        let is_good =
            |verifier: &Verifier| verifier.verify(&claim, call.body, now, TOLERANCE_SECONDS).is_ok();
        Some(verifiers.iter().all(is_good))
    }
}

/// After so many tries of one task its peers behave: every task can end well.
const TROUBLE_MAX: u32 = 3;

/// How long the upstream takes to answer, and how unreliable both peers are. Can change at any time.
#[derive(Default)]
pub struct Manners {
    delay_micros: AtomicU64,
    /// Of 1,000 calls, so many are answered 503; as many again break off without an answer.
    trouble: AtomicU64,
    /// When the upstream was first called since [`Manners::watch`], in microseconds of the ledger.
    first_call: AtomicU64,
    pub signers: Signers,
    /// Webhooks whose signatures were good, and whose were not. Neither is counted without signers.
    pub genuine: AtomicU64,
    pub forged: AtomicU64,
}

impl Manners {
    pub fn set_delay(&self, delay: Duration) {
        self.delay_micros.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn set_trouble(&self, of_a_thousand: u64) {
        self.trouble.store(of_a_thousand, Ordering::Relaxed);
    }

    /// Forgets the first call.
    pub fn watch(&self) {
        self.first_call.store(0, Ordering::Relaxed);
    }

    /// `None`: not called yet.
    #[must_use]
    pub fn first_call(&self) -> Option<u64> {
        Some(self.first_call.load(Ordering::Relaxed)).filter(|&at| at > 0)
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(self.delay_micros.load(Ordering::Relaxed))
    }
}

/// Upstream and receiver.
pub struct Peers {
    pub upstream: SocketAddr,
    pub receiver: SocketAddr,
    pub manners: Arc<Manners>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Upstream,
    Receiver,
}

enum Verdict {
    Well,
    Unavailable,
    Cut,
}

struct Server {
    role: Role,
    ledger: Arc<Ledger>,
    manners: Arc<Manners>,
    well: Vec<u8>,
}

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

impl Peers {
    /// Starts both on one thread.
    ///
    /// # Errors
    /// No port or no thread is to be had.
    pub fn start(ledger: &Arc<Ledger>) -> anyhow::Result<Self> {
        let manners = Arc::new(Manners::default());
        let bind = || -> std::io::Result<_> {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (upstream_listener, upstream) = bind().context("no port for the upstream")?;
        let (receiver_listener, receiver) = bind().context("no port for the receiver")?;
        let server = |role, well| {
            Arc::new(Server { role, ledger: Arc::clone(ledger), manners: Arc::clone(&manners), well })
        };
        let upstream_server = server(Role::Upstream, answer());
        let receiver_server = server(Role::Receiver, b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("peers".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::join!(
                    serve(upstream_listener, upstream_server),
                    serve(receiver_listener, receiver_server)
                )
            })
        })?;
        Ok(Self { upstream, receiver, manners })
    }
}

/// What the upstream says when all is well.
#[must_use]
pub fn answer_body() -> String {
    format!("{{\"filler\":\"{}\"}}", "x".repeat(ANSWER_BYTES - 13))
}

fn answer() -> Vec<u8> {
    let body = answer_body();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn serve(listener: std::net::TcpListener, server: Arc<Server>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                // A connection that breaks is the node's business; the ledger shows what came of it.
                let _ = server.attend(Wire::new(stream)).await;
            });
        }
    }
}

impl Server {
    async fn attend(&self, mut wire: Wire) -> std::io::Result<()> {
        while let Some(call) = wire.call().await? {
            let verdict = self.verdict(&call);
            if self.role == Role::Upstream {
                let delay = self.manners.delay();
                if delay > Duration::ZERO {
                    sleep(delay).await;
                }
            }
            match verdict {
                Verdict::Well => wire.stream.write_all(&self.well).await?,
                Verdict::Unavailable => wire.stream.write_all(UNAVAILABLE).await?,
                Verdict::Cut => return Ok(()),
            }
        }
        Ok(())
    }

    fn verdict(&self, call: &Call<'_>) -> Verdict {
        let Some(number) = call.number else { return Verdict::Unavailable };
        let mut verdict = self.trouble();
        match self.role {
            Role::Upstream => {
                self.ledger.upstream_called(number, |calls| {
                    // 503 would allow another call of an unsafe one; here none may come.
                    if calls > TROUBLE_MAX || call.is_post && matches!(verdict, Verdict::Unavailable) {
                        verdict = Verdict::Well;
                    }
                    matches!(verdict, Verdict::Well)
                });
                let first = &self.manners.first_call;
                if first.load(Ordering::Relaxed) == 0 {
                    first.store(self.ledger.now(), Ordering::Relaxed);
                }
            }
            Role::Receiver => {
                match self.manners.signers.know(call) {
                    Some(true) => self.manners.genuine.fetch_add(1, Ordering::Relaxed),
                    Some(false) => self.manners.forged.fetch_add(1, Ordering::Relaxed),
                    None => 0,
                };
                let task = text_of(call.body, "task_id")
                    .filter(|_| text_of(call.body, "task_id") == call.webhook_id);
                let task = task.map(task_of);
                let succeeded = text_of(call.body, "status") == Some("Succeeded");
                let tries = self.ledger.announced(number, task, succeeded, |tries| {
                    tries > TROUBLE_MAX || matches!(verdict, Verdict::Well)
                });
                if tries > TROUBLE_MAX {
                    verdict = Verdict::Well;
                }
            }
        }
        verdict
    }

    fn trouble(&self) -> Verdict {
        let trouble = self.manners.trouble.load(Ordering::Relaxed);
        if trouble == 0 {
            return Verdict::Well;
        }
        match rand::random_range(0..1000) {
            dice if dice < trouble => Verdict::Unavailable,
            dice if dice < 2 * trouble => Verdict::Cut,
            _ => Verdict::Well,
        }
    }
}
