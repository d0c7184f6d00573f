//! Connections that stopped to be HTTP: bytes both ways until one side is done.

use std::io;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt as _, copy, split};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where the tunnels of a listener live.
#[derive(Clone)]
pub struct Tunnels {
    running: TaskTracker,
    /// Ends them all: a tunnel has no request to finish, so it cannot be drained.
    stop: CancellationToken,
}

impl Tunnels {
    #[must_use]
    pub fn new(running: TaskTracker, stop: CancellationToken) -> Self {
        Self { running, stop }
    }
}

/// Joins both connections as soon as both have switched.
pub(super) fn join(client: OnUpgrade, upstream: OnUpgrade, tunnels: Tunnels) {
    let Tunnels { running, stop } = tunnels;
    running.spawn(async move {
        // A side that broke off ends the tunnel like one that is done; there is nobody to tell.
        let _ = stop.run_until_cancelled_owned(carry(client, upstream)).await;
    });
}

/// Ends when either side ends: there is no protocol here to say what half a tunnel would mean.
async fn carry(client: OnUpgrade, upstream: OnUpgrade) -> io::Result<()> {
    let both = async { tokio::try_join!(client, upstream) };
    let (client, upstream) = both.await.map_err(io::Error::other)?;
    let (mut from_client, mut to_client) = split(TokioIo::<Upgraded>::new(client));
    let (mut from_upstream, mut to_upstream) = split(TokioIo::<Upgraded>::new(upstream));
    tokio::select! {
        sent = copy(&mut from_client, &mut to_upstream) => sent?,
        received = copy(&mut from_upstream, &mut to_client) => received?,
    };
    let (client, upstream) = tokio::join!(to_client.shutdown(), to_upstream.shutdown());
    client.and(upstream)
}
