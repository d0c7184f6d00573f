use std::sync::Mutex;

use http::HeaderMap;
use http_body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::scripted::{OK, Peer, Server, fed_body, get, with_body};
use super::*;

mod overtaken;
mod reaching;

const LIMIT: Duration = Duration::from_secs(10);

fn client() -> Client {
    Client::trusted(TlsRoots::system(), LIMIT)
}

async fn text(response: Response<Received>) -> Result<String, hyper::Error> {
    Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec()).unwrap())
}

impl Client {
    fn aging(mut self, max_age: Duration) -> Self {
        Arc::get_mut(&mut self.inner).unwrap().pool = Arc::new(Pool::aging(max_age));
        self
    }
}

/// Sends while the script runs; both ends see everything.
async fn exchange<T>(
    client: &Client,
    origin: &Origin,
    reuse: Reuse,
    script: impl Future<Output = T>,
) -> (Result<Response<Received>, SendError>, T) {
    tokio::join!(client.send(origin, get("/x?y=1"), reuse), script)
}

/// One exchange, read to its end, over a connection that is idle afterwards.
async fn leave_idle(client: &Client, server: &Server) -> Peer<TcpStream> {
    let origin = server.origin();
    let (answer, peer) = exchange(client, &origin, Reuse::Pooled, async {
        let mut peer = server.accept().await;
        peer.answer(OK).await;
        peer
    })
    .await;
    text(answer.unwrap()).await.unwrap();
    peer
}

