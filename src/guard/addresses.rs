//! Which addresses are somebody's public host, by the IANA special-purpose address registries
//! (RFC 6890 and its updates). Everything else is denied, and so is every way of writing an IPv4
//! address inside an IPv6 one, but the well-known NAT64 prefix, which is judged by what it holds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

type V4 = (Ipv4Addr, u32, &'static str);
type V6 = (Ipv6Addr, u32, &'static str);

/// Stricter than the registry in two rows: 192.0.0.0/24 holds two anycast addresses that are
/// globally reachable, but they lead to the caller's own network equipment; and the address of one
/// cloud's metadata service is public.
const DENIED_V4: [V4; 17] = [
    (Ipv4Addr::UNSPECIFIED, 8, "this_network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    // Most clouds serve metadata and credentials here.
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link_local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "protocol_assignments"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4_relay"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarking"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation"),
    (Ipv4Addr::new(168, 63, 129, 16), 32, "metadata"),
    (Ipv4Addr::BROADCAST, 32, "broadcast"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// Inside `2000::/3`. The whole of `2001::/23` is denied: what is reachable in it are anycast services
/// of networks and identifiers that are no addresses, never a receiver.
const DENIED_V6: [V6; 6] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, "teredo"),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "protocol_assignments"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "6to4"),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, "6bone"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "documentation"),
];

/// Outside `2000::/3`, where everything is denied; the rows only give the denial its name.
const NAMED_V6: [V6; 12] = [
    (Ipv6Addr::UNSPECIFIED, 128, "unspecified"),
    (Ipv6Addr::LOCALHOST, 128, "loopback"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "ipv4_mapped"),
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96, "ipv4_translated"),
    (Ipv6Addr::UNSPECIFIED, 96, "ipv4_compatible"),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, "local_nat64"),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64, "discard"),
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16, "segment_routing"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "unique_local"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "link_local"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "site_local"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast"),
];

/// The rule that denies the address; `None` for a public one.
pub(super) fn denial(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => denial_v4(address),
        IpAddr::V6(address) => denial_v6(address),
    }
}

fn denial_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    DENIED_V4.iter().find(|(net, length, _)| (bits ^ net.to_bits()) >> (32 - length) == 0).map(|row| row.2)
}

fn denial_v6(address: Ipv6Addr) -> Option<&'static str> {
    let within = |rows: &[V6]| {
        let bits = address.to_bits();
        rows.iter().find(|(net, length, _)| (bits ^ net.to_bits()) >> (128 - length) == 0).map(|row| row.2)
    };
    if let Some(embedded) = nat64(address) {
        return denial_v4(embedded);
    }
    if address.segments()[0] & 0xe000 != 0x2000 {
        return Some(within(&NAMED_V6).unwrap_or("not_global_unicast"));
    }
    within(&DENIED_V6).or_else(|| is_isatap(address).then_some("isatap"))
}

/// The IPv4 address inside `64:ff9b::/96` (RFC 6052).
pub(super) fn nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (prefix, embedded) = (address.to_bits() >> 32, address.to_bits() & u128::from(u32::MAX));
    (prefix == 0x0064_ff9b_0000_0000_0000_0000)
        .then(|| Ipv4Addr::from_bits(u32::try_from(embedded).unwrap_or_default()))
}

/// The IPv4 address that an IPv6 one leads to, where a socket or a translator reads it so.
pub(super) fn innermost(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(outer) => nat64(outer).map_or(IpAddr::V6(outer), IpAddr::V4),
        inner @ IpAddr::V4(_) => inner,
    }
}

/// An interface identifier that holds an IPv4 address (RFC 5214, 6.1), in any prefix.
fn is_isatap(address: Ipv6Addr) -> bool {
    let identifier = &address.segments()[4..];
    identifier[0] & !0x0200 == 0 && identifier[1] == 0x5efe
}
