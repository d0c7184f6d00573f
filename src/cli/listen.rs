//! `ringback listen`: a receiver for development. Prints each webhook as it comes, and can pass it on to
//! a program that is being written, or fetch its result.
//!
//! Whoever reaches it can send it anything: what is printed is made harmless first, and the token goes
//! only to this machine or to the gateway the person named, never where a webhook says. Where keys are
//! named, a webhook without their signature is shown and refused: neither passed on nor followed.

mod report;
mod trust;
pub mod webhook;

use std::env;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use clap::Args;
use http_body_util::BodyExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::remote::{Address, Remote, RemoteError, TOKEN_VARIABLE, authorization, query_value};
use super::screen::{colours_wanted, printable};
use super::{CommandError, print};
use crate::client::{empty_body, full_body};
use crate::clock::Clock;
use crate::service;
pub use trust::TrustError;

use report::{Fetched, Forwarded, Report};
use trust::{SECRET_VARIABLE, Trust};
use webhook::{Seen, Webhook};

/// Ringback's webhooks are far smaller.
const WEBHOOK_BYTES: usize = 256 * 1024;

/// As much of a result as is fetched for a look.
const LOOK_BYTES: usize = 64 * 1024;

/// A program being written answers, or it hangs.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(30);

/// Passed on with a webhook: what a receiver needs to verify it and to drop repeats.
const PASSED_ON: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::USER_AGENT,
    HeaderName::from_static("webhook-id"),
    HeaderName::from_static("webhook-timestamp"),
    HeaderName::from_static("webhook-signature"),
];

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    ringback listen\n  \
    ringback listen --jwks http://127.0.0.1:8080/.well-known/jwks --forward http://127.0.0.1:3000/hook\n\n\
    It prints the webhook_uri to add to your calls. A gateway sends webhooks to this machine only as \
    `ringback sandbox`, with `--dev`, or with webhooks.allow_loopback = true.")]
pub struct Listen {
    /// Where webhooks arrive.
    #[arg(long = "listen", value_name = "ADDRESS", value_parser = super::address, default_value = "127.0.0.1:8092")]
    at: SocketAddr,
    /// Pass each webhook on to this URL, and answer it as that does.
    #[arg(long, value_name = "URL")]
    forward: Option<String>,
    /// Fetch each result with your access token and show its beginning.
    #[arg(long)]
    fetch: bool,
    /// The gateway's public address: with --fetch, results are got from there too, not only from this machine.
    #[arg(long, value_name = "URL", requires = "fetch")]
    gateway: Option<String>,
    /// File that holds the access token for --fetch; also `RINGBACK_TOKEN`.
    #[arg(long, value_name = "FILE", requires = "fetch")]
    token_file: Option<PathBuf>,
    /// The gateway's key set, to verify signatures with: `https://HOST/.well-known/jwks`.
    #[arg(long, value_name = "URL")]
    jwks: Option<String>,
    /// File that holds the shared secrets to verify signatures with, one `whsec_…` a line; also
    /// `RINGBACK_WEBHOOK_SECRET`.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// PEM file of the authorities to trust instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// For scripts: print one JSON object a webhook.
    #[arg(long)]
    json: bool,
}

/// What answering a webhook needs.
struct Desk {
    remote: Remote,
    trust: Trust,
    forward: Option<Address>,
    fetch: Option<Fetch>,
    seen: Seen,
    clock: Clock,
    json: bool,
    coloured: bool,
}

/// How results are fetched.
struct Fetch {
    gateway: Option<Address>,
    token: Option<HeaderValue>,
}

