//! Settings before they have types: TOML values that know the offset they were written at.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

pub type Table<'s> = DeTable<'s>;
pub type Node<'s> = Spanned<DeValue<'s>>;

/// The tree of a text that starts at offset `start` of all sources.
pub fn parse(text: &str, start: usize) -> Result<Table<'_>, toml::de::Error> {
    DeTable::parse(text).map(|root| moved_table(root.into_inner(), start))
}

/// One value at one key, as an environment variable or a flag gives it. List entries are tables
/// whose keys are numbers.
pub fn single<'s>(path: &[String], value: Node<'s>) -> Table<'s> {
    let span = value.span();
    let mut node = value;
    let mut segments = path.iter().rev();
    let first = segments.next_back().cloned().unwrap_or_default();
    for segment in segments {
        let table =
            std::iter::once((Spanned::new(span.clone(), Cow::Owned(segment.clone())), node)).collect();
        node = Spanned::new(span.clone(), DeValue::Table(table));
    }
    std::iter::once((Spanned::new(span, Cow::Owned(first)), node)).collect()
}

/// A value from outside a file: TOML where that is meant, else the text as it stands.
pub fn value<'s>(text: &'s str, start: usize, expected: Option<&DeValue<'_>>) -> Node<'s> {
    let as_text = || Spanned::new(start..start + text.len(), DeValue::String(Cow::Borrowed(text)));
    let wants_text = matches!(expected, None | Some(DeValue::String(_)));
    match DeValue::parse(text) {
        // `…__ISSUER=123` is the text "123", not a number.
        Ok(parsed) if wants_text && !matches!(parsed.get_ref(), DeValue::String(_)) => as_text(),
        Ok(parsed) => moved(parsed, start),
        Err(_) => as_text(),
    }
}

/// The value at a dotted key; list entries by number.
pub fn at<'t, 's>(table: &'t Table<'s>, key: &str) -> Option<&'t Node<'s>> {
    let mut parts = key.split('.');
    let mut node = table.get(parts.next()?)?;
    for part in parts {
        node = match node.get_ref() {
            DeValue::Table(table) => table.get(part)?,
            DeValue::Array(list) => list.get(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(node)
}

/// [`at`], to change it.
pub fn at_mut<'t, 's>(table: &'t mut Table<'s>, key: &str) -> Option<&'t mut Node<'s>> {
    let mut parts = key.split('.');
    let mut node = table.get_mut(parts.next()?)?;
    for part in parts {
        node = match node.get_mut() {
            DeValue::Table(table) => table.get_mut(part)?,
            DeValue::Array(list) => list.get_mut(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(node)
}

/// Whether a list holds tables, as `[[upstreams]]` does.
pub fn is_list_of_tables(value: &DeValue<'_>) -> bool {
    matches!(value, DeValue::Array(list) if list.first().is_some_and(|entry| matches!(entry.get_ref(), DeValue::Table(_))))
}

pub fn list<'s>(entries: impl IntoIterator<Item = Node<'s>>) -> DeArray<'s> {
    let mut list = DeArray::new();
    entries.into_iter().for_each(|entry| list.push(entry));
    list
}

fn moved(node: Node<'_>, by: usize) -> Node<'_> {
    let span = node.span();
    let value = match node.into_inner() {
        DeValue::Table(table) => DeValue::Table(moved_table(table, by)),
        DeValue::Array(array) => DeValue::Array(list(array.into_iter().map(|entry| moved(entry, by)))),
        other => other,
    };
    Spanned::new(span.start + by..span.end + by, value)
}

fn moved_table(table: Table<'_>, by: usize) -> Table<'_> {
    table
        .into_iter()
        .map(|(key, node)| {
            let span = key.span();
            (Spanned::new(span.start + by..span.end + by, key.into_inner()), moved(node, by))
        })
        .collect()
}
