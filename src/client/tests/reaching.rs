//! From an origin to a trusted connection: names, addresses, the guard, TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::client::scripted::tls_server;

/// A client whose resolver answers as told, and the number of its look-ups.
fn client_by(
    addresses: &'static [&'static str],
    guard: Option<Rules>,
    tls: TlsRoots,
) -> (Client, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let names = Names::by(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Ok(addresses.iter().map(|text| text.parse().unwrap()).collect()) })
    });
    (Client::build(tls, LIMIT, guard.map(Arc::new), names), count)
}

fn rules(change: impl FnOnce(&mut crate::config::WebhooksConfig)) -> Rules {
    let mut config = crate::guard::tests::config();
    change(&mut config);
    Rules::new(&config)
}

fn never_resolving() -> Client {
    Client::build(TlsRoots::system(), LIMIT, None, Names::by(|_| Box::pin(std::future::pending())))
}

#[tokio::test]
async fn a_resolver_that_never_answers_holds_a_bounded_number_of_look_ups() {
    let started = Arc::new(AtomicUsize::new(0));
    let (counted, gate) = (Arc::clone(&started), Arc::new(tokio::sync::Semaphore::new(0)));
    let opened = Arc::clone(&gate);
    let names = Names::by(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            let _open = gate.acquire().await;
            Ok(Vec::new())
        })
    });
    let client = Client::build(TlsRoots::system(), LIMIT, None, names);
    let nowhere = Origin::new(false, "never.test", 80);
    // Each caller gives up, its look-up does not.
    for (zones, expected) in [(1, 8), (15, 15 * 8), (40, 128)] {
        for number in 0..zones * 10 {
            let never = Origin::new(false, &format!("{number}.never{}.test", number % zones), 80);
            let patience = Patience::of(Duration::from_millis(1));
            let answer = client.send_within(&never, get("/"), Reuse::Pooled, &patience).await;
            assert_eq!(answer.unwrap_err(), SendError::NotSent(Unsent::Timeout));
        }
        assert_eq!(started.load(Ordering::Relaxed), expected);
    }
    opened.add_permits(1);
    let answer = client.send(&nowhere, get("/"), Reuse::Pooled).await;
    assert_eq!(answer.unwrap_err(), SendError::NotSent(Unsent::Resolve));
}

