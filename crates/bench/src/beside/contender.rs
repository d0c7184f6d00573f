//! One program that can do the work, with everything it needs: started, killed, asked.
//!
//! Each starts with the durability it comes with, Redis with `appendfsync always`; nothing is made
//! faster at the price of a promise. Stores and ports are its own, on loopback.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::load::Dialect;
use crate::node::{Node, Setup};
use crate::usage::families;

/// Attempts at once, of everybody.
pub const CONCURRENCY: u32 = 256;

const START_LIMIT: Duration = Duration::from_mins(1);

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Ringback,
    Restate,
    Bullmq,
    Graphile,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Ringback, Self::Restate, Self::Bullmq, Self::Graphile];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ringback => "Ringback",
            Self::Restate => "Restate",
            Self::Bullmq => "BullMQ",
            Self::Graphile => "graphile-worker",
        }
    }

    /// What is on disk when the caller has its answer.
    #[must_use]
    pub fn durability(self) -> &'static str {
        match self {
            Self::Ringback => "the task, sealed, in SQLite's WAL; `fdatasync` before the answer",
            Self::Restate => "the invocation in the log server's RocksDB WAL, default settings: synced",
            Self::Bullmq => "the job in Redis's append-only file, `appendfsync always` (not Redis's default)",
            Self::Graphile => {
                "the job's row in PostgreSQL's WAL, stock settings: `fsync` and `synchronous_commit` on"
            }
        }
    }
}

/// Where the programs are.
pub struct Programs {
    pub ringback: PathBuf,
    /// The directory with `node_modules` and the services.
    pub services: PathBuf,
    pub node: PathBuf,
    pub restate: PathBuf,
    pub redis: PathBuf,
    /// The directory with `initdb` and `postgres`.
    pub postgres: PathBuf,
}

/// A contender with a place of its own; what it stores outlives its processes.
pub struct Contender<'a> {
    pub kind: Kind,
    programs: &'a Programs,
    dir: PathBuf,
    upstream: SocketAddr,
    store: SocketAddr,
    /// Where calls go.
    pub front: SocketAddr,
    admin: SocketAddr,
    /// Where Restate finds the handlers: a task stays with the address it began at.
    service: SocketAddr,
    node: Option<Node>,
    processes: Vec<Child>,
}

impl<'a> Contender<'a> {
    /// In a directory of its own below `place`, which others may enter.
    ///
    /// # Errors
    /// The directory or its store cannot be made, or no port is free.
    pub fn new(
        kind: Kind,
        programs: &'a Programs,
        place: &Path,
        upstream: SocketAddr,
    ) -> anyhow::Result<Self> {
        let dir = place.join(kind.name());
        fs::create_dir_all(&dir)?;
        let [store, front, admin, service] = free_addresses()?;
        let contender = Self {
            kind,
            programs,
            dir,
            upstream,
            store,
            front,
            admin,
            service,
            node: None,
            processes: Vec::new(),
        };
        if kind == Kind::Graphile {
            contender.init_postgres()?;
        }
        Ok(contender)
    }

    #[must_use]
    pub fn dialect(&self) -> Dialect {
        let upstream = self.upstream;
        match self.kind {
            Kind::Ringback => Dialect::Ringback,
            Kind::Restate => Dialect::Restate { upstream },
            Kind::Bullmq | Kind::Graphile => Dialect::Queue { upstream },
        }
    }

