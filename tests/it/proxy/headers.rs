//! Which header fields go through, which stay, and which are ours to write.

use crate::support::node::{Node, Setup};
use crate::support::peer::Upstream;
use crate::support::reply::Reply;

#[tokio::test]
async fn fields_of_one_connection_stay_on_it() {
    let upstream = Upstream::start().await;
    let reply = Reply::ok("x").header("keep-alive", "timeout=5").header("proxy-authenticate", "Basic");
    let reply =
        reply.header("x-theirs", "1").header("x-kept", "2").header("connection", "x-theirs, keep-alive");
    upstream.always([reply]);
    let node = Node::start(&upstream).await;
    for target in ["/x", "/x?async=true"] {
        let call = node
            .get(target)
            .header("connection", "x-mine, keep-alive")
            .header("x-mine", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("proxy-authorization", "Basic abc")
            .header("te", "gzip")
            .header("x-kept", "2");
        let answer = call.send().await;
        if answer.status == 202 {
            node.finished(&crate::support::node::Task::from(&answer)).await;
        } else {
            assert_eq!(answer.header("x-kept"), Some("2"));
            for name in ["x-theirs", "keep-alive", "proxy-authenticate"] {
                assert_eq!(answer.header(name), None, "{name} came back");
            }
        }
        let calls = upstream.calls();
        let call = calls.last().expect("the upstream was called");
        assert_eq!(call.header("x-kept"), Some("2"));
        for name in ["x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade"] {
            assert_eq!(call.header(name), None, "{name} went through, {target}");
        }
        let connection = call.all("connection").join(",").to_ascii_lowercase();
        assert!(!connection.contains("x-mine"), "{connection}");
    }
}

#[tokio::test]
async fn fields_that_come_several_times_go_through_several_times() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("x").header("set-cookie", "a=1").header("set-cookie", "b=2; Path=/")]);
    let node = Node::start(&upstream).await;
    let answer = node.get("/x").header("x-tag", "1").header("x-tag", "2").send().await;
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2; Path=/"]);
    assert_eq!(upstream.only_call().all("x-tag"), ["1", "2"]);
}

#[tokio::test]
async fn conditions_ranges_and_preferences_go_through_a_proxied_call() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let fields = [
        ("range", "bytes=0-1"),
        ("if-none-match", "\"x\""),
        ("prefer", "return=minimal"),
        ("authorization", "Bearer abc"),
        ("cookie", "a=1"),
        ("user-agent", "app/1"),
        ("accept-encoding", "br"),
    ];
    fields.iter().fold(node.get("/x"), |call, (name, value)| call.header(name, value)).send().await;
    for (name, value) in fields {
        assert_eq!(upstream.only_call().header(name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn nothing_is_said_that_the_client_did_not_say() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    node.get("/x").send().await;
    let call = upstream.only_call();
    for name in
        ["user-agent", "accept", "accept-encoding", "content-type", "content-length", "transfer-encoding"]
    {
        assert_eq!(call.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn host_is_the_upstreams_unless_the_clients_is_preserved() {
    let upstream = Upstream::start().await;
    let own = upstream.address().to_string();
    let node = Setup::new(&upstream)
        .add_upstream("preserving", "/preserved", &upstream.uri(""))
        .set("upstreams.1.preserve_host", true)
        .start()
        .await;
    let preserved = node.address().to_string();
    let cases = [("/data/v1", own.as_str(), "api.example"), ("/preserved", "api.example", "api.example")];
    for (prefix, expected, host) in cases {
        for query in ["", "?async=true"] {
            let call = node.call(http::Method::GET, &format!("{prefix}/x{query}")).header("host", host);
            let count = upstream.calls().len();
            assert!(call.send().await.status < 300);
            let calls = upstream.wait_for_calls(count + 1).await;
            assert_eq!(calls[count].header("host"), Some(expected), "{prefix}{query}");
        }
    }
    assert_ne!(own, preserved);
}

#[tokio::test]
async fn where_a_call_came_from_is_written_anew_for_strangers() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for query in ["", "?async=true"] {
        let call = node
            .get(&format!("/x{query}"))
            .header("host", "api.example")
            .header("x-forwarded-for", "198.51.100.9")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "evil.example")
            .header("forwarded", "for=198.51.100.9;host=evil.example");
        let count = upstream.calls().len();
        call.send().await;
        let call = upstream.wait_for_calls(count + 1).await.remove(count);
        assert_eq!(call.header("x-forwarded-for"), Some("127.0.0.1"), "{query}");
        assert_eq!(call.header("x-forwarded-proto"), Some("http"));
        assert_eq!(call.header("x-forwarded-host"), Some("api.example"));
        let forwarded = call.all("forwarded").join(",");
        assert!(!forwarded.contains("198.51.100.9") && !forwarded.contains("evil"), "{forwarded}");
    }
}

#[tokio::test]
async fn where_a_call_came_from_is_added_to_behind_a_trusted_proxy() {
    let upstream = Upstream::start().await;
    let node = Setup::new(&upstream).set("server.trusted_proxies", vec!["127.0.0.0/8"]).start().await;
    let call = node
        .get("/x")
        .header("host", "inner.example")
        .header("x-forwarded-for", "203.0.113.9, 203.0.113.10")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "api.example");
    call.send().await;
    let call = upstream.only_call();
    let chain = call.all("x-forwarded-for").join(", ");
    assert_eq!(chain, "203.0.113.9, 203.0.113.10, 127.0.0.1");
    assert_eq!(call.header("x-forwarded-proto"), Some("https"));
    assert_eq!(call.header("x-forwarded-host"), Some("api.example"));
}

#[tokio::test]
async fn configured_fields_are_set_and_removed_last() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream);
    let file = setup.write("partner-key", "from-a-file\n").display().to_string();
    let node = setup
        .set("upstreams.0.headers.set.X-Api-Key", "configured")
        .set("upstreams.0.headers.set_from_file.X-Partner", file)
        .set("upstreams.0.headers.remove", vec!["X-Internal", "Cookie"])
        .start()
        .await;
    for query in ["", "?async=true"] {
        let call = node.get(&format!("/x{query}")).header("x-api-key", "the client's");
        let count = upstream.calls().len();
        call.header("x-internal", "1").header("cookie", "a=1").header("x-other", "2").send().await;
        let call = upstream.wait_for_calls(count + 1).await.remove(count);
        assert_eq!(call.header("x-api-key"), Some("configured"), "{query}");
        assert_eq!(call.header("x-partner"), Some("from-a-file"));
        assert_eq!((call.header("x-internal"), call.header("cookie")), (None, None));
        assert_eq!(call.header("x-other"), Some("2"));
    }
    assert!(!node.log().contains("from-a-file") && !node.log().contains("configured"));
}
