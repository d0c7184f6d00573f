//! Webhooks to names, through a whole node whose resolver is a stand-in that lies.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use super::support::{Node, Raw, mirror, node_resolving, soon};
use crate::client::Names;

/// The only address that the rules allow.
const GOOD: [u8; 4] = [127, 0, 0, 1];
/// An address of this machine that they do not.
const BAD: [u8; 4] = [127, 0, 0, 2];

/// Answers by name, and counts: `None` means never.
#[derive(Clone, Default)]
struct Resolver(Arc<Mutex<HashMap<String, usize>>>);

impl Resolver {
    fn names(&self) -> Names {
        let resolver = self.clone();
        Names::by(move |host| {
            let answer = resolver.answer(&host);
            Box::pin(async move {
                match answer {
                    None => std::future::pending().await,
                    Some(addresses) if addresses.is_empty() => Err(io::ErrorKind::NotFound.into()),
                    Some(addresses) => Ok(addresses),
                }
            })
        })
    }

    fn answer(&self, host: &str) -> Option<Vec<IpAddr>> {
        let mut asked = self.0.lock().unwrap();
        let count = asked.entry(host.to_owned()).or_default();
        *count += 1;
        let addresses: &[[u8; 4]] = match host {
            "good.test" => &[GOOD],
            // A good address while it is looked at, another one when it is used.
            "rebinds.test" if *count == 1 => &[GOOD],
            "rebinds.test" | "rebound.test" => &[BAD],
            "mixed.test" => &[GOOD, BAD],
            "mixed-too.test" => &[BAD, GOOD],
            "nowhere.test" => &[],
            _ => return None,
        };
        Some(addresses.iter().map(|address| IpAddr::from(*address)).collect())
    }

    fn asked(&self, host: &str) -> usize {
        self.0.lock().unwrap().get(host).copied().unwrap_or_default()
    }
}

/// What a listener was sent: the target of each call, by its connection.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>, Arc<tokio::sync::Notify>);

impl Heard {
    fn at(listener: TcpListener, answer: &'static str) -> Self {
        let all = Self::default();
        let kept = all.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut client, kept) = (Raw::new(stream), kept.clone());
                kept.push("connected");
                tokio::spawn(async move {
                    let (call, _) = client.message().await;
                    kept.push(call.split(' ').nth(1).unwrap_or_default());
                    client.send(answer).await;
                });
            }
        });
        all
    }

    fn push(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
        self.1.notify_waiters();
    }

    fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|one| *one == what).count()
    }

    async fn until(&self, what: &str, times: usize) {
        soon(async {
            loop {
                let notified = self.1.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if self.count(what) >= times {
                    return;
                }
                notified.await;
            }
        })
        .await;
    }
}

struct World {
    node: Node,
    resolver: Resolver,
    good: Heard,
    bad: Heard,
    port: u16,
}

/// A good receiver and a bad one on the same port, and a node that may call the good one only.
async fn world(answer: &'static str) -> World {
    world_with(answer, "").await
}

/// With more lines in the section `webhooks`.
async fn world_with(answer: &'static str, more: &str) -> World {
    let (good, bad) = loop {
        let good = TcpListener::bind(SocketAddr::from((GOOD, 0))).await.unwrap();
        let port = good.local_addr().unwrap().port();
        if let Ok(bad) = TcpListener::bind(SocketAddr::from((BAD, port))).await {
            break (good, bad);
        }
    };
    let port = good.local_addr().unwrap().port();
    let webhooks = format!(
        "allow_http = true\nallow_networks = [\"127.0.0.1/32\"]\nports = [{port}]\njitter = 0.0\n\
         delays = [\"10ms\", \"10ms\"]\n{more}"
    );
    let resolver = Resolver::default();
    let upstream = mirror().await.address;
    let node = node_resolving(upstream, "", "", &webhooks, resolver.names()).await;
    World { node, resolver, good: Heard::at(good, answer), bad: Heard::at(bad, answer), port }
}

