//! The numbers in `docs/SECURITY.md` are the defaults, and no default is missing there.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::{Table, Value};

use super::read;

/// Bounds nothing, or is bounded by what stands there.
const NO_LIMITS: [&str; 3] = ["server.threads", "upstreams.preserve_host", "upstreams.retry.statuses"];

/// A default as it is meant, however it is written.
#[derive(Debug, PartialEq)]
enum Amount {
    None,
    Flag(bool),
    Count(u64),
    Time(Duration),
    Bytes(u64),
    List(Vec<Amount>),
}

impl Amount {
    /// As a document writes it, such as `10,000`, `30 s`, `64 KB`, `200 ms, 1 s`.
    fn written(text: &str) -> Option<Self> {
        let flag = |is| Some(Self::Flag(is));
        match text {
            "none" => return Some(Self::None),
            "yes" => return flag(true),
            "no" => return flag(false),
            _ => {}
        }
        if text.contains(", ") {
            return text.split(", ").map(Self::written).collect::<Option<_>>().map(Self::List);
        }
        let digits = text.replace(',', "");
        if let Ok(count) = digits.parse() {
            return Some(Self::Count(count));
        }
        let time = humantime::parse_duration(text).ok().map(Self::Time);
        let is_size = text.ends_with('B');
        time.or_else(|| {
            text.parse().ok().filter(|_| is_size).map(|size: bytesize::ByteSize| Self::Bytes(size.0))
        })
    }

    /// As the configuration holds it; `None` for what is no amount, such as a path.
    fn configured(value: &Value) -> Option<Self> {
        match value {
            Value::Boolean(is) => Some(Self::Flag(*is)),
            Value::Integer(0) => Some(Self::None),
            Value::Integer(count) => u64::try_from(*count).ok().map(Self::Count),
            Value::String(text) if !["none", "yes", "no"].contains(&text.as_str()) => Self::written(text),
            Value::Array(values) => match values.as_slice() {
                [] => None,
                [one] => Self::configured(one),
                several => several.iter().map(Self::configured).collect::<Option<_>>().map(Self::List),
            },
            _ => None,
        }
    }
}

/// Every amount in `config.default.toml`, by its key.
fn defaults() -> BTreeMap<String, Amount> {
    fn collect(table: &Table, path: &str, found: &mut BTreeMap<String, Amount>) {
        for (key, value) in table {
            let key = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                Value::Table(table) => collect(table, &key, found),
                Value::Array(entries) if entries.iter().any(Value::is_table) => {
                    for entry in entries {
                        collect(entry.as_table().expect("a list of sections holds sections"), &key, found);
                    }
                }
                value => found.extend(Amount::configured(value).map(|amount| (key, amount))),
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&read("config.default.toml").parse().expect("the defaults are TOML"), "", &mut found);
    found
}

/// What the document says of settings: in tables, as `key` | amount, and in sentences, as `key` (amount).
fn said(document: &str) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for row in document.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (key, rest) = row.split_once('`').expect("a key ends");
        let cell = rest.split(" | ").nth(1).unwrap_or_default();
        // Behind a semicolon stands another limit, behind a colon an explanation.
        let amount = cell.split([';', ':']).next().unwrap_or_default().trim();
        said.push((key.to_owned(), amount.to_owned()));
    }
    for (at, _) in document.match_indices("` (") {
        let key = document[..at].rsplit('`').next().unwrap_or_default();
        let amount = document[at + 3..].split([')', ';']).next().unwrap_or_default();
        if Amount::written(amount).is_some() {
            said.push((key.to_owned(), amount.to_owned()));
        }
    }
    said
}

#[test]
fn the_numbers_in_the_security_document_are_the_defaults() {
    let (defaults, said) = (defaults(), said(&read("docs/SECURITY.md")));
    let mut wrong = Vec::new();
    for (key, text) in &said {
        let amount = Amount::written(text);
        if amount.is_none() || amount.as_ref() != defaults.get(key) {
            wrong.push(format!("{key}: the document says {text:?}, the default is {:?}", defaults.get(key)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(said.len() > 40, "only {} numbers were found", said.len());
}

#[test]
fn no_default_is_missing_from_the_security_document() {
    let said = said(&read("docs/SECURITY.md"));
    let missing: Vec<_> = defaults()
        .into_keys()
        .filter(|key| !NO_LIMITS.contains(&key.as_str()) && !said.iter().any(|(known, _)| known == key))
        .collect();
    assert!(missing.is_empty(), "not in docs/SECURITY.md: {missing:?}");
}
