//! `ringback call`: makes a call asynchronously, follows its task, brings the result.
//!
//! The result goes to the standard output or a file, byte for byte, and everything else to standard
//! error. The exit code says how it ended, so that a script need not read either.

mod ask;
mod ended;
pub mod events;
mod follow;

use std::env;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use tokio::signal::unix::{SignalKind, signal};

use super::CommandError;
use super::remote::{Address, Remote, TOKEN_VARIABLE, authorization};
use super::screen::{Screen, Tone, elapsed};
use ask::Ask;
use ended::Ended;
use follow::{Follow, Task};

/// Exit code of a call whose task is Failed.
const FAILED: u8 = 3;
/// Exit code of a call that was left before its end, by `--timeout` or by the person.
const LEFT: u8 = 4;

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    RINGBACK_TOKEN=… ringback call GET http://127.0.0.1:8080/data/v1/accounts\n  \
    ringback call POST https://api.example.com/payments --token-file token -d @payment.json -o receipt.json\n\n\
    The result goes to the standard output, everything else to standard error.\n\
    Exit code: 0 Succeeded; 1 refused or not reached; 2 not understood; 3 Failed; 4 left by --timeout or \
    Ctrl-C: the task goes on.\n\
    The access token comes from --token-file or the environment variable RINGBACK_TOKEN, never from an \
    argument: everybody on this machine can read those.")]
pub struct Call {
    /// GET, POST or any other method.
    method: String,
    /// Where the gateway has the API, such as `http://127.0.0.1:8080/data/v1/accounts`.
    url: String,
    /// A header of the call; `@FILE` takes them from a file, one a line.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The body; `@FILE` takes it from a file, `@-` from the standard input. JSON is sent as JSON.
    #[arg(short, long, value_name = "BODY")]
    data: Option<String>,
    /// Where the result is saved [default: the standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where the gateway announces the result, such as what `ringback listen` prints.
    #[arg(long, value_name = "URI")]
    webhook_uri: Option<String>,
    /// File that holds the access token, alone or as `Scheme token`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the authorities to trust instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Stop waiting after this time, such as 30s or 5m; the task goes on.
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// For scripts: print one JSON object about the task and its result.
    #[arg(long)]
    json: bool,
}

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("`{0}` is not a method")]
    Method(String),
    #[error("header {0} of the command line is not one: write it as `Name: value`")]
    Header(usize),
    #[error(
        "the header {0} would show your credential to everybody on this machine; use --token-file, \
         {TOKEN_VARIABLE}, or -H @FILE"
    )]
    ExposedHeader(String),
    #[error("the URL says async=false, which makes no task; leave it out, or use another client")]
    NotAsynchronous,
    #[error(
        "`Prefer: wait` would make the gateway wait; leave it out, this command follows the task by itself"
    )]
    WaitsItself,
    #[error("refused with status {status}: {what}")]
    Refused { status: u16, what: String },
    #[error("refused: this API wants an access token; give it in --token-file or {TOKEN_VARIABLE}")]
    NoToken,
    #[error(
        "the answer, of status {0}, is not one of Ringback's; call the address of a Ringback gateway, with the \
         path that it has the API at"
    )]
    NotRingbacks(u16),
    #[error(
        "the answer names no task; call the address of a Ringback gateway, with the path that it has the API at"
    )]
    NotATask,
    #[error("the task failed: {error}\n{description}{notes}")]
    Failed { error: String, description: String, notes: String },
    #[error("not finished yet; its result will be at {0}")]
    Unfinished(String),
    #[error("left before the result was here; it is at {0}")]
    Left(String),
    #[error("the result broke off; it can be fetched again")]
    BrokenOff,
    #[error("the result is no text for a terminal; save it with -o FILE, or pipe it")]
    Binary,
    #[error("the result is larger than {0} bytes, too much for --json; save it with -o FILE")]
    TooLargeForJson(usize),
    #[error("cannot save the result to {path}: {source}")]
    Save { path: PathBuf, source: std::io::Error },
}

/// A time, with an example for whoever types only a number.
fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| String::from("write a number and a unit, such as 30s or 5m"))
}

impl CallError {
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed { .. } => FAILED,
            Self::Unfinished(_) | Self::Left(_) => LEFT,
            _ => 1,
        }
    }
}

impl Call {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn run(self) -> Result<(), CommandError> {
        let method = Method::from_bytes(self.method.to_ascii_uppercase().as_bytes());
        let method = method.map_err(|_| CallError::Method(self.method.clone()))?;
        let address = Address::parse(&self.url)?;
        let token = authorization(self.token_file.as_deref(), env::var(TOKEN_VARIABLE).ok())?;
        let body = self.data.as_deref().map(ask::body).transpose()?;
        let ask = Ask::new(method, &address, &self.headers, token, body, self.webhook_uri.as_deref())?;
        let remote = Remote::new(self.ca_file.as_deref())?;
        if let Some(path) = &self.output {
            // Better known before the call is made than when its result is here.
            ended::Part::beside(path)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.make(ask, remote))
    }

    async fn make(&self, ask: Ask, remote: Remote) -> Result<(), CommandError> {
        let mut screen = Screen::of_stderr(!self.json);
        let started = Instant::now();
        let headers = ask.results_headers();
        let task = Task::submit(&remote, ask).await?;
        // Before the first line: whoever has read one may leave, and is told where the result will be.
        let mut interrupt = signal(SignalKind::interrupt())?;
        screen.line(&format!("{} {}", screen.tone(Tone::Faint, "task   "), task.id));
        screen.line(&format!("{} {}", screen.tone(Tone::Faint, "results"), task.results_uri));

        let follow = Follow { remote: &remote, task: &task, headers, started };
        let limit = self.timeout.unwrap_or(Duration::MAX);
        let ended = tokio::select! {
            ended = tokio::time::timeout(limit, follow.to_the_end(&mut screen)) => ended.ok(),
            _ = interrupt.recv() => None,
        };
        let Some(ended) = ended else {
            screen.leave();
            if self.json {
                super::print(&format!("{}\n", task.unfinished_json(started.elapsed())))?;
            }
            return Err(CallError::Unfinished(task.results_uri.clone()).into());
        };
        let (answer, attempts) = ended?;
        tokio::select! {
            shown = self.show(&mut screen, &task, Ended::of(answer, attempts), started.elapsed()) => shown,
            _ = interrupt.recv() => Err(CallError::Left(task.results_uri.clone()).into()),
        }
    }

    async fn show(
        &self,
        screen: &mut Screen,
        task: &Task,
        ended: Ended,
        took: Duration,
    ) -> Result<(), CommandError> {
        let (tone, mark) = if ended.succeeded() { (Tone::Good, "✓") } else { (Tone::Bad, "✗") };
        let status = screen.tone(tone, &format!("{mark} {}", ended.status()));
        let facts = screen.tone(Tone::Faint, &ended.facts());
        screen.line(&format!("{status} {} {facts}", elapsed(took)));
        if self.json {
            ended.print_json(task, took, self.output.as_deref()).await
        } else {
            ended.print(self.output.as_deref()).await
        }
    }
}
