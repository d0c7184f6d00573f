//! The rule table against the IANA registries, row by row.
//!
//! <https://www.iana.org/assignments/iana-ipv4-special-registry> and
//! <https://www.iana.org/assignments/iana-ipv6-special-registry>. A row of theirs that is not globally
//! reachable is denied from its first address to its last; one that is, is allowed, unless it is listed
//! here as one where we are stricter.

use ipnet::IpNet;

use super::*;

/// What the registry says in its column "globally reachable".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registry {
    Reachable,
    /// False, or not applicable.
    Not,
    /// Reachable, but never a receiver: ours is stricter, by this rule.
    Stricter(&'static str),
}
use Registry::{Not, Reachable, Stricter};

const ROWS: &[(&str, &str, Registry)] = &[
    ("0.0.0.0/8", "this network", Not),
    ("0.0.0.0/32", "this host on this network", Not),
    ("10.0.0.0/8", "private use", Not),
    ("100.64.0.0/10", "shared address space", Not),
    ("127.0.0.0/8", "loopback", Not),
    ("169.254.0.0/16", "link local", Not),
    ("172.16.0.0/12", "private use", Not),
    ("192.0.0.0/24", "IETF protocol assignments", Not),
    ("192.0.0.0/29", "IPv4 service continuity prefix", Not),
    ("192.0.0.8/32", "IPv4 dummy address", Not),
    ("192.0.0.9/32", "port control protocol anycast", Stricter("protocol_assignments")),
    ("192.0.0.10/32", "traversal using relays around NAT anycast", Stricter("protocol_assignments")),
    ("192.0.0.170/32", "NAT64/DNS64 discovery", Not),
    ("192.0.0.171/32", "NAT64/DNS64 discovery", Not),
    ("192.0.2.0/24", "documentation, TEST-NET-1", Not),
    ("192.31.196.0/24", "AS112-v4", Reachable),
    ("192.52.193.0/24", "AMT", Reachable),
    ("192.88.99.0/24", "6to4 relay anycast, deprecated", Not),
    ("192.88.99.2/32", "6a44 relay anycast", Not),
    ("192.168.0.0/16", "private use", Not),
    ("192.175.48.0/24", "direct delegation AS112 service", Reachable),
    ("198.18.0.0/15", "benchmarking", Not),
    ("198.51.100.0/24", "documentation, TEST-NET-2", Not),
    ("203.0.113.0/24", "documentation, TEST-NET-3", Not),
    ("240.0.0.0/4", "reserved", Not),
    ("255.255.255.255/32", "limited broadcast", Not),
    ("::1/128", "loopback", Not),
    ("::/128", "unspecified", Not),
    ("::ffff:0:0/96", "IPv4-mapped", Not),
    // Reachable as far as the IPv4 address inside is: a test of its own.
    ("64:ff9b:0:0:0:0:808:0/112", "IPv4-IPv6 translation", Reachable),
    ("64:ff9b:1::/48", "IPv4-IPv6 translation, local", Not),
    ("100::/64", "discard only", Not),
    ("100:0:0:1::/64", "dummy IPv6 prefix", Not),
    ("2001::/23", "IETF protocol assignments", Not),
    ("2001::/32", "Teredo", Not),
    ("2001:1::1/128", "port control protocol anycast", Stricter("protocol_assignments")),
    ("2001:1::2/128", "traversal using relays around NAT anycast", Stricter("protocol_assignments")),
    ("2001:1::3/128", "DNS-SD service registration anycast", Stricter("protocol_assignments")),
    ("2001:2::/48", "benchmarking", Not),
    ("2001:3::/32", "AMT", Stricter("protocol_assignments")),
    ("2001:4:112::/48", "AS112-v6", Stricter("protocol_assignments")),
    ("2001:10::/28", "ORCHID, deprecated", Not),
    ("2001:20::/28", "ORCHIDv2", Stricter("protocol_assignments")),
    ("2001:30::/28", "drone remote identifiers", Stricter("protocol_assignments")),
    ("2001:db8::/32", "documentation", Not),
    ("2002::/16", "6to4", Not),
    ("2620:4f:8000::/48", "direct delegation AS112 service", Reachable),
    ("3fff::/20", "documentation", Not),
    ("5f00::/16", "segment routing identifiers", Not),
    ("fc00::/7", "unique local", Not),
    ("fe80::/10", "link-local unicast", Not),
    // Of the registries of multicast addresses.
    ("224.0.0.0/4", "multicast", Not),
    ("ff00::/8", "multicast", Not),
    // Once assigned, now returned; a router may still know them.
    ("fec0::/10", "site local, deprecated (RFC 3879)", Not),
    ("3ffe::/16", "6bone (RFC 3701)", Not),
];

#[test]
fn every_row_of_the_iana_registries_is_judged_as_it_says_or_more_strictly() {
    for &(block, name, registry) in ROWS {
        let block: IpNet = block.parse().unwrap();
        for address in [block.network(), block.broadcast()] {
            let verdict = strict().judge_address(address);
            match registry {
                Not => assert!(!verdict.allowed, "{block} {name}: {address} {verdict:?}"),
                Reachable => assert_eq!(verdict, Verdict::allowed("public"), "{block} {name}: {address}"),
                Stricter(rule) => assert_eq!(verdict, Verdict::denied(rule), "{block} {name}: {address}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn an_ipv4_address_of_no_row_is_public(bits in any::<u32>()) {
        let address = IpAddr::from(Ipv4Addr::from_bits(bits));
        let is_special = ROWS.iter().any(|&(block, _, registry)| {
            registry != Reachable && block.parse::<IpNet>().unwrap().contains(&address)
        });
        // The metadata service of one cloud is public to the registry.
        let is_denied = is_special || METADATA.iter().any(|known| ip(known) == address);
        prop_assert_eq!(strict().judge_address(address).allowed, !is_denied, "{}", address);
    }

    #[test]
    fn a_global_ipv6_address_of_no_row_is_public(bits in any::<u128>()) {
        let address = Ipv6Addr::from_bits(bits >> 3 | 1 << 125);
        let is_special = ROWS.iter().any(|&(block, _, registry)| {
            registry != Reachable && block.parse::<IpNet>().unwrap().contains(&IpAddr::from(address))
        });
        let is_isatap = address.segments()[5] == 0x5efe;
        prop_assume!(!is_isatap);
        prop_assert_eq!(strict().judge_address(address.into()).allowed, !is_special, "{}", address);
    }
}
