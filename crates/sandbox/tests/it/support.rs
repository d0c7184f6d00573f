//! A bank and an inbox on ports of their own, and a client without opinions.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sandbox::{Bank, Inbox};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server that runs until it is stopped or dropped.
pub struct Server {
    pub address: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    _dir: Option<TempDir>,
}

pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub fn results(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{:?}", self.body);
        let json = self.json();
        assert_eq!(json["status"], "Succeeded");
        json["results"].as_array().expect("results are an array").clone()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are text"))
    }
}

impl Server {
    pub async fn bank() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bank = Self::bank_in(dir.path()).await;
        Self { _dir: Some(dir), ..bank }
    }

    pub async fn bank_in(dir: &Path) -> Self {
        let bank = Bank::open(dir).unwrap();
        Self::start(|listener, stopped| tokio::spawn(bank.serve(listener, stopped))).await
    }

    pub async fn inbox() -> Self {
        Self::start(|listener, stopped| tokio::spawn(Inbox::new().serve(listener, stopped))).await
    }

    async fn start(
        serve: impl FnOnce(
            TcpListener,
            std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
        ) -> JoinHandle<std::io::Result<()>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = Box::pin(async move {
            let _ = stopped.await;
        });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, stop, served: serve(listener, stopped), client, _dir: None }
    }

    /// Tells the server to stop and waits until it has.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }

    pub async fn send(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body));
        let response = self.client.request(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = Response::into_parts(response);
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn get(&self, target: &str, token: &str) -> Reply {
        let authorization = format!("Bearer {token}");
        self.send(Method::GET, target, &[("authorization", &authorization)], b"").await
    }

    pub async fn post(&self, target: &str, content_type: &str, body: &str) -> Reply {
        self.send(Method::POST, target, &[(header::CONTENT_TYPE.as_str(), content_type)], body.as_bytes())
            .await
    }

    pub async fn form(&self, body: &str) -> Reply {
        self.post(sandbox::TOKEN_PATH, "application/x-www-form-urlencoded", body).await
    }

    /// An access token of a mock user with every scope.
    pub async fn token(&self, user: &str) -> String {
        self.token_with(user, "").await
    }

    /// An access token; `more` is the rest of the form.
    pub async fn token_with(&self, user: &str, more: &str) -> String {
        let reply = self.form(&format!("grant_type=authorization_code&code={user}{more}")).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        reply.json()["access_token"].as_str().unwrap().to_owned()
    }
}
