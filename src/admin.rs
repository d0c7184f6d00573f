//! The admin listener: is the process alive, is it ready, and its numbers.
//!
//! Answers nothing about a task or a caller. Anybody may ask for these three; everything else stands
//! behind the [`guard`].

mod guard;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

pub use guard::Guard;

/// OpenMetrics 1.0, which `/metrics` speaks.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many listeners still have to serve before the node is ready.
pub struct Readiness {
    missing: AtomicUsize,
    stopping: CancellationToken,
}

impl Readiness {
    #[must_use]
    pub fn new(listeners: usize, stopping: CancellationToken) -> Self {
        Self { missing: AtomicUsize::new(listeners), stopping }
    }

    /// One more listener serves.
    pub fn one_serves(&self) {
        self.missing.fetch_sub(1, Ordering::AcqRel);
    }

    fn is_ready(&self) -> bool {
        self.missing.load(Ordering::Acquire) == 0 && !self.stopping.is_cancelled()
    }
}

/// What the admin listener knows.
pub struct Admin {
    pub store: Store,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    pub clock: Clock,
    pub guard: Guard,
}

/// Serves until `stop`, then closes idle connections.
///
/// # Errors
/// The listener broke.
pub async fn serve(admin: Admin, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
    let admin = Arc::new(admin);
    let guarded = Router::new()
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here\n") })
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), judged));
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .with_state(admin);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn judged(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    match admin.guard.judge(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(denied) => {
            let mut response = (denied.status(), denied.sentence()).into_response();
            if denied.status() == StatusCode::UNAUTHORIZED {
                let scheme = header::HeaderValue::from_static("Bearer realm=\"ringback admin\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            }
            response
        }
    }
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, &'static str) {
    if !admin.readiness.is_ready() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or stopping\n")
    } else if admin.store.numbers().await.is_err() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store cannot be read\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

type Document = ([(HeaderName, &'static str); 1], String);

async fn metrics(State(admin): State<Arc<Admin>>) -> Result<Document, impl IntoResponse> {
    match admin.store.numbers().await {
        Ok(numbers) => Ok((
            [(header::CONTENT_TYPE, OPEN_METRICS)],
            admin.metrics.encode(numbers, admin.clock.wall(), admin.clock.steady()),
        )),
        Err(_) => Err((StatusCode::SERVICE_UNAVAILABLE, "the store cannot be read\n")),
    }
}
