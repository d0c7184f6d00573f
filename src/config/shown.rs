//! A resolved configuration as TOML that can be read back, without its secrets.

use std::fmt::Write as _;

use serde::Deserialize as _;
use toml::de::{DeValue, ValueDeserializer};

use super::places::Places;
use super::tree::{Node, Table, is_list_of_tables};

const HIDDEN: &str = "(hidden)";

/// Every key; after each value that is not a default, where it comes from.
pub fn toml(root: &Table<'_>, places: &Places) -> String {
    let mut out = String::new();
    section(&mut out, root, "", places);
    out.trim_start().to_owned()
}

fn section(out: &mut String, table: &Table<'_>, path: &str, places: &Places) {
    for (key, node) in table {
        if !is_section(key.get_ref(), node) {
            line(out, key.get_ref(), node, places);
        }
    }
    for (key, node) in table {
        let key = key.get_ref();
        let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
        match node.get_ref() {
            DeValue::Table(inner) if is_section(key, node) => {
                heading(out, &format!("[{path}]"));
                section(out, inner, &path, places);
            }
            DeValue::Array(list) if is_list_of_tables(node.get_ref()) => {
                for entry in list {
                    if let DeValue::Table(entry) = entry.get_ref() {
                        heading(out, &format!("[[{path}]]"));
                        section(out, entry, &path, places);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Tables of free names stand on one line, like other values.
fn is_section(key: &str, node: &Node<'_>) -> bool {
    let is_free = matches!(key, "set" | "set_from_file");
    is_list_of_tables(node.get_ref()) || (matches!(node.get_ref(), DeValue::Table(_)) && !is_free)
}

fn heading(out: &mut String, text: &str) {
    out.push('\n');
    out.push_str(text);
    out.push('\n');
}

fn line(out: &mut String, key: &str, node: &Node<'_>, places: &Places) {
    let mut value = toml::Value::deserialize(ValueDeserializer::from(node.clone()))
        .expect("a parsed TOML value is a TOML value");
    if key == "set" {
        hide(&mut value);
    } else if key == "client_secret" && value.as_str().is_some_and(|secret| !secret.is_empty()) {
        value = toml::Value::from(HIDDEN);
    }
    out.push_str(key);
    out.push_str(" = ");
    out.push_str(&value.to_string());
    if let Some(place) = places.name(node.span().start) {
        write!(out, "  # {place}").expect("writing to a string");
    }
    out.push('\n');
}

fn hide(value: &mut toml::Value) {
    for (_, value) in value.as_table_mut().into_iter().flatten() {
        *value = toml::Value::from(HIDDEN);
    }
}
