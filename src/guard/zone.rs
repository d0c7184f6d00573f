//! What of a host its owner cannot make up.
//!
//! One name server answers for as many names as it likes, and one line has as many IPv6 addresses. So
//! limits that are to keep strangers apart count zones: the registered domain, or the network.

use std::net::IpAddr;

/// Second-level domains that are this short below a country's are mostly registries: `co.uk`, `com.br`.
const REGISTRY_LETTERS: usize = 3;

/// The zone of a host in lower case, without brackets: a name's last two labels, three below a registry;
/// an IPv4 address itself; the first 64 bits of an IPv6 address.
///
/// A guess without a list of registries: where it is wrong, strangers share a limit or one has several.
#[must_use]
pub fn zone(host: &str) -> String {
    match host.parse() {
        // No other notation of it is read as an address.
        Ok(IpAddr::V4(_)) => return host.to_owned(),
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            return format!("{a:x}:{b:x}:{c:x}:{d:x}::/64");
        }
        Err(_) => {}
    }
    let name = host.trim_end_matches('.');
    let labels: Vec<&str> = name.rsplitn(4, '.').collect();
    let below_registry = labels.len() > 2 && labels[0].len() == 2 && labels[1].len() <= REGISTRY_LETTERS;
    let kept = labels.len().min(if below_registry { 3 } else { 2 });
    let dots = kept.saturating_sub(1);
    let length = labels[..kept].iter().map(|label| label.len()).sum::<usize>() + dots;
    name[name.len() - length..].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_cost_nothing_are_in_one_zone() {
        for (host, expected) in [
            ("evil.example", "evil.example"),
            ("a.evil.example", "evil.example"),
            ("a.b.c.d.evil.example.", "evil.example"),
            ("hooks.shop.co.uk", "shop.co.uk"),
            ("a.b.shop.com.br", "shop.com.br"),
            ("shop.de", "shop.de"),
            ("co.uk", "co.uk"),
            ("bbc.uk", "bbc.uk"),
            ("localhost", "localhost"),
            ("", ""),
            (".", ""),
            ("a..b", ".b"),
            ("93.184.216.34", "93.184.216.34"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(zone(host), expected, "{host}");
        }
    }

    proptest! {
        #[test]
        fn a_label_before_a_name_changes_no_zone(
            name in "[a-z]{1,9}\\.[a-z]{1,9}\\.[a-z]{2,9}",
            label in "[a-z0-9-]{1,9}",
        ) {
            prop_assert_eq!(zone(&format!("{label}.{name}")), zone(&name));
        }

        #[test]
        fn the_zone_of_any_text_is_its_end(host in "[^:]{0,40}") {
            prop_assert!(host.trim_end_matches('.').ends_with(&zone(&host)));
        }
    }
}
