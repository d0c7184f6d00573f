//! The mock bank: its listener, and what every call shares.
//!
//! Nothing a client does changes what the bank knows: users, accounts and tokens follow from names and
//! the key in the data directory. Only trouble counts, and only in memory.

mod accounts;
mod book;
mod calls;
mod cards;
mod connect;
mod data;
mod dates;
mod endpoint;
mod error;
mod habits;
mod keys;
mod ledger;
mod money;
mod scope;
mod seed;
mod story;
mod token;
mod transactions;
mod trouble;
mod user;

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;

use self::book::Shelf;
use self::calls::Call;
use self::error::{METHOD_NOT_ALLOWED, NOT_FOUND, Refusal};
use self::keys::Keys;
use crate::journal::Journal;
use crate::tally::Tally;

pub use self::keys::BankError;
pub use self::token::{AUDIENCE, ISSUER};

/// Where the public keys are, on the bank's listener.
pub const JWKS_PATH: &str = "/.well-known/openid-configuration/jwks";
/// Where tokens are had, on the bank's listener.
pub const TOKEN_PATH: &str = "/connect/token";

const TOKEN_BODY_BYTES_MAX: usize = 64 << 10;
/// Distinct requests that flaky and limited users are remembered by.
const SEEN_MAX: usize = 10_000;

/// A mock bank that has its key and is ready to serve.
pub struct Bank {
    keys: Keys,
}

/// What the handlers share.
struct Desk {
    keys: Keys,
    /// Of the listener, such as `http://127.0.0.1:8090`.
    base_url: String,
    shelf: Shelf,
    seen: Tally,
    calls: Journal<Call>,
}

impl Bank {
    /// Takes the signing key from `data_dir`, or makes it (and the directory) there, so that tokens
    /// outlive a restart. The file is readable by its owner only.
    ///
    /// # Errors
    /// When the directory cannot be used, or its key file holds no usable key.
    pub fn open(data_dir: &Path) -> Result<Self, BankError> {
        Keys::open(data_dir).map(|keys| Self { keys })
    }

    /// Serves until `stop` is ready, then cuts every connection and returns at once.
    ///
    /// # Errors
    /// When the listener's socket is unusable.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let desk = Desk {
            keys: self.keys,
            base_url: format!("http://{}", listener.local_addr()?),
            shelf: Shelf::default(),
            seen: Tally::new(SEEN_MAX),
            calls: calls::journal(),
        };
        crate::server::serve(listener, router(desk), stop).await
    }
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route(TOKEN_PATH, post(connect::token).layer(DefaultBodyLimit::max(TOKEN_BODY_BYTES_MAX)))
        .route(JWKS_PATH, get(connect::jwks))
        .route("/.well-known/jwks.json", get(connect::jwks))
        .route("/.well-known/openid-configuration", get(connect::configuration))
        .route("/calls", get(list_calls))
        .route("/data/v1", any(data::call))
        .route("/data/v1/{*path}", any(data::call))
        .route(data::PREFIX, any(data::call))
        .fallback(async || Refusal::from(NOT_FOUND))
        .method_not_allowed_fallback(async || Refusal::from(METHOD_NOT_ALLOWED))
        .with_state(Arc::new(desk))
}

async fn list_calls(State(desk): State<Arc<Desk>>) -> Json<Vec<Call>> {
    Json(desk.calls.entries())
}