impl World {
    /// The id of the task.
    async fn submit(&self, host: &str, path: &str) -> String {
        let uri = format!("http%3A%2F%2F{host}%3A{}%2F{path}", self.port);
        let call = format!(
            "GET /api/x?async=true&webhook_uri={uri} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        );
        let answer = self.node.answer_to(&call).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        let (_, id) = answer.split_once("\"task_id\":\"").unwrap();
        id.split('"').next().unwrap().to_owned()
    }

    /// The results endpoint's answer, once the task is finished.
    async fn finished(&self, id: &str) -> String {
        let call = format!("GET /api/results/{id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        soon(async {
            loop {
                let answer = self.node.answer_to(&call).await;
                if !answer.starts_with("HTTP/1.1 202") {
                    return answer;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Waits until a name was looked up so often.
    async fn asked(&self, host: &str, times: usize) {
        soon(async {
            while self.resolver.asked(host) < times {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

const REFUSES: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const TAKES: &str = "HTTP/1.1 204 Fine\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_name_that_rebinds_between_submit_and_delivery_leads_nowhere() {
    let world = world(TAKES).await;
    world.submit("rebound.test", "hook").await;
    world.asked("rebound.test", 3).await;
    world.submit("good.test", "good").await;
    world.good.until("/good", 1).await;
    assert_eq!(world.bad.count("connected"), 0);
}

#[tokio::test]
async fn a_name_that_rebinds_between_two_tries_leads_nowhere() {
    let world = world(REFUSES).await;
    world.submit("rebinds.test", "hook").await;
    world.good.until("/hook", 1).await;
    world.asked("rebinds.test", 3).await;
    world.submit("good.test", "good").await;
    world.good.until("/good", 1).await;
    // One look-up a connection: what was judged is what was dialled.
    assert_eq!((world.good.count("/hook"), world.bad.count("connected")), (1, 0));
}

#[tokio::test]
async fn a_name_with_one_bad_address_leads_to_none() {
    let world = world(TAKES).await;
    for name in ["mixed.test", "mixed-too.test", "nowhere.test"] {
        world.submit(name, "hook").await;
        world.asked(name, 3).await;
    }
    world.submit("good.test", "good").await;
    world.good.until("/good", 1).await;
    assert_eq!((world.good.count("/hook"), world.bad.count("connected")), (0, 0));
}

#[tokio::test]
async fn names_that_never_resolve_hold_up_nobody_else() {
    let world = world(TAKES).await;
    // More than there are places for deliveries, and far more than look-ups at once; of three zones.
    for number in 0..450 {
        world.submit(&format!("{number}.never{}.test", number % 3), "hook").await;
    }
    world.asked("0.never0.test", 1).await;
    for number in 0..10 {
        world.submit("good.test", &format!("good{number}")).await;
        world.good.until(&format!("/good{number}"), 1).await;
    }
    assert_eq!(world.bad.count("connected"), 0);
}

#[tokio::test]
async fn a_resolver_that_never_answers_stalls_neither_the_store_nor_the_tries_that_follow() {
    let world = world_with(TAKES, "timeout = \"200ms\"").await;
    let mut tasks = Vec::new();
    for number in 0..300 {
        tasks.push(world.submit(&format!("{number}.never{}.test", number % 30), "hook").await);
    }
    // Their results are there all the while.
    world.asked("0.never0.test", 1).await;
    for id in &tasks {
        let answer = world.finished(id).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // Each look-up has a place until it ends, and these never do: no name takes them all.
    let asked: usize =
        (0..300).map(|number| world.resolver.asked(&format!("{number}.never{}.test", number % 30))).sum();
    assert!(asked <= 128, "{asked} look-ups at once");
    world.submit("127.0.0.1", "literal").await;
    world.good.until("/literal", 1).await;
    assert_eq!(world.bad.count("connected"), 0);
}
