//! `ringback sandbox`: bank, gateway and inbox in one process.

use std::net::SocketAddr;
use std::path::PathBuf;

use http::Method;
use serde_json::Value;
use tempfile::TempDir;

use super::client::{Answer, Call};
use super::eventually;
use super::node::{Task, listening, ready};
use super::process::Process;

/// A running sandbox.
pub struct Sandbox {
    process: Process,
    gateway: SocketAddr,
    admin: SocketAddr,
    bank: SocketAddr,
    inbox: SocketAddr,
    dir: Option<TempDir>,
}

/// An access token and the token that refreshes it.
#[derive(Clone)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl Sandbox {
    /// With retries after milliseconds instead of minutes.
    pub async fn start() -> Self {
        Self::configured(
            "[webhooks]\ndelays = [\"20ms\", \"20ms\", \"20ms\", \"20ms\", \"20ms\", \"20ms\"]\njitter = 0.0\n\
             [[upstreams]]\n[upstreams.retry]\ndelays = [\"20ms\", \"20ms\", \"20ms\", \"20ms\"]\njitter = 0.0\n",
        )
        .await
    }

    /// With this configuration laid over its own.
    pub async fn configured(overlay: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(dir.path().join("sandbox.toml"), overlay).expect("the directory can be written");
        Self::in_dir(dir).await
    }

    async fn in_dir(dir: TempDir) -> Self {
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (data, config) = (path("data"), path("sandbox.toml"));
        let mut args = vec!["sandbox", "--data-dir", &data, "--config", &config];
        for listener in ["--listen", "--admin-listen", "--bank-listen", "--inbox-listen"] {
            args.extend([listener, "127.0.0.1:0"]);
        }
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let mut process = Process::start(&args, &[]);
        let gateway = listening(&mut process, "gateway").await;
        let admin = listening(&mut process, "admin").await;
        let bank = listening(&mut process, "bank").await;
        let inbox = listening(&mut process, "inbox").await;
        ready(admin).await;
        Self { process, gateway, admin, bank, inbox, dir: Some(dir) }
    }

    /// Kills it and starts it again on the same data.
    pub async fn restart(mut self) -> Self {
        self.process.signal("KILL");
        self.process.ended().await;
        Self::in_dir(self.dir.take().expect("a running sandbox has its directory")).await
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.as_ref().expect("a running sandbox has its directory").path().join("data")
    }

    /// A call through the gateway.
    pub fn get(&self, target: &str, token: &str) -> Call {
        Call::new(self.gateway, Method::GET, target).bearer(token)
    }

    /// A call straight to the bank.
    pub fn bank(&self, method: Method, target: &str) -> Call {
        Call::new(self.bank, method, target)
    }

    pub fn inbox(&self, target: &str) -> Call {
        Call::new(self.inbox, Method::GET, target)
    }

    /// A text that is written for the sandbox's usual ports, for this sandbox.
    pub fn place(&self, text: &str) -> String {
        let usual = [(8080, self.gateway), (8081, self.admin), (8090, self.bank), (8091, self.inbox)];
        usual.iter().fold(text.to_owned(), |text, (port, address)| {
            text.replace(&format!("127.0.0.1:{port}"), &address.to_string())
        })
    }

    pub fn inbox_uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.inbox)
    }

    /// Answer of the bank's token endpoint to this form.
    pub async fn token_answer(&self, form: &str) -> Answer {
        self.bank(Method::POST, "/connect/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_owned())
            .send()
            .await
    }

    /// Tokens of a mock user.
    pub async fn tokens(&self, user: &str) -> Tokens {
        let form = format!(
            "grant_type=authorization_code&client_id=demo&client_secret=demo&redirect_uri=http%3A%2F%2Flocalhost&code={user}"
        );
        Tokens::from(&self.token_answer(&form).await)
    }

    pub async fn refreshed(&self, tokens: &Tokens) -> Tokens {
        let form = format!(
            "grant_type=refresh_token&client_id=demo&client_secret=demo&refresh_token={}",
            tokens.refresh
        );
        Tokens::from(&self.token_answer(&form).await)
    }

    pub async fn submit(&self, target: &str, token: &str) -> Task {
        Task::from(&self.get(target, token).send().await)
    }

    /// The results endpoint, called as the 202 gave it.
    pub fn results(task: &Task, token: &str) -> Call {
        Call::get(&task.results_uri).bearer(token)
    }

    pub async fn finished(&self, task: &Task, token: &str) -> Answer {
        eventually(&format!("the task {} is finished", task.id), async || {
            Some(Self::results(task, token).send().await).filter(|answer| answer.status != 202)
        })
        .await
    }

    /// What the inbox has for a task: one entry a try.
    pub async fn deliveries(&self, task: &Task) -> Vec<Value> {
        let listed = self.inbox("/deliveries").send().await.json();
        let listed = listed.as_array().or_else(|| listed["deliveries"].as_array()).cloned();
        let listed = listed.expect("the inbox lists an array");
        listed.into_iter().filter(|delivery| delivery.to_string().contains(&task.id)).collect()
    }

    pub async fn wait_for_deliveries(&self, task: &Task, count: usize) -> Vec<Value> {
        eventually("the inbox has the webhook", async || {
            Some(self.deliveries(task).await).filter(|deliveries| deliveries.len() >= count)
        })
        .await
    }

    /// The calls the bank has seen.
    pub async fn bank_calls(&self) -> Vec<Value> {
        let listed = self.bank(Method::GET, "/calls").send().await.json();
        let listed = listed.as_array().or_else(|| listed["calls"].as_array()).cloned();
        listed.expect("the bank lists its calls as an array")
    }
}

impl Tokens {
    #[track_caller]
    fn from(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let body = answer.json();
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }
}
