//! One node: `ringback serve` with a configuration and a data directory of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::Value;
use tempfile::TempDir;
use toml::Table;

use super::client::{Answer, Call};
use super::eventually;
use super::peer::Peer;
use super::process::{Ended, Process};
use super::store::{self, Rows};

/// Where the node's first upstream is found, on both sides of the gateway.
pub const PREFIX: &str = "/data/v1";

/// A node that is not running: its configuration, and the directory that outlives its runs.
pub struct Setup {
    dir: TempDir,
    config: Table,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// A running node.
pub struct Node {
    process: Process,
    gateway: SocketAddr,
    admin: SocketAddr,
    setup: Option<Setup>,
}

/// A task as its 202 named it.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: String,
    pub results_uri: String,
}

impl Setup {
    /// `upstream` under [`PREFIX`], identity `none`, short delays, webhooks to loopback.
    pub fn new(upstream: &Peer) -> Self {
        Self::of(&upstream.uri(PREFIX))
    }

    /// As [`Setup::new`], for an upstream that is only a URL.
    pub fn of(upstream_url: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut setup = Self { dir, config: Table::new(), args: Vec::new(), env: Vec::new() };
        let data_dir = setup.data_dir().display().to_string();
        setup.put("server.listen", "127.0.0.1:0");
        setup.put("server.admin_listen", "127.0.0.1:0");
        setup.put("server.data_dir", data_dir);
        setup.put("webhooks.delays", vec!["20ms"; 6]);
        setup.put("webhooks.jitter", 0.0);
        setup.put("webhooks.allow_loopback", true);
        setup.add_upstream("bank", PREFIX, upstream_url)
    }

    /// One more upstream, identity `none` and six short retries.
    pub fn add_upstream(self, name: &str, prefix: &str, url: &str) -> Self {
        let index = self.config.get("upstreams").and_then(toml::Value::as_array).map_or(0, Vec::len);
        let key = |key: &str| format!("upstreams.{index}.{key}");
        self.set(&key("name"), name)
            .set(&key("prefix"), prefix)
            .set(&key("url"), url)
            .set(&key("identity.mode"), "none")
            .set(&key("retry.delays"), vec!["20ms"; 6])
            .set(&key("retry.jitter"), 0.0)
    }

    /// Sets one configuration key, such as `upstreams.0.retry.delays`.
    pub fn set(mut self, path: &str, value: impl Into<toml::Value>) -> Self {
        self.put(path, value);
        self
    }

    fn put(&mut self, path: &str, value: impl Into<toml::Value>) {
        let mut segments: Vec<&str> = path.split('.').collect();
        let last = segments.pop().expect("a path has a last segment");
        let mut at = &mut self.config;
        let mut segments = segments.into_iter().peekable();
        while let Some(segment) = segments.next() {
            at = match segments.peek().and_then(|next| next.parse::<usize>().ok()) {
                None => {
                    let table = at.entry(segment).or_insert_with(|| Table::new().into());
                    table.as_table_mut().expect("a section is a table")
                }
                Some(index) => {
                    segments.next();
                    let array = at.entry(segment).or_insert_with(|| toml::Value::Array(Vec::new()));
                    let array = array.as_array_mut().expect("a numbered section is an array");
                    array.resize_with(array.len().max(index + 1), || Table::new().into());
                    array[index].as_table_mut().expect("a section is a table")
                }
            };
        }
        at.insert(last.to_owned(), value.into());
    }

    /// A further command-line argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A file beside the data directory.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).expect("the temporary directory can be written");
        path
    }

    pub fn config_file(&self) -> PathBuf {
        self.write("ringback.toml", &self.config.to_string())
    }

    /// Starts the process without waiting for anything.
    pub fn spawn(&self) -> Process {
        let mut args =
            vec!["serve".to_owned(), "--config".to_owned(), self.config_file().display().to_string()];
        args.extend_from_slice(&self.args);
        Process::start(&args, &self.env)
    }

    /// Starts the node and waits until it is ready.
    pub async fn start(self) -> Node {
        let mut process = self.spawn();
        let gateway = listening(&mut process, "gateway").await;
        let admin = listening(&mut process, "admin").await;
        ready(admin).await;
        Node { process, gateway, admin, setup: Some(self) }
    }
}

/// Waits for the log line that says where a listener of the process is.
pub async fn listening(process: &mut Process, listener: &str) -> SocketAddr {
    let what = format!("the {listener} listener said where it is");
    let address = process.logged(&what, |line| {
        let fields = if line["fields"].is_object() { &line["fields"] } else { line };
        let named = fields["message"] == "listening" && fields["listener"] == listener;
        named.then(|| fields["address"].as_str().map(str::to_owned)).flatten()
    });
    address.await.parse().expect("a listener logs an address")
}

