//! `ringback check-uri`: the rule table, asked from a terminal.

use crate::support::node::Setup;
use crate::support::process::run;

async fn check(args: &[&str]) -> (Option<i32>, String) {
    let ended = run(&[&["check-uri"], args].concat()).await;
    (ended.status.code(), [ended.stdout, ended.stderr].concat().join("\n"))
}

#[tokio::test]
async fn each_answer_has_its_exit_code_and_names_its_rule() {
    for (uri, code, words) in [
        ("https://1.1.1.1/", 0, "1.1.1.1 allowed by rule public"),
        ("https://127.0.0.1/", 3, "rule loopback"),
        ("https://localhost/", 3, "127.0.0.1 denied by rule loopback"),
        ("https://169.254.169.254/latest", 3, "rule link_local"),
        ("https://[::ffff:1.1.1.1]/", 3, "rule ipv4_mapped"),
        ("http://1.1.1.1/", 3, "rule scheme"),
        ("https://1.1.1.1:22/", 3, "rule port"),
        ("https://0177.0.0.1/", 2, "not a webhook URI"),
        ("https://user@1.1.1.1/", 2, "not a webhook URI"),
        ("ftp://1.1.1.1/", 2, "not a webhook URI"),
        ("1.1.1.1", 2, "not a webhook URI"),
        // RFC 6761: never resolves.
        ("https://nobody.invalid/", 4, "does not resolve"),
    ] {
        let (found, said) = check(&[uri]).await;
        assert_eq!(found, Some(code), "{uri}: {said}");
        assert!(said.contains(words), "{uri}: {said}");
    }
}

/// Every one of these must exit with this code, and say this.
async fn all_exit(code: i32, uris: &[(&str, &str)]) {
    for (uri, words) in uris {
        let (found, said) = check(&[uri]).await;
        assert_eq!(found, Some(code), "{uri}: {said}");
        assert!(said.contains(words), "{uri}: {said}");
    }
}

#[tokio::test]
async fn a_public_address_exits_0() {
    all_exit(
        0,
        &[
            ("https://1.1.1.1/", "1.1.1.1 allowed by rule public"),
            ("https://1.1.1.1", "allowed"),
            ("HTTPS://1.1.1.1:443/hook?key=%2F", "allowed"),
            ("https://[2606:4700::1111]/", "2606:4700::1111 allowed by rule public"),
            ("https://[64:ff9b::1.1.1.1]/", "allowed by rule public"),
            ("https://[64:ff9b::101:101]/", "allowed by rule public"),
        ],
    )
    .await;
}

#[tokio::test]
async fn spellings_that_two_readers_read_differently_exit_2() {
    let odd = [
        // IPv4 in octal, hexadecimal, as one number, shortened, padded, with a dot behind.
        "https://0177.0.0.1/",
        "https://017700000001/",
        "https://0x7f.0.0.1/",
        "https://0x7f000001/",
        "https://0X7F.1/",
        "https://2130706433/",
        "https://127.1/",
        "https://127.0.1/",
        "https://127.0.0.01/",
        "https://127.0.0.1./",
        "https://1.1.1.1./",
        "https://256.1.1.1/",
        "https://1.2.3.4.5/",
        // Digits and dots that only some readers fold.
        "https://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
        "https://127\u{3002}0\u{3002}0\u{3002}1/",
        "https://\u{2460}27.0.0.1/",
        // Percent-encoding and IPv6 with more than an address in it.
        "https://%31%32%37.0.0.1/",
        "https://127%2e0.0.1/",
        "https://localhost%00.example/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[::1%25lo]/",
        "https://[v1.x]/",
        "https://[127.0.0.1]/",
        "https://[::1/",
        "https://::1/",
        // No host, more than a host, a host with a dot behind, not https at all.
        "https:///path",
        "https://:443/",
        "https://?x",
        "https:/1.1.1.1/",
        "https:1.1.1.1",
        "//1.1.1.1/",
        "https://user@1.1.1.1/",
        "https://user:password@1.1.1.1/",
        "https://1.1.1.1@127.0.0.1/",
        "https://@1.1.1.1/",
        "https://1.1.1.1\\@127.0.0.1/",
        "https://1.1.1.1#@127.0.0.1/",
        "https://localhost./",
        "https://local host/",
        "https://1.1.1.1:0/",
        "https://1.1.1.1:65536/",
        "https://1.1.1.1:/",
        "gopher://1.1.1.1/",
        "file:///etc/passwd",
        "",
    ];
    let all: Vec<_> = odd.iter().map(|uri| (*uri, "not a webhook URI")).collect();
    all_exit(2, &all).await;
}