/// Waits until no connection is idle any more.
async fn emptied(client: &Client) {
    while client.idle() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Waits until a connection is idle.
async fn parked(client: &Client) {
    while client.idle() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_is_used_again_once_its_answer_was_read() {
    let (client, server) = (client(), Server::start().await);
    let origin = server.origin();
    let (first, mut peer) = exchange(&client, &origin, Reuse::Pooled, async {
        let mut peer = server.accept().await;
        assert_eq!(peer.answer(OK).await, "GET /x?y=1 HTTP/1.1\r\nhost: scripted\r\n\r\n");
        peer
    })
    .await;
    assert_eq!(text(first.unwrap()).await.unwrap(), "ok");
    parked(&client).await;
    let (second, _) = exchange(&client, &origin, Reuse::Pooled, peer.answer(OK)).await;
    assert_eq!(text(second.unwrap()).await.unwrap(), "ok");
}

#[tokio::test]
async fn a_connection_whose_answer_is_unread_is_not_used_again() {
    let (client, server) = (client(), Server::start().await);
    let origin = server.origin();
    let unfinished = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nunfin";
    let (first, mut peer) = exchange(&client, &origin, Reuse::Pooled, async {
        let mut peer = server.accept().await;
        peer.answer(unfinished).await;
        peer
    })
    .await;
    let (second, mut other) = exchange(&client, &origin, Reuse::Pooled, async {
        let mut peer = server.accept().await;
        peer.answer(OK).await;
        peer
    })
    .await;
    assert_eq!(text(second.unwrap()).await.unwrap(), "ok");
    peer.write("shed").await;
    assert_eq!(text(first.unwrap()).await.unwrap(), "unfinshed");
    let _ = other.0.shutdown().await;
}

#[tokio::test]
async fn a_fresh_request_never_takes_an_idle_connection() {
    let (client, server) = (client(), Server::start().await);
    let origin = server.origin();
    for reuse in [Reuse::Pooled, Reuse::Fresh] {
        let (answer, _peer) = exchange(&client, &origin, reuse, async {
            let mut peer = server.accept().await;
            peer.answer(OK).await;
            peer
        })
        .await;
        assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
        parked(&client).await;
    }
}

#[tokio::test]
async fn a_connection_the_peer_closed_while_idle_is_forgotten() {
    let (client, server) = (client(), Server::start().await);
    let origin = server.origin();
    let peer = leave_idle(&client, &server).await;
    parked(&client).await;
    drop(peer);
    emptied(&client).await;
    assert_eq!(client.inner.pool.origins(), 0);
    let script = async { server.accept().await.answer(OK).await };
    let (answer, _) = exchange(&client, &origin, Reuse::Pooled, script).await;
    assert_eq!(answer.unwrap().status(), 200);
}

/// Turns the runtime until it has looked at its sockets, as it does at least every 61 turns.
async fn noticed() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_peer_did_to_an_idle_connection_is_noticed_before_a_request() {
    let stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
    for left_behind in ["", "!", stray] {
        let (client, server) = (client(), Server::start().await);
        let origin = server.origin();
        let mut peer = leave_idle(&client, &server).await;
        peer.write(left_behind).await;
        peer.0.shutdown().await.unwrap();
        noticed().await;
        let script = async {
            server.accept().await.answer("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
            std::future::pending().await
        };
        let answer = tokio::select! {
            answer = client.send(&origin, get("/"), Reuse::Pooled) => answer,
            never = script => never,
        };
        assert_eq!(answer.unwrap().status(), 201, "{left_behind:?}");
    }
}

#[tokio::test]
async fn a_request_for_a_dead_connection_goes_on_or_was_not_sent() {
    let (client, server) = (client(), Server::start().await);
    let origin = server.origin();
    for was_pooled in [true, false] {
        let (link, peer) = tokio::join!(client.connect(&origin), server.accept());
        let mut link = link.unwrap().pooled(was_pooled);
        peer.reset();
        while !link.is_closed() {
            tokio::task::yield_now().await;
        }
        let patience = Patience::endless();
        match client.send_on(link, &origin, get("/back"), &patience).await.unwrap_err() {
            Unanswered::Again(request) => assert!(was_pooled && request.uri() == "/back"),
            Unanswered::Over(error) => {
                assert!(!was_pooled);
                assert_eq!(error, SendError::NotSent(Unsent::Closed));
            }
        }
    }
}

#[tokio::test]
async fn an_aged_idle_connection_is_closed_though_nobody_asks_for_it() {
    let server = Server::start().await;
    let client = client().aging(Duration::from_millis(20));
    let mut peer = leave_idle(&client, &server).await;
    peer.closed().await;
    assert_eq!(client.idle(), 0);
}

#[tokio::test]
async fn an_idle_connection_of_four_seconds_is_dropped_and_not_used() {
    let (client, server) = (client(), Server::start().await);
    let origin = server.origin();
    let mut peer = leave_idle(&client, &server).await;
    parked(&client).await;
    let later = Instant::now() + Duration::from_secs(4);
    assert!(client.inner.pool.take(&origin, later).is_none());
    peer.closed().await;
    assert_eq!(client.idle(), 0);
}

#[tokio::test]
async fn an_answer_that_never_comes_is_told_from_a_call_that_was_not_sent() {
    let server = Server::start().await;
    let origin = server.origin();
    for reset in [true, false] {
        let script = async {
            let mut peer = server.accept().await;
            peer.request().await;
            if reset {
                peer.reset();
            }
        };
        let (answer, ()) = exchange(&client(), &origin, Reuse::Pooled, script).await;
        assert_eq!(answer.unwrap_err(), SendError::NoAnswer(NoAnswer::Broken));
    }
    drop(server);
    let answer = client().send(&origin, get("/"), Reuse::Pooled).await;
    assert_eq!(answer.unwrap_err(), SendError::NotSent(Unsent::Connect));
}

#[tokio::test]
async fn answers_that_are_not_http_or_have_endless_headers_are_broken() {
    let server = Server::start().await;
    for endless in [true, false] {
        let script = async {
            let mut peer = server.accept().await;
            peer.request().await;
            peer.write(if endless { "HTTP/1.1 200 OK\r\nx: " } else { "SSH-2.0-x\r\n\r\n" }).await;
            // Until the client has had enough.
            while endless && peer.0.write_all(&[b'x'; 1024]).await.is_ok() {}
        };
        let (answer, ()) = exchange(&client(), &server.origin(), Reuse::Pooled, script).await;
        assert_eq!(answer.unwrap_err(), SendError::NoAnswer(NoAnswer::Broken));
    }
}

#[tokio::test]
async fn a_body_cut_short_never_ends_cleanly() {
    let server = Server::start().await;
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsho",
    ] {
        let script = async { server.accept().await.answer(cut).await };
        let (answer, _) = exchange(&client(), &server.origin(), Reuse::Pooled, script).await;
        assert!(text(answer.unwrap()).await.is_err(), "{cut}");
    }
}

#[tokio::test]
async fn patience_ends_a_wait_and_says_whether_the_call_was_sent() {
    let (sender, server) = (client(), Server::start().await);
    let origin = server.origin();
    let patience = Patience::of(Duration::from_millis(50));
    let (answer, _peer) =
        tokio::join!(sender.send_within(&origin, get("/"), Reuse::Pooled, &patience), async {
            let mut peer = server.accept().await;
            peer.request().await;
            peer
        },);
    assert_eq!(answer.unwrap_err(), SendError::NoAnswer(NoAnswer::Timeout));

    let never = Names::by(|_| Box::pin(std::future::pending()));
    let client = Client::build(TlsRoots::system(), LIMIT, None, never);
    let patience = Patience::of(Duration::from_millis(50));
    let nowhere = Origin::new(false, "never.test", 80);
    let answer = client.send_within(&nowhere, get("/"), Reuse::Pooled, &patience).await;
    assert_eq!(answer.unwrap_err(), SendError::NotSent(Unsent::Timeout));
}

#[tokio::test]
async fn giving_up_an_answer_closes_its_connection() {
    let (client, server) = (client(), Server::start().await);
    let origin = server.origin();
    let mut sending = Box::pin(client.send(&origin, get("/"), Reuse::Pooled));
    let mut peer = tokio::select! {
        _ = &mut sending => unreachable!("nobody answered"),
        peer = async {
            let mut peer = server.accept().await;
            peer.request().await;
            peer
        } => peer,
    };
    drop(sending);
    peer.closed().await;

    let started = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbeginning";
    let (answer, mut peer) = exchange(&client, &origin, Reuse::Pooled, async {
        let mut peer = server.accept().await;
        peer.answer(started).await;
        peer
    })
    .await;
    drop(answer);
    peer.closed().await;
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel() {
    let (client, server) = (client(), Server::start().await);
    let mut request = get("/socket");
    request.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    request.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
    let origin = server.origin();
    let (answer, mut peer) = tokio::join!(client.send(&origin, request, Reuse::Fresh), async {
        let mut peer = server.accept().await;
        let switched =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst";
        peer.answer(switched).await;
        peer
    });
    let upgraded = hyper::upgrade::on(answer.unwrap()).await.unwrap();
    let mut tunnel = hyper_util::rt::TokioIo::new(upgraded);
    let mut first = [0; 5];
    tunnel.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first");
    tunnel.write_all(b"back").await.unwrap();
    assert_eq!(peer.read_until("back").await, "back");
    assert_eq!(client.idle(), 0);
}

#[tokio::test]
async fn informational_answers_reach_the_caller_before_the_final_one() {
    let server = Server::start().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let hints = Arc::clone(&seen);
    let mut request = get("/");
    hyper::ext::on_informational(&mut request, move |hint| {
        hints.lock().unwrap().push(hint.status().as_u16());
    });
    let hinted = format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}");
    let (client, origin) = (client(), server.origin());
    let (answer, _) = tokio::join!(client.send(&origin, request, Reuse::Pooled), async {
        server.accept().await.answer(&hinted).await
    });
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(*seen.lock().unwrap(), [103]);
}

#[tokio::test]
async fn request_trailers_reach_the_peer() {
    let server = Server::start().await;
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("7"))]);
    let frames = futures_util::stream::iter([
        Ok(Frame::data(Bytes::from_static(b"body"))),
        Ok::<_, BoxError>(Frame::trailers(trailers)),
    ]);
    let mut request = with_body("POST", "/", http_body_util::StreamBody::new(frames).boxed_unsync());
    request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    request.headers_mut().insert("transfer-encoding", HeaderValue::from_static("chunked"));
    let (client, origin) = (client(), server.origin());
    let (answer, sent) = tokio::join!(client.send(&origin, request, Reuse::Fresh), async {
        let mut peer = server.accept().await;
        let sent = peer.read_until("x-sum: 7\r\n\r\n").await;
        peer.write(OK).await;
        sent
    });
    assert_eq!(answer.unwrap().status(), 200);
    assert!(sent.contains("4\r\nbody\r\n0\r\n"), "{sent}");
}

