//! Answers that come before their request was sent to the end.

use http_body::Frame;
use tokio::io::AsyncReadExt as _;

use super::*;

#[tokio::test]
async fn an_answer_can_overtake_its_request() {
    let server = Server::start().await;
    let (feed, body) = fed_body();
    let (client, origin) = (client(), server.origin());
    let (answer, mut peer) =
        tokio::join!(client.send(&origin, with_body("POST", "/", body), Reuse::Fresh), async {
            let mut peer = server.accept().await;
            peer.request().await;
            peer.write(OK).await;
            peer
        });
    assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
    feed.send(Bytes::from_static(b"late")).await.unwrap();
    drop(feed);
    peer.read_until("4\r\nlate\r\n0\r\n\r\n").await;
    parked(&client).await;
}

#[tokio::test]
async fn a_long_request_that_its_answer_overtakes_is_sent_to_the_end() {
    // More than the sockets between the two hold.
    let mut body = vec![b'.'; 32 << 20];
    body.push(b'!');
    let server = Server::start().await;
    let (client, origin) = (client(), server.origin());
    let request = with_body("POST", "/", full_body(body.into()));
    let (answered, mut peer) = tokio::join!(client.send(&origin, request, Reuse::Fresh), async {
        let mut peer = server.accept().await;
        peer.0.readable().await.unwrap();
        peer.write(OK).await;
        peer
    });
    assert_eq!(text(answered.unwrap()).await.unwrap(), "ok");
    assert_eq!(client.idle(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        let count = peer.0.read(&mut piece).await.unwrap();
        assert_ne!(count, 0, "closed before the end of the request");
        if piece[..count].ends_with(b"!") {
            break;
        }
    }
    tokio::time::timeout(LIMIT, parked(&client)).await.expect("idle in the end");
}

/// A body that says how long it is before it is all there.
struct Announced(Body, u64);

impl http_body::Body for Announced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

#[tokio::test]
async fn a_short_request_that_its_answer_overtakes_is_sent_to_the_end() {
    let server = Server::start().await;
    let (client, origin) = (client(), server.origin());
    for (answer, body) in [(OK, "ok"), ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "")] {
        let (feed, late) = fed_body();
        let request = with_body("POST", "/", Announced(late, 4).boxed_unsync());
        let (answered, mut peer) = tokio::join!(client.send(&origin, request, Reuse::Fresh), async {
            let mut peer = server.accept().await;
            peer.request().await;
            peer.write(answer).await;
            peer
        });
        assert_eq!(text(answered.unwrap()).await.unwrap(), body);
        feed.send(Bytes::from_static(b"late")).await.unwrap();
        peer.read_until("late").await;
        parked(&client).await;
        client.inner.pool.take(&origin, Instant::now()).unwrap();
    }
}