#[tokio::test]
async fn an_address_that_is_not_public_exits_3_in_every_spelling() {
    all_exit(
        3,
        &[
            ("https://0.0.0.0/", "rule this_network"),
            ("https://10.0.0.1/", "rule private"),
            ("https://100.100.100.200/", "rule shared"),
            ("https://168.63.129.16/", "rule metadata"),
            ("https://192.0.0.192/", "rule protocol_assignments"),
            ("https://224.0.0.1/", "rule multicast"),
            ("https://255.255.255.255/", "rule broadcast"),
            ("https://[::]/", "rule unspecified"),
            ("https://[::1]/", "rule loopback"),
            ("https://[0:0:0:0:0:0:0:1]/", "rule loopback"),
            ("https://[fd00:ec2::254]/", "rule unique_local"),
            ("https://[fe80::1]/", "rule link_local"),
            ("https://[ff02::1]/", "rule multicast"),
            // An IPv4 address inside: mapped, compatible, translated, 6to4, Teredo, ISATAP, NAT64.
            ("https://[::ffff:10.0.0.1]/", "rule ipv4_mapped"),
            ("https://[::ffff:a00:1]/", "rule ipv4_mapped"),
            ("https://[::10.0.0.1]/", "rule ipv4_compatible"),
            ("https://[::ffff:0:10.0.0.1]/", "rule ipv4_translated"),
            ("https://[2002:a00:1::1]/", "rule 6to4"),
            ("https://[2002:808:808::1]/", "rule 6to4"),
            ("https://[2001:0:808:808:0:0:f5ff:fffe]/", "rule teredo"),
            ("https://[2a00:1450::5efe:10.0.0.1]/", "rule isatap"),
            ("https://[2a00:1450::200:5efe:808:808]/", "rule isatap"),
            ("https://[64:ff9b::10.0.0.1]/", "rule private"),
            ("https://[64:ff9b::7f00:1]/", "rule loopback"),
            ("https://[64:ff9b::169.254.169.254]/", "rule link_local"),
            ("https://[64:ff9b:1::8.8.8.8]/", "rule local_nat64"),
            // Public, but not so.
            ("http://1.1.1.1/", "rule scheme"),
            ("https://1.1.1.1:8443/", "rule port"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_exits_4() {
    // RFC 6761: never resolves.
    for uri in ["https://nobody.invalid/", "https://a.b.nobody.invalid/hook"] {
        all_exit(4, &[(uri, "nobody.invalid does not resolve")]).await;
    }
}

#[tokio::test]
async fn the_nodes_own_listeners_exit_3_whatever_is_allowed() {
    let setup = Setup::of("http://127.0.0.1:9")
        .set("server.listen", "127.0.0.1:18080")
        .set("server.admin_listen", "127.0.0.1:18081")
        .set("webhooks.allow_networks", vec!["0.0.0.0/0", "::/0"]);
    let config = setup.config_file().display().to_string();
    for (uri, code) in [
        ("http://127.0.0.1:18080/", 3),
        ("http://localhost:18081/", 3),
        ("http://[::ffff:127.0.0.1]:18081/", 3),
        ("http://127.0.0.1:18082/", 0),
    ] {
        let (found, said) = check(&[uri, "--config", &config]).await;
        assert_eq!(found, Some(code), "{uri}: {said}");
        assert_eq!(said.contains("own_listener"), code == 3, "{uri}: {said}");
    }
}

#[tokio::test]
async fn the_configuration_is_the_nodes_own() {
    let setup = Setup::of("http://127.0.0.1:9").set("webhooks.allow_networks", vec!["10.1.0.0/16"]);
    let config = setup.config_file().display().to_string();
    let (code, said) = check(&["https://10.1.2.3/", "--config", &config]).await;
    assert_eq!((code, said.contains("rule allow_networks")), (Some(0), true), "{said}");
    assert_eq!(check(&["https://10.2.2.3/", "--config", &config]).await.0, Some(3));
    assert_eq!(check(&["http://127.0.0.1:9/", "--dev"]).await.0, Some(0));
    assert_eq!(check(&["http://127.0.0.1:9/"]).await.0, Some(3));
}
