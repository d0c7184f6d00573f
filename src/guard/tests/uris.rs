//! What a webhook URI may look like.

use super::*;

fn refusal(rules: &Rules, uri: &str) -> Option<UriRefusal> {
    WebhookUri::parse(uri, rules).err()
}

#[test]
fn a_webhook_uri_is_kept_byte_for_byte() {
    for (uri, target) in [
        ("https://Hooks.Example/a/../b%2fc?x=%41&y=+&z='(1)'", "/a/../b%2fc?x=%41&y=+&z='(1)'"),
        ("HTTPS://hooks.example:443?secret=1", "/?secret=1"),
        ("https://hooks.example", "/"),
        ("https://hooks.example//a;b=1?c?d/e:@!$&*,", "//a;b=1?c?d/e:@!$&*,"),
        ("https://[2a00:1450::1]:443/", "/"),
    ] {
        let parsed = WebhookUri::parse(uri, &strict()).unwrap_or_else(|why| panic!("{uri}: {why}"));
        assert_eq!(parsed.expose(), uri);
        assert_eq!(parsed.target().as_str(), target);
    }
}

#[test]
fn receivers_are_counted_by_host_and_port() {
    let key = |uri| WebhookUri::parse(uri, &strict()).ok().unwrap().host_key();
    assert_eq!(key("https://Hooks.Example/a"), "hooks.example:443");
    assert_eq!(key("https://hooks.example:443/b"), "hooks.example:443");
    assert_eq!(key("https://[2A00:1450:0:0::1]/"), key("https://[2a00:1450::1]"));
}

#[test]
fn what_is_not_a_webhook_uri_is_refused_with_its_reason() {
    let long = format!("https://a.test/{}", "x".repeat(4096));
    let label = format!("https://{}.test/", "x".repeat(64));
    for (uri, why) in [
        ("", UriRefusal::NotAbsolute),
        ("/hooks", UriRefusal::NotAbsolute),
        ("hooks.example/path", UriRefusal::NotAbsolute),
        ("//hooks.example/path", UriRefusal::NotAbsolute),
        ("https:/hooks.example", UriRefusal::NotAbsolute),
        ("https:hooks.example", UriRefusal::NotAbsolute),
        ("ht_tps://hooks.example", UriRefusal::NotAbsolute),
        ("ftp://hooks.example/", UriRefusal::Scheme),
        ("javascript:alert(1)", UriRefusal::Scheme),
        ("http://hooks.example/", UriRefusal::Scheme),
        ("https://", UriRefusal::NoHost),
        ("https:///path", UriRefusal::NoHost),
        ("https://:443/", UriRefusal::NoHost),
        ("https://?x", UriRefusal::NoHost),
        ("https://user@hooks.example/", UriRefusal::UserInfo),
        ("https://user:pw@hooks.example/", UriRefusal::UserInfo),
        ("https://good.example@10.0.0.1/", UriRefusal::UserInfo),
        ("https://hooks.example/#top", UriRefusal::Fragment),
        ("https://hooks.example/a b", UriRefusal::Character),
        (" https://hooks.example/", UriRefusal::Character),
        ("https://hooks.example\\@10.0.0.1/", UriRefusal::Character),
        ("https://hooks.example/\r\nx: y", UriRefusal::Character),
        ("https://hooks.example/\0", UriRefusal::Character),
        ("https://hooks.example/caf\u{e9}", UriRefusal::Character),
        ("https://h\u{f6}st.example/", UriRefusal::Character),
        ("https://\u{ff11}\u{ff10}.0.0.1/", UriRefusal::Character),
        ("https://hooks.example/{id}", UriRefusal::Character),
        ("https://hooks.example/?a[]=1", UriRefusal::Character),
        ("https://hooks.example/[", UriRefusal::Character),
        ("https://hooks.example/%", UriRefusal::Escape),
        ("https://hooks.example/%4", UriRefusal::Escape),
        ("https://hooks.example/%zz", UriRefusal::Escape),
        ("https://hooks%2eexample/", UriRefusal::Host),
        ("https://hooks.example./", UriRefusal::Host),
        ("https://.hooks.example/", UriRefusal::Host),
        ("https://a..b/", UriRefusal::Host),
        ("https://a,b/", UriRefusal::Host),
        (label.as_str(), UriRefusal::Host),
        ("https://[::1/", UriRefusal::Host),
        ("https://[::1]x/", UriRefusal::Host),
        ("https://[fe80::1%25eth0]/", UriRefusal::Host),
        ("https://[v1.a]/", UriRefusal::Host),
        ("https://[10.0.0.1]/", UriRefusal::Host),
        ("https://2a00:1450::1/", UriRefusal::PortNumber),
        ("https://hooks.example:/", UriRefusal::PortNumber),
        ("https://hooks.example:0/", UriRefusal::PortNumber),
        ("https://hooks.example:65536/", UriRefusal::PortNumber),
        ("https://hooks.example:+443/", UriRefusal::PortNumber),
        ("https://hooks.example:8443/", UriRefusal::Port),
        (long.as_str(), UriRefusal::TooLong),
    ] {
        assert_eq!(refusal(&strict(), uri), Some(why), "{uri}");
    }
}