/// Time stands still here until everybody waits; then five seconds pass at once.
#[tokio::test(start_paused = true)]
async fn a_look_up_is_given_up_after_five_seconds_whoever_waits_for_it() {
    let client = never_resolving();
    let began = Instant::now();
    // Eight hold the places of their zone, and the others wait for one.
    let asking = (0..20).map(|number| {
        let (client, origin) = (client.clone(), Origin::new(true, &format!("{number}.never.test"), 443));
        async move { (client.send(&origin, get("/"), Reuse::Pooled).await.unwrap_err(), began.elapsed()) }
    });
    for (error, took) in futures_util::future::join_all(asking).await {
        assert_eq!(error, SendError::NotSent(Unsent::Resolve));
        assert_eq!(took.as_secs(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_never_answers_stalls_no_other_name() {
    let names = Names::by(|host| {
        Box::pin(async move {
            if host.ends_with("never.test") {
                std::future::pending::<()>().await;
            }
            Ok(vec![IpAddr::from(Ipv4Addr::LOCALHOST)])
        })
    });
    let client = Client::build(TlsRoots::system(), LIMIT, None, names);
    let names = &client.inner.names;
    let began = Instant::now();
    let hung: Vec<_> = (0..200).map(|n| Origin::new(true, &format!("{n}.never.test"), 443)).collect();
    let hung = futures_util::future::join_all(hung.iter().map(|origin| names.resolve(origin)));
    let good = async {
        for number in 0..200 {
            let origin = Origin::new(true, &format!("{number}.good.test"), 443);
            assert!(names.resolve(&origin).await.is_ok());
        }
        began.elapsed()
    };
    let (hung, took) = tokio::join!(hung, good);
    assert_eq!(took, Duration::ZERO, "nobody waited");
    assert!(hung.into_iter().all(|answer| answer == Err(Unsent::Resolve)));
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn tls_is_verified_by_authority_and_by_host_name() {
    let (pem, config) = tls_server(&["bank.test"]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    let roots = TlsRoots::from_pem_files(Some(&file), None).unwrap();
    let server = Server::start().await;
    let port = server.address().port();

    let (known, _) = client_by(&["127.0.0.1"], None, roots);
    let (stranger, _) = client_by(&["127.0.0.1"], None, TlsRoots::system());
    for (client, host, trusted) in
        [(&known, "bank.test", true), (&known, "other.test", false), (&stranger, "bank.test", false)]
    {
        let origin = Origin::new(true, host, port);
        let script = async {
            if let Some(mut peer) = server.accept_tls(&config).await {
                assert_eq!(peer.0.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
                peer.answer(OK).await;
            }
        };
        let (answer, ()) = exchange(client, &origin, Reuse::Pooled, script).await;
        if trusted {
            assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
        } else {
            assert_eq!(answer.unwrap_err(), SendError::NotSent(Unsent::Tls), "{host}");
        }
    }
}

#[test]
fn a_file_without_certificates_trusts_nobody_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    assert!(matches!(TlsRoots::from_pem_files(Some(&file), None), Err(TlsRootsError::Unreadable(_))));
    std::fs::write(&file, "no certificate").unwrap();
    assert!(matches!(TlsRoots::from_pem_files(Some(&file), None), Err(TlsRootsError::Empty(_))));
}

#[tokio::test]
async fn ipv6_literals_are_dialled() {
    let server = Server::on("[::1]:0").await;
    let script = async { server.accept().await.answer(OK).await };
    let (answer, _) = exchange(&client(), &server.origin(), Reuse::Pooled, script).await;
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn the_next_address_is_tried_where_one_refuses() {
    let server = Server::start().await;
    let (client, _) = client_by(&["127.0.0.99", "::1", "127.0.0.1"], None, TlsRoots::system());
    let origin = Origin::new(false, "several.test", server.address().port());
    let script = async { server.accept().await.answer(OK).await };
    let (answer, _) = exchange(&client, &origin, Reuse::Pooled, script).await;
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn a_name_without_addresses_does_not_resolve() {
    let (client, _) = client_by(&[], None, TlsRoots::system());
    let answer = client.send(&Origin::new(false, "none.test", 80), get("/"), Reuse::Pooled).await;
    assert_eq!(answer.unwrap_err(), SendError::NotSent(Unsent::Resolve));
}

#[tokio::test]
async fn a_guarded_client_refuses_a_name_with_one_denied_address_among_good_ones() {
    let guard = rules(|config| config.allow_http = true);
    let (client, _) = client_by(&["93.184.216.34", "10.0.0.1"], Some(guard), TlsRoots::system());
    let answer = client.send(&Origin::new(true, "mixed.test", 443), get("/"), Reuse::Pooled).await;
    assert_eq!(answer.unwrap_err(), SendError::NotSent(Unsent::Denied("private")));
}

#[tokio::test]
async fn a_guarded_client_judges_literals_too() {
    let server = Server::start().await;
    let client = Client::guarded(Arc::new(rules(|_| ())), Names::system(), TlsRoots::system(), LIMIT);
    let origin = Origin::new(true, "127.0.0.1", server.address().port());
    let answer = client.send(&origin, get("/"), Reuse::Pooled).await;
    assert_eq!(answer.unwrap_err(), SendError::NotSent(Unsent::Denied("port")));
    let literal = Origin::new(true, "127.0.0.1", 443);
    let answer = client.send(&literal, get("/"), Reuse::Pooled).await;
    assert_eq!(answer.unwrap_err(), SendError::NotSent(Unsent::Denied("loopback")));
}

#[tokio::test]
async fn the_address_judged_is_the_address_dialled() {
    let server = Server::start().await;
    let port = server.address().port();
    let guard = rules(|config| {
        config.allow_http = true;
        config.ports = vec![port];
        config.allow_networks = vec!["127.0.0.1/32".parse().unwrap()];
    });
    // Leads to an allowed address at the first look and to another one ever after.
    let looks = AtomicUsize::new(0);
    let rebinding = Names::by(move |_| {
        let first = looks.fetch_add(1, Ordering::Relaxed) == 0;
        let address = Ipv4Addr::new(127, 0, 0, if first { 1 } else { 2 });
        Box::pin(async move { Ok(vec![IpAddr::from(address)]) })
    });
    let client = Client::build(TlsRoots::system(), LIMIT, Some(Arc::new(guard)), rebinding);
    let origin = Origin::new(false, "rebinding.test", port);
    let script = async { server.accept().await.answer(OK).await };
    let (answer, _) = exchange(&client, &origin, Reuse::Fresh, script).await;
    assert_eq!(answer.unwrap().status(), 200);
    let answer = client.send(&origin, get("/"), Reuse::Fresh).await;
    assert_eq!(answer.unwrap_err(), SendError::NotSent(Unsent::Denied("loopback")));
}

#[tokio::test]
async fn a_literal_address_is_never_looked_up() {
    let server = Server::start().await;
    let (client, looks) = client_by(&["127.0.0.2"], None, TlsRoots::system());
    let script = async { server.accept().await.answer(OK).await };
    let (answer, _) = exchange(&client, &server.origin(), Reuse::Pooled, script).await;
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(looks.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_connection_is_resolved_once() {
    let server = Server::start().await;
    let (client, looks) = client_by(&["127.0.0.1"], None, TlsRoots::system());
    let origin = Origin::new(false, "once.test", server.address().port());
    let script = async { server.accept().await.answer(OK).await };
    let (answer, _) = exchange(&client, &origin, Reuse::Pooled, script).await;
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(looks.load(Ordering::Relaxed), 1);
}
