//! `config.default.toml` and the structs hold exactly the same keys.

use serde::de::value::Error;
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize as _, forward_to_deserialize_any};
use toml::de::DeValue;

use crate::config::tree::{Table, at};
use crate::config::{
    Config, CorsConfig, HeadersConfig, IdentityConfig, RetentionConfig, RetryConfig, ServerConfig, Sources,
    StoreConfig, UpstreamConfig, WebhooksConfig, load,
};

/// Asks a struct for the names of its fields.
struct Fields<'a>(&'a mut Vec<String>);

impl<'de> serde::Deserializer<'de> for Fields<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("asked"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.0.extend(fields.iter().map(|&field| field.to_owned()));
        Err(Error::custom("asked"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<T: DeserializeOwned>() -> Vec<String> {
    let mut fields = Vec::new();
    assert!(T::deserialize(Fields(&mut fields)).is_err(), "asking gives no value");
    fields.sort();
    fields
}

fn keys(table: &Table<'_>) -> Vec<String> {
    let mut keys: Vec<_> = table.keys().map(|key| key.get_ref().to_string()).collect();
    keys.sort();
    keys
}

#[track_caller]
fn same<T: DeserializeOwned>(known: &Table<'_>, key: &str) {
    let Some(DeValue::Table(table)) = at(known, key).map(toml::Spanned::get_ref) else {
        panic!("no section {key}")
    };
    assert_eq!(fields::<T>(), keys(table), "{key}");
}

#[test]
fn every_struct_key_stands_in_the_default_file_and_no_other() {
    let known = load::known();
    assert_eq!(fields::<Config>(), keys(&known));
    same::<ServerConfig>(&known, "server");
    same::<StoreConfig>(&known, "store");
    same::<UpstreamConfig>(&known, "upstreams.0");
    same::<HeadersConfig>(&known, "upstreams.0.headers");
    same::<CorsConfig>(&known, "upstreams.0.cors");
    same::<IdentityConfig>(&known, "upstreams.0.identity");
    same::<RetryConfig>(&known, "upstreams.0.retry");
    same::<WebhooksConfig>(&known, "webhooks");
    same::<RetentionConfig>(&known, "retention");
}

#[test]
fn every_default_is_explained() {
    let mut explained = false;
    for line in load::DEFAULTS.lines() {
        let is_key = !line.is_empty() && !line.starts_with(['#', '[']);
        // Pairs share a comment: `issuer` and `audience`, a certificate and its key.
        let second = ["audience", "jwks_file", "client_secret", "tls_key_file", "client_key_file"];
        let shares = second.iter().any(|key| line.starts_with(key));
        assert!(!is_key || explained || shares, "no comment above `{line}`");
        explained = line.starts_with('#');
    }
}

#[test]
fn the_default_statuses_are_those_of_the_domain() {
    let config = Config::from_toml("[[upstreams]]\nurl = \"http://a\"\n").unwrap_or_else(|e| panic!("{e}"));
    let (statuses, domain) =
        (&config.upstreams[0].retry.statuses, crate::outcome::TransientStatuses::default());
    for status in 100..1000 {
        assert_eq!(statuses.contains(status), domain.contains(status), "{status}");
    }
}

/// Every key that holds a value, with its default; of an upstream as `upstreams.0.…`.
fn leaves(table: &Table<'_>, path: &str, found: &mut Vec<(String, String)>) {
    for (key, node) in table {
        let path = format!("{path}{}", key.get_ref());
        match node.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => leaves(inner, &format!("{path}."), found),
            DeValue::Array(list)
                if matches!(list.first().map(toml::Spanned::get_ref), Some(DeValue::Table(_))) =>
            {
                let Some(DeValue::Table(template)) = list.first().map(toml::Spanned::get_ref) else {
                    continue;
                };
                leaves(template, &format!("{path}.0."), found);
            }
            _ => {
                let value =
                    toml::Value::deserialize(toml::de::ValueDeserializer::from(node.clone())).unwrap();
                found.push((path, value.to_string()));
            }
        }
    }
}

fn all_leaves() -> Vec<(String, String)> {
    let mut found = Vec::new();
    leaves(&load::known(), "", &mut found);
    assert!(found.len() > 50, "{found:?}");
    found
}

#[test]
fn every_key_can_be_set_by_a_variable() {
    for (key, default) in all_leaves() {
        let name = format!("RINGBACK_{}", key.to_uppercase().replace('.', "__"));
        let value = if key == "upstreams.0.url" { String::from("http://b") } else { default };
        let base = Some(String::from("[[upstreams]]\nurl = \"http://a\"\n"));
        let sources = Sources { base, env: vec![(name.clone(), value)], ..Sources::default() };
        let loaded = Config::load_shown(sources).unwrap_or_else(|errors| panic!("{key}: {errors}"));
        assert!(loaded.shown.contains(&format!("# {name}\n")), "{name}: {}", loaded.shown);
    }
}

#[test]
fn no_value_of_any_key_makes_loading_panic_and_a_wrong_type_names_its_key() {
    let values = [
        "5",
        "-1",
        "1.5",
        "nan",
        "true",
        "\"\"",
        "\"x\"",
        "[]",
        "[1]",
        "[[1]]",
        "{}",
        "{ a = 1 }",
        "1979-05-27",
    ];
    for (key, _) in all_leaves() {
        for value in values {
            let name = key.rsplit('.').next().unwrap();
            let section = key.trim_end_matches(name).trim_end_matches('.');
            let (list, section) = match section.split_once(".0") {
                Some((list, rest)) => (format!("[[{list}]]\n"), format!("{list}{rest}")),
                None => (String::new(), section.to_owned()),
            };
            let heading = if list.is_empty() || section != "upstreams" {
                format!("[{section}]\n")
            } else {
                String::new()
            };
            let text = format!("{list}{heading}{name} = {value}\n");
            let Err(errors) = Config::from_toml(&text) else { continue };
            for problem in errors.0.iter().filter(|problem| problem.error.code() == "bad_value") {
                assert!(problem.to_string().contains(name), "{text}: {problem}");
                assert!(
                    problem.place.as_deref().is_some_and(|place| place.starts_with("ringback.toml:")),
                    "{problem}"
                );
            }
        }
    }
}