    /// Starts everything and waits until calls are taken.
    ///
    /// # Errors
    /// They are not.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let started = match self.kind {
            Kind::Ringback => self.start_ringback(),
            Kind::Restate => self.start_restate(),
            Kind::Bullmq => self.start_redis().and_then(|()| self.start_queue("bullmq")),
            Kind::Graphile => self.start_postgres().and_then(|()| self.start_queue("graphile")),
        };
        started.with_context(|| {
            format!("{} does not start; its logs are in {}", self.kind.name(), self.dir.display())
        })
    }

    fn start_ringback(&mut self) -> anyhow::Result<()> {
        let setup = Setup::new(&self.programs.ringback, &self.dir, self.upstream, CONCURRENCY);
        let node = setup.start()?;
        self.front = node.gateway;
        self.node = Some(node);
        Ok(())
    }

    fn start_restate(&mut self) -> anyhow::Result<()> {
        let service = self.service;
        let mut handlers = self.service();
        handlers.arg("restate.mjs").arg(service.port().to_string());
        self.spawn(handlers, "service")?;
        wait_for("the service", || listens(service))?;
        let mut server = Command::new(&self.programs.restate);
        let data = self.dir.join("data");
        server.current_dir(&self.dir).env("RESTATE_BASE_DIR", data).env("RESTATE_DISABLE_TELEMETRY", "true");
        server.env("RESTATE_LISTEN_MODE", "tcp").env("RESTATE_BIND_IP", "127.0.0.1");
        server.env("RESTATE_LOG_FILTER", "warn").env("RESTATE_BIND_PORT", self.store.port().to_string());
        server.env("RESTATE_INGRESS__BIND_PORT", self.front.port().to_string());
        server.env("RESTATE_ADMIN__BIND_PORT", self.admin.port().to_string());
        self.spawn(server, "server")?;
        let body = format!("{{\"uri\":\"http://{service}\",\"force\":true}}");
        let admin = self.admin;
        wait_for("the deployment", || {
            ask(admin, "POST", "/deployments", &body).is_ok_and(|(status, _)| status < 300)
        })?;
        // After a restart the partitions take their time to find a leader.
        let front = self.front;
        wait_for("a first answer", || {
            ask(front, "POST", "/tasks/nothing", "{}").is_ok_and(|(status, _)| status == 404)
        })
    }

    fn start_redis(&mut self) -> anyhow::Result<()> {
        let mut redis = Command::new(&self.programs.redis);
        redis.args(["--port", &self.store.port().to_string(), "--bind", "127.0.0.1", "--dir"]).arg(&self.dir);
        redis.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        redis.args(["--maxmemory-policy", "noeviction"]);
        self.spawn(redis, "redis")?;
        let store = self.store;
        wait_for("Redis", || {
            // It says LOADING until its file is read.
            exchange(store, b"PING\r\nQUIT\r\n").is_ok_and(|answer| answer.starts_with("+PONG"))
        })
    }

    fn init_postgres(&self) -> anyhow::Result<()> {
        let data = self.dir.join("data");
        fs::create_dir_all(&data)?;
        if let Some(user) = postgres_user()? {
            std::os::unix::fs::chown(&data, Some(user), None)?;
        }
        let mut init = self.postgres("initdb")?;
        init.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"]);
        let made = init.stdout(Stdio::null()).status()?;
        ensure!(made.success(), "initdb failed");
        let mut config = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"))?;
        // Where it listens; everything that matters for durability and speed stays as it comes.
        writeln!(
            config,
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''",
            self.store.port()
        )?;
        Ok(())
    }

    fn start_postgres(&mut self) -> anyhow::Result<()> {
        let mut server = self.postgres("postgres")?;
        server.arg("-D").arg(self.dir.join("data"));
        self.spawn(server, "postgres")?;
        let log = self.dir.join("postgres.log");
        wait_for("PostgreSQL", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("ready to accept connections"))
        })
    }

    /// One of its programs, as a user it accepts: it refuses to run as root.
    fn postgres(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.programs.postgres.join(program));
        command.current_dir("/");
        if let Some(user) = postgres_user()? {
            command.uid(user).gid(id_of("-g", "postgres")?);
        }
        Ok(command)
    }

    fn start_queue(&mut self, kind: &str) -> anyhow::Result<()> {
        let (store, port) = (self.store.port().to_string(), self.front.port().to_string());
        let mut front = self.service();
        front.args(["queue.mjs", kind, "front", &store, &port]);
        self.spawn(front, "front")?;
        let front = self.front;
        wait_for("the front", || ask(front, "GET", "/left", "").is_ok_and(|(status, _)| status == 200))?;
        let mut work = self.service();
        work.args(["queue.mjs", kind, "work", &store, &CONCURRENCY.to_string()]);
        self.spawn(work, "work")
    }

    fn service(&self) -> Command {
        let mut command = Command::new(&self.programs.node);
        command.current_dir(&self.programs.services);
        command.env("NODE_ENV", "production").env("RESTATE_LOGGING", "ERROR");
        command
    }

    fn spawn(&mut self, mut command: Command, name: &str) -> anyhow::Result<()> {
        let log = File::create(self.dir.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child =
            command.spawn().with_context(|| format!("{} cannot be run", command.get_program().display()))?;
        self.processes.push(child);
        Ok(())
    }

    /// The processes that were started; their children belong to them.
    #[must_use]
    pub fn roots(&self) -> Vec<u32> {
        let node = self.node.as_ref().map(Node::pid);
        node.into_iter().chain(self.processes.iter().map(Child::id)).collect()
    }

    /// SIGKILL to every process of it at once.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let all: Vec<String> = families(&self.roots()).iter().map(u32::to_string).collect();
        if !all.is_empty() {
            // Some may have ended by the death of others.
            Command::new("kill").arg("-KILL").args(&all).stderr(Stdio::null()).status()?;
        }
        self.node = None;
        for mut process in self.processes.drain(..) {
            process.wait()?;
        }
        // Orphans are not ours to wait for, and a store starts only when they are gone.
        wait_for("the end", || all.iter().all(|pid| !Path::new("/proc").join(pid).exists()))
    }

    /// Tasks that its store still holds as unfinished, and those it gave up; `None` where it does not tell.
    #[must_use]
    pub fn left(&self) -> Option<(u64, u64)> {
        match self.kind {
            Kind::Ringback => None,
            Kind::Restate => {
                let query =
                    "{\"query\":\"SELECT count(*) AS n FROM sys_invocation WHERE status <> 'completed'\"}";
                let (_, body) = ask(self.admin, "POST", "/query", query).ok()?;
                Some((number_of(&body, "n")?, 0))
            }
            Kind::Bullmq | Kind::Graphile => {
                let (_, body) = ask(self.front, "GET", "/left", "").ok()?;
                Some((number_of(&body, "waiting")?, number_of(&body, "failed")?))
            }
        }
    }
}

