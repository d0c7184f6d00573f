//! The node as a child process: its configuration, its start, its death.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use webhook_signature::{PublicKey, SharedSecret};

use crate::usage::Usage;
use crate::wire::text_of;

/// A node with a million tasks queued still starts within this.
const START_LIMIT: Duration = Duration::from_mins(1);

/// A node that is not running.
pub struct Setup {
    pub program: PathBuf,
    /// Outlives the runs of the node.
    pub dir: PathBuf,
    pub upstream: SocketAddr,
    /// Attempts at once, and deliveries at once.
    pub concurrency: u32,
    /// Further lines of `[server]`.
    pub server: String,
    /// Further lines for `[upstreams.retry]` and `[webhooks]`.
    pub retry: String,
    pub webhooks: String,
    /// Lines of `[retention]`.
    pub retention: String,
    /// Further tables of the configuration.
    pub further: String,
}

/// A running node.
pub struct Node {
    child: Child,
    pub gateway: SocketAddr,
    pub admin: SocketAddr,
}

impl Setup {
    /// With nothing further: `concurrency` attempts at once, and as many deliveries.
    #[must_use]
    pub fn new(program: &Path, dir: &Path, upstream: SocketAddr, concurrency: u32) -> Self {
        Self {
            program: program.to_owned(),
            dir: dir.to_owned(),
            upstream,
            concurrency,
            server: String::new(),
            retry: String::new(),
            webhooks: String::new(),
            retention: String::new(),
            further: String::new(),
        }
    }

    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.dir.join("data").join("ringback.db")
    }

    /// Starts the node and waits until it listens.
    ///
    /// # Errors
    /// It does not.
    pub fn start(&self) -> anyhow::Result<Node> {
        let config = self.dir.join("ringback.toml");
        fs::write(&config, self.config())?;
        let log = self.dir.join("node.log");
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RINGBACK_") {
                command.env_remove(name);
            }
        }
        command.arg("serve").arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut child =
            command.spawn().with_context(|| format!("{} does not start", self.program.display()))?;
        match wait_for_addresses(&mut child, &log) {
            Ok((gateway, admin)) => Ok(Node { child, gateway, admin }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    fn config(&self) -> String {
        let Self { upstream, concurrency, server, retry, webhooks, retention, further, .. } = self;
        let data_dir = self.dir.join("data").display().to_string();
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\ndata_dir = {data_dir:?}\n\
             max_queued_tasks = 20000000\nmax_queued_per_credentials = 20000000\nmax_body_bytes = \"1MB\"\n\
             {server}\n[[upstreams]]\nname = \"bench\"\nprefix = \"/bench\"\nurl = \"http://{upstream}/bench\"\n\
             concurrency = {concurrency}\nmax_result_bytes = \"1MB\"\n[upstreams.retry]\n{retry}\n\
             [webhooks]\nallow_loopback = true\nconcurrency = {concurrency}\nper_host_concurrency = {concurrency}\n\
             {webhooks}\n[retention]\n{retention}\n{further}\n"
        )
    }

    /// What receivers verify webhooks with: the secret and the public key.
    ///
    /// # Errors
    /// The node has not made them yet, or does not tell.
    pub fn signers(&self) -> anyhow::Result<(SharedSecret, PublicKey)> {
        let mut command = Command::new(&self.program);
        command.args(["keys", "show", "webhook", "--data-dir"]).arg(self.dir.join("data"));
        let said = String::from_utf8(command.output()?.stdout)?;
        let word = |start: &str| {
            let mut words = said.split_whitespace();
            words.find(|word| word.starts_with(start)).context("the node shows no keys for receivers")
        };
        let secret = SharedSecret::parse(word("whsec_")?)?;
        Ok((secret, PublicKey::parse(word("whpk_")?)?))
    }

    /// The end of the log, for a person.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.join("node.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

fn wait_for_addresses(child: &mut Child, log: &Path) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let end = Instant::now() + START_LIMIT;
    while Instant::now() < end {
        let lines = fs::read_to_string(log).unwrap_or_default();
        let address = |name: &str| {
            let line = lines.lines().find(|line| text_of(line.as_bytes(), "listener") == Some(name))?;
            text_of(line.as_bytes(), "address")?.parse().ok()
        };
        if let (Some(gateway), Some(admin)) = (address("gateway"), address("admin")) {
            return Ok((gateway, admin));
        }
        if let Some(status) = child.try_wait()? {
            bail!("the node ended ({status}):\n{lines}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("the node does not listen after {START_LIMIT:?}")
}

impl Node {
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::of(self.pid())
    }

    /// Commits so far, each of which syncs once.
    #[must_use]
    pub fn commits(&self) -> u64 {
        sample(&scrape(self.admin).unwrap_or_default(), "ringback_commit_seconds_count")
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn stop(mut self) -> std::io::Result<()> {
        Command::new("kill").args(["-s", "TERM", &self.pid().to_string()]).status()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `/metrics` says.
///
/// # Errors
/// The node does not answer.
pub fn scrape(admin: SocketAddr) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(admin)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// One count of `/metrics`, by its name and labels as written; 0 where it is not there.
#[must_use]
pub fn sample(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// The node's program: the one named, or the one beside this program.
///
/// # Errors
/// There is none.
pub fn program(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let program = match named {
        Some(named) => named,
        None => std::env::current_exe()?.with_file_name("ringback"),
    };
    if !program.is_file() {
        bail!("{} is not there; build it with: cargo build --release", program.display());
    }
    Ok(program)
}