#[test]
fn ipv4_addresses_are_read_in_their_usual_notation_only() {
    for host in [
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.1.",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.0x",
        "0x",
        "999",
        "a.0x1f",
        "example.1",
    ] {
        for rules in [strict(), Rules::new(&loopback_config())] {
            assert_eq!(refusal(&rules, &format!("https://{host}/")), Some(UriRefusal::Host), "{host}");
        }
    }
}

#[test]
fn literal_addresses_are_judged_at_submit() {
    for (uri, rule) in [
        ("https://127.0.0.1/", "loopback"),
        ("https://10.0.0.1/", "private"),
        ("https://169.254.169.254/latest/meta-data/", "link_local"),
        ("https://[::1]/", "loopback"),
        ("https://[::ffff:8.8.8.8]/", "ipv4_mapped"),
        ("https://[2002:7f00:1::]/", "6to4"),
        ("https://0.0.0.0/", "this_network"),
    ] {
        assert_eq!(refusal(&strict(), uri), Some(UriRefusal::Address(rule)), "{uri}");
    }
    assert_eq!(refusal(&strict(), "https://8.8.8.8/"), None);
}

#[test]
fn names_are_not_resolved_at_submit() {
    for uri in
        ["https://localhost/", "https://internal.test/", "https://my_host.0a/", "https://0x7g.example/"]
    {
        assert_eq!(refusal(&strict(), uri), None, "{uri}");
    }
}

#[test]
fn development_allows_loopback_receivers_in_the_clear_on_any_port() {
    let rules = Rules::new(&loopback_config());
    for uri in [
        "http://127.0.0.1:8091/hook",
        "http://[::1]:8091/",
        "http://localhost:8091/?fail=2",
        "http://inbox.localhost:1/",
        "https://LOCALHOST:8443/",
        "https://hooks.example/",
    ] {
        assert_eq!(refusal(&rules, uri), None, "{uri}");
    }
    for (uri, why) in [
        ("http://hooks.example:8091/", UriRefusal::Scheme),
        ("http://notlocalhost/", UriRefusal::Scheme),
        ("https://localhost.example:8091/", UriRefusal::Port),
        ("http://10.0.0.1/", UriRefusal::Address("private")),
        ("http://8.8.8.8/", UriRefusal::Scheme),
    ] {
        assert_eq!(refusal(&rules, uri), Some(why), "{uri}");
    }
}

#[test]
fn plain_http_and_other_ports_are_allowed_where_configured() {
    let rules = Rules::new(&WebhooksConfig { allow_http: true, ports: vec![80, 443, 8443], ..config() });
    for uri in ["http://hooks.example/", "https://hooks.example/", "https://hooks.example:8443/"] {
        assert_eq!(refusal(&rules, uri), None, "{uri}");
    }
    assert_eq!(refusal(&rules, "http://hooks.example:8080/"), Some(UriRefusal::Port));
}

#[test]
fn a_refusal_never_repeats_the_uri() {
    let secret = refusal(&strict(), "https://10.0.0.1/?token=s3cret").unwrap();
    assert!(!secret.to_string().contains("s3cret"));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic_or_change_it(text in "\\PC{0,60}|https?://[-a-z0-9.:@\\[\\]%/?]{0,40}") {
        for rules in [strict(), Rules::new(&loopback_config())] {
            if let Ok(uri) = WebhookUri::parse(&text, &rules) {
                prop_assert_eq!(uri.expose(), &text);
                prop_assert!(text.contains(uri.target().as_str().trim_start_matches('/')));
            }
        }
    }

    #[test]
    fn what_passes_reads_the_same_to_another_parser(text in "https://[a-z0-9.x_-]{1,20}(:443)?(/[a-z%20;:.]{0,9})?(\\?[a-z=&+/?]{0,9})?") {
        if let Ok(ours) = WebhookUri::parse(&text, &strict()) {
            let theirs: http::Uri = text.parse().unwrap();
            prop_assert_eq!(theirs.host(), Some(ours.host()));
            prop_assert_eq!(theirs.port_u16().unwrap_or(443), ours.port());
            prop_assert_eq!(theirs.path_and_query().map(ToString::to_string), Some(ours.target().to_string()));
        }
    }
}