impl Drop for Contender<'_> {
    fn drop(&mut self) {
        // Whatever did not work before cannot be mended here.
        let _ = self.kill();
    }
}

fn free_addresses() -> std::io::Result<[SocketAddr; 4]> {
    let [a, b, c, d] = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0"));
    Ok([a?.local_addr()?, b?.local_addr()?, c?.local_addr()?, d?.local_addr()?])
}

/// Whom to be for PostgreSQL; `None`: who we are.
fn postgres_user() -> anyhow::Result<Option<u32>> {
    let own = fs::metadata("/proc/self").map(|file| std::os::unix::fs::MetadataExt::uid(&file))?;
    if own == 0 { id_of("-u", "postgres").map(Some) } else { Ok(None) }
}

fn id_of(which: &str, user: &str) -> anyhow::Result<u32> {
    let said = Command::new("id").args([which, user]).output()?.stdout;
    String::from_utf8_lossy(&said).trim().parse().with_context(|| format!("there is no user {user}"))
}

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + START_LIMIT;
    while !is_there() {
        if Instant::now() > end {
            bail!("{what} did not come within {START_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sends a few bytes and reads until the other side is done.
fn exchange(address: SocketAddr, bytes: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(bytes)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(address, request.as_bytes())?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// The number behind `"name":`.
fn number_of(json: &str, name: &str) -> Option<u64> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