impl Listen {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn run(self) -> Result<(), CommandError> {
        let address = |url: &Option<String>| url.as_deref().map(Address::parse).transpose();
        let fetch = if self.fetch {
            let token = authorization(self.token_file.as_deref(), env::var(TOKEN_VARIABLE).ok())?;
            Some(Fetch { gateway: address(&self.gateway)?, token })
        } else {
            None
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let remote = Remote::new(self.ca_file.as_deref())?;
        let secret = env::var(SECRET_VARIABLE).ok();
        let trust = Trust::new(&remote, self.jwks.as_deref(), self.secret_file.as_deref(), secret);
        let desk = Desk {
            trust: runtime.block_on(trust)?,
            remote,
            forward: address(&self.forward)?,
            fetch,
            seen: Seen::default(),
            clock: Clock::start(),
            json: self.json,
            coloured: !self.json && std::io::stdout().is_terminal() && colours_wanted(),
        };
        let listener = service::bind(self.at)?;
        Ok(runtime.block_on(serve(listener, desk))?)
    }
}

async fn serve(listener: std::net::TcpListener, desk: Desk) -> std::io::Result<()> {
    let uri = format!("http://{}/", listener.local_addr()?);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    // Before the first line: whoever has read one may stop it.
    let mut interrupt = signal(SignalKind::interrupt())?;
    eprint!("listening on {uri}\nadd to a call: async=true&webhook_uri={}\n", query_value(&uri));
    if !desk.trust.verifies() {
        eprintln!("signatures are not verified: give --jwks or --secret-file");
    }
    if desk.fetch.as_ref().is_some_and(|fetch| fetch.token.is_none()) {
        eprintln!("results are fetched without a token: give --token-file or {TOKEN_VARIABLE}");
    }
    eprintln!();
    let router = Router::new().fallback(receive).with_state(Arc::new(desk));
    tokio::select! {
        served = async { axum::serve(listener, router).await } => served,
        _ = interrupt.recv() => Ok(()),
    }
}

/// Answers one webhook; the report follows when there is nothing left to wait for.
async fn receive(State(desk): State<Arc<Desk>>, request: Request) -> StatusCode {
    if request.method() != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, WEBHOOK_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE;
    };
    let webhook = match Webhook::read(&parts.headers, &body) {
        Ok(webhook) => webhook,
        Err(why) => {
            eprintln!("not a webhook of Ringback: {why}");
            return StatusCode::BAD_REQUEST;
        }
    };
    let verdict = desk.trust.judge(&desk.remote, desk.clock, &parts.headers, &body).await;
    let is_believed = verdict.is_believed();
    // A forged one must not make the true one look like a repeat.
    let again = is_believed && desk.seen.again(&webhook.id);
    let forwarded = match &desk.forward {
        Some(to) if is_believed => Some(desk.forward(to, &parts.headers, body.clone()).await),
        _ => None,
    };
    let status = if is_believed {
        forwarded.as_ref().map_or(StatusCode::NO_CONTENT, Forwarded::answer)
    } else {
        StatusCode::UNAUTHORIZED
    };
    let at = desk.clock.wall();
    // The result can be large and slow; the webhook is answered meanwhile.
    tokio::spawn(async move {
        let fetched = match &desk.fetch {
            Some(fetch) if is_believed => Some(desk.fetch(fetch, &webhook.results_uri).await),
            _ => None,
        };
        let report = Report { at, webhook, verdict, again, forwarded, fetched };
        let text = if desk.json { format!("{}\n", report.to_json()) } else { report.to_text(desk.coloured) };
        if let Err(error) = print(&text) {
            tracing::debug!(%error, "the report cannot be written");
        }
    });
    status
}

impl Desk {
    async fn forward(&self, to: &Address, received: &HeaderMap, body: Bytes) -> Forwarded {
        let mut headers = HeaderMap::new();
        for name in PASSED_ON {
            for value in received.get_all(&name) {
                headers.append(&name, value.clone());
            }
        }
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        let began = Instant::now();
        let sending = self.remote.send(Method::POST, to, headers, full_body(body));
        match tokio::time::timeout(FORWARD_TIMEOUT, sending).await {
            Ok(Ok(answer)) => Forwarded::Answered { status: answer.status(), took: began.elapsed() },
            Ok(Err(error)) => Forwarded::Failed(error.to_string()),
            Err(_) => Forwarded::Failed(String::from("no answer in 30 seconds")),
        }
    }

    async fn fetch(&self, fetch: &Fetch, results_uri: &str) -> Result<Fetched, String> {
        let address = Address::parse(results_uri).map_err(|error| error.to_string())?;
        let is_gateway = fetch.gateway.as_ref().is_some_and(|gateway| gateway.origin == address.origin);
        if !is_gateway && !address.is_loopback() {
            return Err(format!(
                "results are at {}; if that is your gateway, say --gateway with its address",
                address.origin
            ));
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = &fetch.token {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        let looking = async {
            let answer = self.remote.send(Method::GET, &address, headers, empty_body()).await?;
            let (parts, mut body) = answer.into_parts();
            let mut start = Vec::new();
            while start.len() < LOOK_BYTES
                && let Some(Ok(frame)) = body.frame().await
            {
                start.extend_from_slice(&frame.into_data().unwrap_or_default());
            }
            Ok::<_, RemoteError>(Fetched::of(parts.status, &parts.headers, &start))
        };
        match tokio::time::timeout(FORWARD_TIMEOUT, looking).await {
            Ok(looked) => looked.map_err(|error| printable(&error.to_string()).into_owned()),
            Err(_) => Err(String::from("no answer in 30 seconds")),
        }
    }
}