#[tokio::test]
async fn an_answer_with_trailers_gives_its_connection_back_to_who_reads_no_further() {
    let (client, server) = (client(), Server::start().await);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let (answer, _peer) = exchange(&client, &server.origin(), Reuse::Pooled, async {
        let mut peer = server.accept().await;
        peer.answer(chunked).await;
        peer
    })
    .await;
    let mut body = answer.unwrap().into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    assert_eq!(client.idle(), 1);
}

#[tokio::test]
async fn a_small_document_is_fetched_whole_or_not_at_all() {
    let server = Server::start().await;
    let uri: Uri = format!("http://{}/keys?x=1", server.address()).parse().unwrap();
    for (answer, expected) in [
        (OK, Ok(Bytes::from_static(b"ok"))),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Err(FetchError::Status(404))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlarge", Err(FetchError::TooLarge(4))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ncu", Err(FetchError::Broken)),
    ] {
        let client = client();
        let (fetched, asked) =
            tokio::join!(client.fetch(&uri, 4, LIMIT), async { server.accept().await.answer(answer).await });
        assert_eq!(fetched, expected);
        assert!(asked.starts_with(&format!("GET /keys?x=1 HTTP/1.1\r\nhost: {}\r\n", server.address())));
    }
    let relative = Uri::from_static("/keys");
    assert_eq!(client().fetch(&relative, 4, LIMIT).await, Err(FetchError::Uri(OriginError::NotAbsolute)));
}

#[tokio::test]
async fn a_body_of_unknown_length_arrives_whatever_method_and_version_the_client_used() {
    let server = Server::start().await;
    let (client, origin) = (client(), server.origin());
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let (feed, body) = fed_body();
        let mut request = with_body("GET", "/search", body);
        *request.version_mut() = version;
        feed.send(Bytes::from_static(b"query")).await.unwrap();
        drop(feed);
        let (answer, sent) = tokio::join!(client.send(&origin, request, Reuse::Fresh), async {
            let mut peer = server.accept().await;
            let sent = peer.read_until("0\r\n\r\n").await;
            peer.write(OK).await;
            sent
        });
        assert_eq!(answer.unwrap().status(), 200);
        assert!(sent.starts_with("GET /search HTTP/1.1\r\n") && sent.contains("5\r\nquery\r\n"), "{sent}");
    }
}
