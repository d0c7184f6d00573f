//! Lays one source over another, key by key, after refusing keys that nobody knows.
//!
//! What is known is what stands in `config.default.toml`. An empty table there holds free names
//! (headers); a list of tables there holds one entry, the template of every entry.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeValue};

use super::error::{ConfigError, Problem};
use super::places::Places;
use super::tree::{self, Node, Table};

/// How a source names entries of lists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// As TOML lists: whole ones replace, `[[upstreams]]` find theirs by name, prefix or position.
    Written,
    /// As tables whose keys are numbers.
    Numbered,
}

/// Drops what is unknown or has the wrong shape, and collects why.
pub struct Sieve<'a> {
    pub known: &'a Table<'a>,
    pub places: &'a Places,
    pub problems: Vec<Problem>,
}

impl Sieve<'_> {
    pub fn keep_known<'s>(&mut self, source: Table<'s>, lists: Lists) -> Table<'s> {
        let known = self.known;
        self.keep_in(source, known, "", lists)
    }

    fn keep_in<'s>(&mut self, table: Table<'s>, known: &Table<'_>, path: &str, lists: Lists) -> Table<'s> {
        let mut kept = Table::new();
        for (key, node) in table {
            let name = key.get_ref().as_ref();
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let Some(expected) = known.get(name) else {
                let near = nearest(self.known, &path);
                self.refuse(key.span(), ConfigError::UnknownKey { key: path, near });
                continue;
            };
            if let Some(node) = self.keep_shape(node, expected.get_ref(), &path, lists) {
                kept.insert(key, node);
            }
        }
        kept
    }

    fn keep_shape<'s>(
        &mut self,
        node: Node<'s>,
        expected: &DeValue<'_>,
        path: &str,
        lists: Lists,
    ) -> Option<Node<'s>> {
        let span = node.span();
        let kept = match (expected, node.into_inner()) {
            (DeValue::Table(known), DeValue::Table(table)) if known.is_empty() => DeValue::Table(table),
            (DeValue::Table(known), DeValue::Table(table)) => {
                DeValue::Table(self.keep_in(table, known, path, lists))
            }
            (DeValue::Array(template), DeValue::Table(entries)) if lists == Lists::Numbered => {
                DeValue::Table(self.keep_numbered(entries, template, path, &span)?)
            }
            (DeValue::Array(template), DeValue::Array(entries)) if tree::is_list_of_tables(expected) => {
                let entries = entries.into_iter();
                let kept = entries
                    .filter_map(|entry| self.keep_shape(entry, template.first()?.get_ref(), path, lists));
                DeValue::Array(tree::list(kept.collect::<Vec<_>>()))
            }
            (_, DeValue::Table(table)) if tree::is_list_of_tables(expected) => {
                let (_, first) = table.iter().next().map_or((span.clone(), String::new()), |(key, node)| {
                    (key.span(), stands_as(path, key.get_ref(), node))
                });
                self.refuse(span, ConfigError::UpstreamsNotAList(first));
                return None;
            }
            (DeValue::Table(_), _) => {
                return self.bad_value(span, path, "is a section; its keys follow `[section]`");
            }
            (_, DeValue::Table(_)) => return self.bad_value(span, path, "is one value, not a section"),
            (_, value) => value,
        };
        Some(Spanned::new(span, kept))
    }

    fn keep_numbered<'s>(
        &mut self,
        entries: Table<'s>,
        template: &DeArray<'_>,
        path: &str,
        span: &Range<usize>,
    ) -> Option<Table<'s>> {
        let mut kept = Table::new();
        for (key, node) in entries {
            if key.get_ref().parse::<usize>().is_err() {
                return self
                    .bad_value(span.clone(), path, "is a list; name its entry by a number, from 0")
                    .or(None);
            }
            let node = match template.first().map(Spanned::get_ref) {
                Some(entry @ DeValue::Table(_)) => self.keep_shape(node, entry, path, Lists::Numbered)?,
                _ => node,
            };
            kept.insert(key, node);
        }
        Some(kept)
    }

    fn bad_value<T>(&mut self, span: Range<usize>, key: &str, why: &str) -> Option<T> {
        self.refuse(span, ConfigError::BadValue { key: key.to_owned(), why: why.to_owned() });
        None
    }

    pub fn refuse(&mut self, span: Range<usize>, error: ConfigError) {
        self.problems.push(Problem { place: self.places.name(span.start), error });
    }
}

/// How a key was probably written: a section with its brackets, anything else bare.
fn stands_as(path: &str, key: &str, node: &Node<'_>) -> String {
    match node.get_ref() {
        DeValue::Table(_) => format!("[{path}.{key}]"),
        _ => format!("{path}.{key}"),
    }
}

