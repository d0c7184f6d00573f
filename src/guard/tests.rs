use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::SignatureScheme;

mod registries;
mod uris;

/// What a node without a `[webhooks]` section of its own allows.
pub(crate) fn config() -> WebhooksConfig {
    WebhooksConfig {
        delays: vec![Duration::from_millis(1)],
        jitter: 0.0,
        timeout: Duration::from_secs(10),
        allow_http: false,
        allow_networks: Vec::new(),
        allow_hosts: Vec::new(),
        ports: vec![443],
        allow_loopback: false,
        signatures: vec![SignatureScheme::V1, SignatureScheme::V1a],
        jwks_path: String::from("/.well-known/jwks"),
        concurrency: 8,
        per_host_concurrency: 2,
        own_listeners: Vec::new(),
    }
}

/// As with `--dev` and in the sandbox.
pub(crate) fn loopback_config() -> WebhooksConfig {
    WebhooksConfig { allow_loopback: true, ..config() }
}

fn strict() -> Rules {
    Rules::new(&config())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// First and last address of each block that the IANA special-purpose registries call not globally
/// reachable, and of each other block that is denied, with the rule that says so.
const DENIED: &[(&str, &str, &str)] = &[
    ("0.0.0.0", "0.255.255.255", "this_network"),
    ("10.0.0.0", "10.255.255.255", "private"),
    ("100.64.0.0", "100.127.255.255", "shared"),
    ("127.0.0.0", "127.255.255.255", "loopback"),
    ("169.254.0.0", "169.254.255.255", "link_local"),
    ("172.16.0.0", "172.31.255.255", "private"),
    ("192.0.0.0", "192.0.0.255", "protocol_assignments"),
    ("192.0.2.0", "192.0.2.255", "documentation"),
    ("192.88.99.0", "192.88.99.255", "6to4_relay"),
    ("192.168.0.0", "192.168.255.255", "private"),
    ("198.18.0.0", "198.19.255.255", "benchmarking"),
    ("198.51.100.0", "198.51.100.255", "documentation"),
    ("203.0.113.0", "203.0.113.255", "documentation"),
    ("224.0.0.0", "239.255.255.255", "multicast"),
    ("240.0.0.0", "255.255.255.254", "reserved"),
    ("255.255.255.255", "255.255.255.255", "broadcast"),
    ("::", "::", "unspecified"),
    ("::1", "::1", "loopback"),
    ("::2", "::ffff:ffff", "ipv4_compatible"),
    ("::ffff:0:0", "::ffff:ffff:ffff", "ipv4_mapped"),
    ("::ffff:0:0:0", "::ffff:0:ffff:ffff", "ipv4_translated"),
    ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "local_nat64"),
    ("100::", "100::ffff:ffff:ffff:ffff", "discard"),
    ("100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", "not_global_unicast"),
    ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "teredo"),
    ("2001:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "protocol_assignments"),
    ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", "protocol_assignments"),
    ("2001:10::", "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff", "protocol_assignments"),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "6to4"),
    ("3ffe::", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "6bone"),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"),
    ("4000::", "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "not_global_unicast"),
    ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "segment_routing"),
    ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "unique_local"),
    ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "link_local"),
    ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "site_local"),
    ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"),
];

/// Just outside the blocks above, and known public hosts.
const PUBLIC: &[&str] = &[
    "1.0.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "203.0.114.0",
    "223.255.255.255",
    "168.63.129.15",
    "168.63.129.17",
    "2000::",
    "2001:200::",
    "2001:db7:ffff::",
    "2001:db9::",
    "2003::",
    "2620:4f:8000::",
    "2a00:1450:4001:81b::200e",
    "3fff:1000::",
];

/// Where clouds keep credentials.
const METADATA: &[&str] = &[
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
];

#[test]
fn every_special_purpose_block_is_denied_from_its_first_address_to_its_last() {
    for &(first, last, rule) in DENIED {
        for address in [first, last] {
            assert_eq!(strict().judge_address(ip(address)), Verdict::denied(rule), "{address}");
        }
    }
}

#[test]
fn public_addresses_pass() {
    for address in PUBLIC {
        assert_eq!(strict().judge_address(ip(address)), Verdict::allowed("public"), "{address}");
    }
}

#[test]
fn metadata_services_are_denied() {
    for address in METADATA {
        assert!(!strict().judge_address(ip(address)).allowed, "{address}");
    }
}

#[test]
fn isatap_identifiers_are_denied_in_any_prefix() {
    for address in ["2a00:1450::5efe:a00:1", "2a00:1450::200:5efe:a00:1", "2a00:1450::5efe:808:808"] {
        assert_eq!(strict().judge_address(ip(address)), Verdict::denied("isatap"), "{address}");
    }
}