/// Waits until `/readyz` says 200.
pub async fn ready(admin: SocketAddr) {
    let ready = async || (Call::new(admin, Method::GET, "/readyz").send().await.status == 200).then_some(());
    eventually("the node is ready", ready).await;
}

impl Node {
    pub async fn start(upstream: &Peer) -> Self {
        Setup::new(upstream).start().await
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    pub fn admin(&self, path: &str) -> Call {
        Call::new(self.admin, Method::GET, path)
    }

    /// A call to the gateway; `target` is the whole path and query.
    pub fn call(&self, method: Method, target: &str) -> Call {
        Call::new(self.gateway, method, target)
    }

    /// A GET below [`PREFIX`].
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, &format!("{PREFIX}{path}"))
    }

    /// A POST below [`PREFIX`].
    pub fn post(&self, path: &str) -> Call {
        self.call(Method::POST, &format!("{PREFIX}{path}"))
    }

    /// Sends a call that must become a task.
    pub async fn submit(&self, call: Call) -> Task {
        Task::from(&call.send().await)
    }

    /// The results endpoint of a task of this node, wherever the node listens now.
    pub fn results(&self, task: &Task) -> Call {
        self.call(Method::GET, task.path())
    }

    /// Waits for the end of a task; the answer of its results endpoint.
    pub async fn finished(&self, task: &Task) -> Answer {
        eventually(&format!("the task {} is finished", task.id), async || {
            Some(self.results(task).send().await).filter(|answer| answer.status != 202)
        })
        .await
    }

    /// Waits until a task has this status.
    pub async fn reaches(&self, task: &Task, status: &str) {
        eventually(&format!("the task {} is {status}", task.id), async || {
            let answer = self.results(task).send().await;
            (answer.header("ringback-status") == Some(status)).then_some(())
        })
        .await;
    }

    /// Waits for a task to be Failed and returns its results body.
    pub async fn failed(&self, task: &Task) -> Value {
        let answer = self.finished(task).await;
        assert_eq!(
            (answer.status, answer.header("ringback-status")),
            (200, Some("Failed")),
            "{:?}",
            answer.body
        );
        answer.json()
    }

    pub fn rows(&self) -> Rows {
        store::rows(&self.data_dir())
    }

    pub fn data_dir(&self) -> PathBuf {
        self.setup.as_ref().expect("a running node has its setup").data_dir()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until so many webhooks were given up; the reason of the last one.
    pub async fn given_up(&self, count: usize) -> String {
        let what = format!("{count} webhooks were given up");
        let why = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            let is_it = line["message"].as_str()?.starts_with("webhook given up");
            is_it.then(|| line["task"].as_str().expect("the line names its task"));
            is_it.then(|| line["why"].as_str().map(str::to_owned)).flatten()
        };
        eventually(&what, async || self.log().lines().filter_map(why).nth(count - 1)).await
    }

    /// The most memory the process ever had resident, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(Path::new("/proc").join(self.process.pid().to_string()).join("status"));
        let status = status.expect("a running process has a status file");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel counts it");
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of kB");
        kilobytes * 1024
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills the node without warning; the setup can start again on the same data.
    pub async fn kill9(mut self) -> Setup {
        self.process.signal("KILL");
        self.process.ended().await;
        self.setup.take().expect("a running node has its setup")
    }

    /// Asks the node to stop and waits for its end.
    pub async fn terminate(mut self) -> (Setup, Ended) {
        self.process.signal("TERM");
        let ended = self.process.ended().await;
        (self.setup.take().expect("a running node has its setup"), ended)
    }
}

impl Task {
    /// The task in a 202; anything else fails the test.
    #[track_caller]
    pub fn from(answer: &Answer) -> Self {
        assert_eq!(answer.status, 202, "{:?}", answer.body);
        if answer.body.is_empty() {
            // The answer to a HEAD call names the task in its headers alone.
            let header = |name| answer.header(name).expect("the 202 names the task").to_owned();
            return Self { id: header("ringback-task"), results_uri: header("location") };
        }
        let body = answer.json();
        let text = |key: &str| body[key].as_str().expect("the 202 names the task").to_owned();
        Self { id: text("task_id"), results_uri: text("results_uri") }
    }

    /// The path of the results URI.
    pub fn path(&self) -> &str {
        let authority = self.results_uri.find("://").expect("an absolute URI") + 3;
        let path = self.results_uri[authority..].find('/').expect("a URI with a path");
        &self.results_uri[authority + path..]
    }
}
