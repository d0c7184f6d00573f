//! Keys behind a URL: fetched over real sockets from a server that counts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::Algorithm;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::super::{Fetch, FetchError, Identity, MAX_JWKS_BYTES};
use super::issuer::{SigningKey, key_set};
use super::{NOW, config, outcome};
use crate::clock::Timestamp;
use crate::config::{IdentityConfig, IdentityMode};
use crate::secret::FingerprintKey;

/// What the server does with the next fetch.
#[derive(Clone)]
enum Answer {
    Body(String),
    Status(u16),
    /// Closes the connection without a word.
    Broken,
}

struct Server {
    address: SocketAddr,
    fetches: AtomicUsize,
    answer: Mutex<Answer>,
    /// A fetch is answered when a permit can be had.
    gate: Semaphore,
}

impl Server {
    async fn start(answer: Answer) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            fetches: AtomicUsize::new(0),
            answer: Mutex::new(answer),
            gate: Semaphore::new(1),
        });
        let shared = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let answer = service_fn(move |request| Arc::clone(&shared).answer(request));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
            }
        });
        server
    }

    async fn answer(self: Arc<Self>, _: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.acquire().await.expect("never closed"));
        let answer = self.answer.lock().unwrap().clone();
        let (status, body) = match answer {
            Answer::Body(body) => (200, body),
            Answer::Status(status) => (status, String::new()),
            Answer::Broken => return Err(std::io::Error::other("broken")),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    }

    fn publish(&self, keys: &[&SigningKey]) {
        self.set(Answer::Body(key_set(keys)));
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    fn identity(&self) -> Identity {
        identity_at(&format!("http://{}/jwks", self.address), fetch_over_sockets())
    }
}

fn identity_at(url: &str, fetch: Fetch) -> Identity {
    let config = IdentityConfig { jwks_url: Some(url.to_owned()), ..config(IdentityMode::Jwt) };
    Identity::new(&config, "bank", &FingerprintKey::new([1; 32]), super::settings::reach(fetch)).unwrap()
}

fn fetch_over_sockets() -> Fetch {
    Arc::new(|uri, limit| get(uri, limit).boxed())
}

async fn get(uri: Uri, limit: usize) -> Result<Bytes, FetchError> {
    let authority = uri.authority().unwrap().as_str().to_owned();
    let stream = TcpStream::connect(&authority).await.map_err(|_| FetchError::Unreachable)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| FetchError::Unreachable)?;
    tokio::spawn(connection);
    let request = Request::get(uri.path()).header("host", authority).body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.map_err(|_| FetchError::Unreachable)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let body = Limited::new(response.into_body(), limit).collect().await;
    Ok(body.map_err(|_| FetchError::TooLarge)?.to_bytes())
}

fn key(kid: &'static str) -> SigningKey {
    SigningKey::new(kid, Algorithm::EdDSA)
}