/// The known key a misspelled one most resembles, if any does.
fn nearest(known: &Table<'_>, key: &str) -> Option<String> {
    let mut keys = Vec::new();
    collect(known, "", &mut keys);
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |candidate: &str| {
        // The last part counts on its own: a right key in the wrong section is a common slip.
        strsim::normalized_damerau_levenshtein(key, candidate)
            + strsim::normalized_damerau_levenshtein(&last(key), &last(candidate))
    };
    keys.into_iter()
        .map(|candidate| (likeness(&candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 1.2)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn collect(known: &Table<'_>, path: &str, keys: &mut Vec<String>) {
    for (key, node) in known {
        let key = key.get_ref();
        let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
        match node.get_ref() {
            DeValue::Table(table) => collect(table, &path, keys),
            DeValue::Array(list) => {
                if let Some(DeValue::Table(template)) = list.first().map(Spanned::get_ref) {
                    collect(template, &path, keys);
                }
            }
            _ => {}
        }
        keys.push(path);
    }
}

/// Lays `over` over `base`; what `over` does not say stays. Nothing is checked here.
pub fn lay<'s>(base: &mut Table<'s>, over: Table<'s>) -> Result<(), Gap> {
    // Header names differ in case only by accident: the later one replaces the earlier.
    let is_stale =
        |old: &str| over.keys().any(|new| new.get_ref() != old && new.get_ref().eq_ignore_ascii_case(old));
    let stale: Vec<String> =
        base.keys().map(|old| old.get_ref().to_string()).filter(|old| is_stale(old)).collect();
    for old in stale {
        base.remove(old.as_str());
    }
    for (key, node) in over {
        let span = node.span();
        let under = base.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut);
        let is_upstreams = key.get_ref() == "upstreams";
        match (under, node.into_inner()) {
            (Some(DeValue::Table(under)), DeValue::Table(over)) if !under.is_empty() => lay(under, over)?,
            (Some(DeValue::Array(under)), DeValue::Table(over)) => {
                lay_numbered(under, over).map_err(|gap| gap.or_in(key.get_ref()))?;
            }
            (Some(DeValue::Array(under)), DeValue::Array(over)) if is_upstreams => {
                lay_upstreams(under, over)?;
            }
            (_, value) => {
                base.insert(key, Spanned::new(span, value));
            }
        }
    }
    Ok(())
}

/// An entry number beyond the end of its list.
pub struct Gap {
    pub list: String,
    pub len: usize,
    pub index: usize,
}

impl Gap {
    fn or_in(mut self, key: &str) -> Self {
        if self.list.is_empty() {
            key.clone_into(&mut self.list);
        }
        self
    }
}

fn lay_numbered<'s>(under: &mut DeArray<'s>, over: Table<'s>) -> Result<(), Gap> {
    for (key, node) in over {
        let index = key.get_ref().parse::<usize>().unwrap_or(usize::MAX);
        let len = under.len();
        match under.get_mut(index) {
            Some(entry) => lay_entry(entry, node)?,
            None if index == len => under.push(node),
            None => return Err(Gap { list: String::new(), len, index }),
        }
    }
    Ok(())
}

fn lay_entry<'s>(entry: &mut Node<'s>, over: Node<'s>) -> Result<(), Gap> {
    let span = over.span();
    match (entry.get_mut(), over.into_inner()) {
        (DeValue::Table(under), DeValue::Table(over)) => lay(under, over)?,
        (_, value) => *entry = Spanned::new(span, value),
    }
    Ok(())
}

/// Entries of one source never change each other: two that say the same stay two, and are refused
/// as such later.
fn lay_upstreams<'s>(under: &mut DeArray<'s>, over: DeArray<'s>) -> Result<(), Gap> {
    let mut free = vec![true; under.len()];
    for (position, entry) in over.into_iter().enumerate() {
        let (name, prefix) = (text(&entry, "name"), text(&entry, "prefix"));
        let same = |key: &str, wanted: &Option<String>| {
            wanted.as_ref()?;
            under.iter().zip(&free).position(|(old, free)| *free && text(old, key) == *wanted)
        };
        let by_position = name.is_none() && prefix.is_none() && free.get(position) == Some(&true);
        let found =
            same("name", &name).or_else(|| same("prefix", &prefix)).or(by_position.then_some(position));
        match found.and_then(|index| under.get_mut(index).zip(free.get_mut(index))) {
            Some((old, free)) => {
                *free = false;
                lay_entry(old, entry)?;
            }
            None => under.push(entry),
        }
    }
    Ok(())
}

fn text(entry: &Node<'_>, key: &str) -> Option<String> {
    let DeValue::Table(table) = entry.get_ref() else { return None };
    match table.get(key)?.get_ref() {
        DeValue::String(text) => Some(Cow::clone(text).into_owned()),
        _ => None,
    }
}
