//! From judged addresses to a stream, in the clear or over TLS.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::stream::Stream;
use super::{Origin, TlsRoots, Unsent};

/// More addresses than this are not tried.
const MAX_ADDRESSES: usize = 4;

/// The first address that accepts, in the resolver's order. The time left is shared out evenly
/// among the addresses left, so that one that swallows packets leaves time for the next.
pub(super) async fn connect(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, Unsent> {
    let end = Instant::now() + limit;
    let tried = &addresses[..addresses.len().min(MAX_ADDRESSES)];
    let mut left = u32::try_from(tried.len()).unwrap_or(1);
    let mut failure = Unsent::Connect;
    for address in tried {
        let share = end.saturating_duration_since(Instant::now()) / left;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A request is written in one piece; waiting to fill a packet only delays it.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(_)) => failure = Unsent::Connect,
            Err(_) => failure = Unsent::Timeout,
        }
        left -= 1;
    }
    Err(failure)
}

/// The same stream, behind TLS where the origin asks for it; the certificate must name the host.
pub(super) async fn secure(
    stream: TcpStream,
    origin: &Origin,
    roots: &TlsRoots,
    limit: Duration,
) -> Result<Stream, Unsent> {
    if !origin.tls() {
        return Ok(Stream::plain(stream));
    }
    let end = Instant::now() + limit;
    let handshake = roots.connect(origin.host(), stream);
    match timeout_at(end, handshake).await {
        Ok(Ok(stream)) => Ok(Stream::tls(stream)),
        Ok(Err(_)) => Err(Unsent::Tls),
        Err(_) => Err(Unsent::Timeout),
    }
}