#[test]
fn well_known_nat64_is_judged_by_the_address_inside() {
    assert_eq!(strict().judge_address(ip("64:ff9b::8.8.8.8")), Verdict::allowed("public"));
    assert_eq!(strict().judge_address(ip("64:ff9b::10.0.0.1")), Verdict::denied("private"));
    assert_eq!(strict().judge_address(ip("64:ff9b::1:8.8.8.8")), Verdict::denied("not_global_unicast"));
}

#[test]
fn a_named_network_is_allowed_and_nothing_beside_it() {
    let networks = vec!["10.1.0.0/16".parse().unwrap(), "fd12::/16".parse().unwrap()];
    let rules = Rules::new(&WebhooksConfig { allow_networks: networks, ..config() });
    for (address, allowed) in [
        ("10.1.2.3", true),
        ("10.2.0.0", false),
        ("fd12::1", true),
        ("fd13::1", false),
        ("64:ff9b::10.1.2.3", true),
        // Another spelling is another address: naming the IPv4 network does not open it.
        ("::ffff:10.1.2.3", false),
        ("127.0.0.1", false),
    ] {
        assert_eq!(rules.judge_address(ip(address)).allowed, allowed, "{address}");
    }
}

#[test]
fn loopback_is_loopback_only() {
    let rules = Rules::new(&loopback_config());
    for (address, allowed) in [
        ("127.0.0.1", true),
        ("127.8.9.10", true),
        ("::1", true),
        ("::ffff:127.0.0.1", false),
        ("64:ff9b::127.0.0.1", false),
        ("0.0.0.0", false),
        ("10.0.0.1", false),
    ] {
        assert_eq!(rules.judge_address(ip(address)).allowed, allowed, "{address}");
    }
}

fn connection(rules: &Rules, origin: (bool, &str, u16), addresses: &[&str]) -> Result<(), &'static str> {
    let (tls, host, port) = origin;
    let addresses: Vec<_> = addresses.iter().map(|text| SocketAddr::new(ip(text), port)).collect();
    rules.judge_connection(tls, host, &addresses)
}

#[test]
fn one_denied_address_denies_the_host() {
    let origin = (true, "mixed.test", 443);
    assert_eq!(connection(&strict(), origin, &["8.8.8.8", "2a00:1450::1"]), Ok(()));
    assert_eq!(connection(&strict(), origin, &["8.8.8.8", "10.0.0.1"]), Err("private"));
    assert_eq!(connection(&strict(), origin, &["fe80::1", "8.8.8.8"]), Err("link_local"));
    assert_eq!(connection(&strict(), origin, &[]), Err("no_address"));
}

#[test]
fn scheme_and_port_are_judged_at_the_connection_too() {
    assert_eq!(connection(&strict(), (false, "a.test", 443), &["8.8.8.8"]), Err("scheme"));
    assert_eq!(connection(&strict(), (true, "a.test", 8443), &["8.8.8.8"]), Err("port"));
}

#[test]
fn an_allowed_host_may_resolve_to_anything_but_keeps_scheme_and_port() {
    let rules = Rules::new(&WebhooksConfig { allow_hosts: vec!["Hooks.Internal".into()], ..config() });
    assert_eq!(connection(&rules, (true, "hooks.internal", 443), &["10.0.0.1"]), Ok(()));
    assert_eq!(connection(&rules, (true, "x.hooks.internal", 443), &["10.0.0.1"]), Err("private"));
    assert_eq!(connection(&rules, (false, "hooks.internal", 443), &["10.0.0.1"]), Err("scheme"));
    assert_eq!(connection(&rules, (true, "hooks.internal", 22), &["10.0.0.1"]), Err("port"));
}

#[test]
fn a_name_must_really_be_loopback_to_be_called_in_the_clear() {
    let rules = Rules::new(&loopback_config());
    assert_eq!(connection(&rules, (false, "localhost", 8091), &["::1", "127.0.0.1"]), Ok(()));
    assert_eq!(connection(&rules, (false, "localhost", 8091), &["127.0.0.1", "8.8.8.8"]), Err("scheme"));
    assert_eq!(connection(&rules, (true, "a.localhost", 8091), &["8.8.8.8"]), Err("port"));
    assert_eq!(connection(&rules, (true, "a.localhost", 443), &["10.0.0.1"]), Err("private"));
}

