//! A webhook to the node itself: its own calls would be in a stranger's hands. Refused whatever the
//! configuration allows, by a literal at submit, by a name when the connection is made.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::support::client::encode;
use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::Reply;

/// A node that may call every address, port and name there is.
fn careless(upstream: &Upstream) -> Setup {
    Setup::new(upstream)
        .set("webhooks.allow_http", true)
        .set("webhooks.allow_networks", vec!["127.0.0.0/8", "::1/128", "0.0.0.0/0", "::/0"])
        .set("webhooks.allow_hosts", vec!["localhost"])
        .set("webhooks.ports", (1..=65535).collect::<Vec<i64>>())
}

/// The address of this machine that others call, where it has one. Nothing is sent.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified() && !address.is_loopback())
}

/// A webhook to `uri` must be refused at submit, with nothing stored.
async fn is_refused(node: &Node, uri: &str) {
    let before = node.rows();
    let answer = node.get(&format!("/x?async=true&webhook_uri={}", encode(uri))).send().await;
    assert_eq!(answer.status, 400, "{uri}: {:?}", answer.body);
    answer.is_refusal(400, "validation_error");
    let why = answer.json()["error_description"].to_string();
    assert!(why.contains("own_listener"), "{uri}: {why}");
    assert_eq!(node.rows(), before, "{uri}");
}

/// A webhook to `uri` must be accepted, tried, and given up because of the address.
async fn leads_nowhere(node: &Node, uri: &str) {
    let task = node.submit(node.get(&format!("/x?async=true&webhook_uri={}", encode(uri)))).await;
    assert_eq!(node.finished(&task).await.status, 200);
    assert_eq!(node.given_up(1).await, "address_denied", "{uri}");
}

#[tokio::test]
async fn a_webhook_to_a_literal_of_the_nodes_own_listeners_is_refused_at_submit() {
    let upstream = Upstream::start().await;
    let node = careless(&upstream).start().await;
    for listener in [node.address(), node.admin_address()] {
        let port = listener.port();
        for host in [
            "127.0.0.1",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "0.0.0.0",
            "[::ffff:0.0.0.0]",
            "[64:ff9b::127.0.0.1]",
        ] {
            is_refused(&node, &format!("http://{host}:{port}{PREFIX}/x")).await;
            is_refused(&node, &format!("https://{host}:{port}{PREFIX}/x")).await;
        }
    }
    upstream.saw_nobody();
    // The same address with another port is somebody else's.
    let receiver = Receiver::start().await;
    let task = node.submit(node.get(&format!("/x?{}", receiver.query("/hook")))).await;
    receiver.wait_for_task(&task.id, 1).await;
}

#[tokio::test]
async fn a_node_that_listens_on_every_address_is_reached_by_none_of_them() {
    let upstream = Upstream::start().await;
    for anywhere in ["0.0.0.0:0", "[::]:0"] {
        let setup = careless(&upstream).set("server.public_url", "http://ringback.example");
        let node = setup.set("server.listen", anywhere).set("server.admin_listen", anywhere).start().await;
        for port in [node.address().port(), node.admin_address().port()] {
            for host in ["127.0.0.1", "127.1.2.3", "[::1]", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]"] {
                is_refused(&node, &format!("http://{host}:{port}/")).await;
            }
        }
        // Which addresses the machine has is known only by being connected to itself.
        if let Some(outer) = outer_address() {
            let uri = format!("http://{}/", SocketAddr::new(outer, node.address().port()));
            leads_nowhere(&node, &uri).await;
        }
    }
}

#[tokio::test]
async fn a_name_that_leads_to_the_nodes_own_listeners_is_not_called() {
    let upstream = Upstream::start().await;
    for (listens, admin) in [("127.0.0.1:0", false), ("127.0.0.1:0", true), ("0.0.0.0:0", false)] {
        upstream.always([Reply::ok("done")]);
        let setup = careless(&upstream).set("server.public_url", "http://ringback.example");
        let node = setup.set("server.listen", listens).start().await;
        let port = if admin { node.admin_address() } else { node.address() }.port();
        leads_nowhere(&node, &format!("http://localhost:{port}{PREFIX}/from-webhook")).await;
    }
    assert!(upstream.calls_of(&format!("{PREFIX}/from-webhook")).is_empty(), "the node called itself");
    // The name itself is allowed.
    let (node, receiver) = (careless(&upstream).start().await, Receiver::start().await);
    let uri = format!("http://localhost:{}/hook", receiver.peer().address().port());
    let task = node.submit(node.get(&format!("/x?async=true&webhook_uri={}", encode(&uri)))).await;
    receiver.wait_for_task(&task.id, 1).await;
}
