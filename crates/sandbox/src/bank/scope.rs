//! What a token allows: contract.md section 5.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    Info,
    Accounts,
    Balance,
    Cards,
    Transactions,
    DirectDebits,
    StandingOrders,
    OfflineAccess,
}

const NAMED: [(&str, Scope); 8] = [
    ("info", Scope::Info),
    ("accounts", Scope::Accounts),
    ("balance", Scope::Balance),
    ("cards", Scope::Cards),
    ("transactions", Scope::Transactions),
    ("direct_debits", Scope::DirectDebits),
    ("standing_orders", Scope::StandingOrders),
    ("offline_access", Scope::OfflineAccess),
];

/// Every scope there is, in the order they are always written.
pub(crate) fn all() -> Vec<Scope> {
    NAMED.into_iter().map(|(_, scope)| scope).collect()
}

/// Space-separated names, in any order; `None` when one is unknown or none is left.
pub(crate) fn parse(text: &str) -> Option<Vec<Scope>> {
    let wanted: Vec<&str> = text.split_ascii_whitespace().collect();
    let known = wanted.iter().all(|name| NAMED.iter().any(|(known, _)| known == name));
    let scopes: Vec<Scope> =
        NAMED.into_iter().filter(|(name, _)| wanted.contains(name)).map(|(_, scope)| scope).collect();
    (known && !scopes.is_empty()).then_some(scopes)
}

pub(crate) fn to_text(scopes: &[Scope]) -> String {
    let names = NAMED.into_iter().filter(|(_, scope)| scopes.contains(scope)).map(|(name, _)| name);
    names.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_in_any_order_and_write_in_one() {
        let scopes = parse("  transactions accounts ").unwrap();
        assert_eq!(to_text(&scopes), "accounts transactions");
        assert_eq!(serde_json::to_string(&scopes).unwrap(), r#"["accounts","transactions"]"#);
        assert_eq!(parse("accounts everything"), None);
        assert_eq!(parse(" "), None);
        assert_eq!(parse(&to_text(&all())), Some(all()));
    }
}