fn later(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

/// Waits until a token's outcome is this; a refresh nobody waits for has then landed.
async fn until(identity: &Identity, token: &str, wall: Timestamp, expected: &str) {
    let landed = async {
        while outcome(identity, token, wall).await != expected {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), landed).await.expect("never came");
}

#[tokio::test]
async fn nothing_is_fetched_before_a_token_comes_and_then_once() {
    let key = key("a");
    let server = Server::start(Answer::Body(key_set(&[&key]))).await;
    let identity = server.identity();
    assert_eq!(server.fetches(), 0);
    for sub in ["john", "jane", "john"] {
        assert_eq!(outcome(&identity, &key.token(sub), NOW).await, sub);
    }
    assert_eq!(server.fetches(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stampede_for_a_new_key_is_one_fetch() {
    let (old, new) = (key("old"), key("new"));
    let server = Server::start(Answer::Body(key_set(&[&old]))).await;
    let identity = Arc::new(server.identity());
    assert_eq!(outcome(&identity, &old.token("john"), NOW).await, "john");
    server.publish(&[&old, &new]);
    // The answer is held back until everybody has asked.
    let gate = server.gate.acquire().await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..100)
        .map(|number| {
            let (identity, asked) = (Arc::clone(&identity), Arc::clone(&asked));
            let token = new.token(&format!("user{number}"));
            tokio::spawn(async move {
                let mut look = Box::pin(outcome(&identity, &token, NOW));
                assert!(look.as_mut().now_or_never().is_none());
                asked.fetch_add(1, Ordering::SeqCst);
                look.await
            })
        })
        .collect();
    while asked.load(Ordering::SeqCst) < 100 {
        tokio::task::yield_now().await;
    }
    drop(gate);
    for (number, caller) in join_all(callers).await.into_iter().enumerate() {
        assert_eq!(caller.unwrap(), format!("user{number}"));
    }
    assert_eq!(server.fetches(), 2);
}

#[tokio::test]
async fn a_known_key_does_not_wait_while_another_is_looked_for() {
    let known = key("known");
    let server = Server::start(Answer::Body(key_set(&[&known]))).await;
    let identity = server.identity();
    assert_eq!(outcome(&identity, &known.token("john"), NOW).await, "john");
    let gate = server.gate.acquire().await.unwrap();
    let stranger = key("stranger").token("x");
    let mut look = Box::pin(outcome(&identity, &stranger, NOW));
    assert!(look.as_mut().now_or_never().is_none());
    assert_eq!(outcome(&identity, &known.token("jane"), NOW).await, "jane");
    drop(gate);
    assert_eq!(look.await, "401");
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_take_the_fetch_along() {
    let key = key("a");
    let server = Server::start(Answer::Body(key_set(&[&key]))).await;
    let identity = server.identity();
    let gate = server.gate.acquire().await.unwrap();
    let token = key.token("john");
    let mut gone = Box::pin(outcome(&identity, &token, NOW));
    assert!(gone.as_mut().now_or_never().is_none());
    drop(gone);
    let mut stays = Box::pin(outcome(&identity, &token, NOW));
    assert!(stays.as_mut().now_or_never().is_none());
    drop(gate);
    assert_eq!(stays.await, "john");
    assert_eq!(server.fetches(), 1);
}

#[tokio::test]
async fn unknown_keys_are_looked_for_once_in_ten_seconds() {
    let known = key("known");
    let server = Server::start(Answer::Body(key_set(&[&known]))).await;
    let identity = server.identity();
    assert_eq!(outcome(&identity, &known.token("john"), NOW).await, "john");
    for kid in ["s1", "s2", "s3"] {
        assert_eq!(outcome(&identity, &key(kid).token("x"), NOW).await, "401");
    }
    assert_eq!(server.fetches(), 2);
    let new = key("new");
    server.publish(&[&known, &new]);
    assert_eq!(outcome(&identity, &new.token("jane"), later(9)).await, "401");
    assert_eq!(outcome(&identity, &new.token("jane"), later(10)).await, "jane");
    assert_eq!(server.fetches(), 3);
}

#[tokio::test]
async fn a_token_that_could_never_be_good_causes_no_fetch() {
    let server = Server::start(Answer::Broken).await;
    let identity = server.identity();
    for token in ["", "x", "a.b.c", "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsifQ.e30.AA", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(outcome(&identity, token, NOW).await, "401", "{token}");
    }
    assert_eq!(server.fetches(), 0);
}

#[tokio::test]
async fn a_withdrawn_key_takes_its_tokens_with_it() {
    let (old, new) = (key("old"), key("new"));
    let server = Server::start(Answer::Body(key_set(&[&old, &new]))).await;
    let identity = server.identity();
    let (of_old, of_new) = (old.token("john"), new.token("jane"));
    assert_eq!(outcome(&identity, &of_old, NOW).await, "john");
    assert_eq!(outcome(&identity, &of_new, NOW).await, "jane");
    server.publish(&[&new]);
    assert_eq!(outcome(&identity, &of_old, later(299)).await, "john");
    // The refresh is started by a token that is known and needs no key any more.
    until(&identity, &of_old, later(300), "401").await;
    assert_eq!(outcome(&identity, &of_new, later(300)).await, "jane");
    server.publish(&[]);
    until(&identity, &of_new, later(601), "401").await;
}

#[tokio::test]
async fn an_issuer_down_at_start_is_503_and_left_alone_for_a_second() {
    let key = key("a");
    for down in [
        Answer::Broken,
        Answer::Status(503),
        Answer::Status(404),
        Answer::Body("<html>".to_owned()),
        Answer::Body(format!("{{\"keys\": []}}{}", " ".repeat(MAX_JWKS_BYTES))),
    ] {
        let server = Server::start(down).await;
        let identity = server.identity();
        for _ in 0..5 {
            assert_eq!(outcome(&identity, &key.token("john"), NOW).await, "503");
        }
        assert_eq!(server.fetches(), 1);
        assert_eq!(outcome(&identity, &key.token("john"), later(2)).await, "503");
        assert_eq!(server.fetches(), 2);
        server.publish(&[&key]);
        assert_eq!(outcome(&identity, &key.token("john"), later(4)).await, "john");
        // The failure is forgotten: it is the token's fault again when its key is not there.
        assert_eq!(outcome(&identity, &self::key("stranger").token("x"), later(4)).await, "401");
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_503() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    drop(listener);
    let identity = identity_at(&url, fetch_over_sockets());
    assert_eq!(outcome(&identity, &key("a").token("john"), NOW).await, "503");
}

#[tokio::test]
async fn an_issuer_down_later_leaves_known_keys_good_for_a_day() {
    let key = key("a");
    let server = Server::start(Answer::Body(key_set(&[&key]))).await;
    let identity = server.identity();
    let long = |sub: &str| {
        key.sign(&super::issuer::claims(sub, serde_json::json!({"exp": later(200_000).as_secs()})))
    };
    let seen = long("john");
    assert_eq!(outcome(&identity, &seen, NOW).await, "john");
    server.set(Answer::Broken);
    assert_eq!(outcome(&identity, &seen, later(301)).await, "john");
    assert_eq!(outcome(&identity, &long("jane"), later(86_399)).await, "jane");
    // Not the token's fault: the key may be new.
    assert_eq!(outcome(&identity, &self::key("new").token("x"), later(310)).await, "503");
    for token in [seen.clone(), long("jim")] {
        assert_eq!(outcome(&identity, &token, later(86_400)).await, "503");
    }
    server.publish(&[&key]);
    assert_eq!(outcome(&identity, &seen, later(86_410)).await, "john");
}

#[tokio::test]
async fn a_fetch_that_panics_is_a_failure_and_the_next_one_is_made() {
    let key = key("a");
    let calls = Arc::new(AtomicUsize::new(0));
    let set = key_set(&[&key]);
    let fetch: Fetch = {
        let calls = Arc::clone(&calls);
        Arc::new(move |_, _| {
            assert!(calls.fetch_add(1, Ordering::SeqCst) > 0, "a fault in the client");
            let set = Bytes::from(set.clone());
            async { Ok(set) }.boxed()
        })
    };
    let identity = identity_at("http://127.0.0.1/jwks", fetch);
    for _ in 0..2 {
        assert_eq!(outcome(&identity, &key.token("john"), NOW).await, "503");
    }
    assert_eq!(outcome(&identity, &key.token("john"), later(2)).await, "john");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}