proptest! {
    #[test]
    fn no_ipv6_address_outside_2000_3_passes_but_by_nat64(bits in any::<u128>()) {
        let address = Ipv6Addr::from_bits(bits);
        let global = bits >> 125 == 1;
        let nat64 = bits >> 32 == 0x0064_ff9b_0000_0000_0000_0000;
        prop_assert!(global || nat64 || !strict().judge_address(address.into()).allowed);
    }

    #[test]
    fn ipv4_inside_ipv6_never_opens_more_than_the_ipv4_address(bits in any::<u32>(), prefix in any::<u32>()) {
        let inside = Ipv4Addr::from_bits(bits);
        let direct = strict().judge_address(inside.into());
        prop_assert_eq!(strict().judge_address(ip(&format!("64:ff9b::{inside}"))), direct);
        let [high, low] = [bits >> 16, bits & 0xffff];
        let [first, second] = [prefix >> 16, prefix & 0xffff];
        for spelling in [
            format!("::ffff:{inside}"),
            format!("::{inside}"),
            format!("::ffff:0:{inside}"),
            format!("64:ff9b:1::{inside}"),
            format!("2002:{high:x}:{low:x}::1"),
            format!("2001:0:{first:x}:{second:x}:0:0:{high:x}:{low:x}"),
            format!("2a00:{first:x}:{second:x}::5efe:{inside}"),
        ] {
            prop_assert!(!strict().judge_address(ip(&spelling)).allowed, "{}", spelling);
        }
    }

    #[test]
    fn every_address_between_the_first_and_the_last_of_a_block_is_denied(row in 0..DENIED.len(), at in any::<u128>()) {
        let (first, last, _) = DENIED[row];
        let inner = match (ip(first), ip(last)) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let span = u128::from(last.to_bits() - first.to_bits()) + 1;
                IpAddr::from(Ipv4Addr::from_bits(first.to_bits() + u32::try_from(at % span).unwrap()))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let span = last.to_bits() - first.to_bits();
                IpAddr::from(Ipv6Addr::from_bits(first.to_bits() + at % span.saturating_add(1)))
            }
            _ => unreachable!("a row is of one family"),
        };
        prop_assert!(!strict().judge_address(inner).allowed, "{}", inner);
    }
}

#[test]
fn the_nodes_own_listeners_are_denied_whatever_is_allowed() {
    let listen = |text: &str| {
        let config = WebhooksConfig {
            own_listeners: vec![text.parse().unwrap()],
            allow_http: true,
            allow_networks: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            allow_hosts: vec!["me.test".to_owned()],
            ports: vec![8080, 8081],
            ..loopback_config()
        };
        Rules::new(&config)
    };
    let judge =
        |rules: &Rules, address: &str| rules.judge_connection(false, "me.test", &[address.parse().unwrap()]);
    let own = Err("own_listener");
    assert_eq!(judge(&listen("127.0.0.1:8080"), "127.0.0.1:8080"), own);
    assert_eq!(judge(&listen("127.0.0.1:8080"), "[::ffff:127.0.0.1]:8080"), own);
    assert_eq!(judge(&listen("127.0.0.1:8080"), "127.0.0.1:8081"), Ok(()));
    assert_eq!(judge(&listen("0.0.0.0:8080"), "127.3.2.1:8080"), own);
    assert_eq!(judge(&listen("[::]:8080"), "127.0.0.1:8080"), own);
    // The kernel takes the unspecified address for loopback.
    for (listener, address) in [
        ("127.0.0.1:8080", "0.0.0.0:8080"),
        ("[::1]:8080", "[::]:8080"),
        ("0.0.0.0:8080", "0.0.0.0:8080"),
        ("0.0.0.0:8080", "[::]:8080"),
        ("127.0.0.1:8080", "[::ffff:0.0.0.0]:8080"),
        ("[::ffff:127.0.0.1]:8080", "127.0.0.1:8080"),
        ("93.184.216.34:8080", "[64:ff9b::93.184.216.34]:8080"),
    ] {
        assert_eq!(judge(&listen(listener), address), own, "{address}");
    }
    assert_eq!(
        judge(&listen("0.0.0.0:8080"), "93.184.216.34:8080"),
        Ok(()),
        "whether it is ours, the socket tells"
    );
    let socket = |rules: &Rules, local: &str, peer: &str| {
        rules.judge_socket(local.parse().unwrap(), peer.parse().unwrap())
    };
    let rules = listen("0.0.0.0:8080");
    assert_eq!(socket(&rules, "192.0.2.7:50000", "192.0.2.7:8080"), own);
    assert_eq!(socket(&rules, "127.0.0.1:50000", "127.0.0.2:8080"), own);
    assert_eq!(socket(&rules, "192.0.2.7:50000", "192.0.2.7:8081"), Ok(()));
    assert_eq!(socket(&rules, "192.0.2.7:50000", "93.184.216.34:8080"), Ok(()));
    // However it was dialled: the listener's own address is at the other end.
    assert_eq!(socket(&listen("127.0.0.1:8080"), "127.0.0.1:50000", "127.0.0.1:8080"), own);
    assert_eq!(socket(&listen("192.0.2.7:8080"), "192.0.2.8:50000", "192.0.2.7:8080"), own);
    let uri = crate::guard::WebhookUri::parse("http://127.0.0.1:8080/", &rules);
    assert!(uri.err().unwrap().to_string().contains("own_listener"));
}
