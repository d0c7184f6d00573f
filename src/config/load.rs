//! From sources to a checked configuration: parse, sieve, overlay, give types, check.
//!
//! Problems are collected as long as what follows still means something; a configuration with a
//! problem never leaves.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeArray, DeValue};

use super::checks::{self, Finding};
use super::error::{ConfigError, ConfigErrors, Problem};
use super::overlay::{self, Lists, Sieve};
use super::places::{Origin, Places};
use super::sources::{self, Flag, Setting, Sources};
use super::tree::{self, Node, Table};
use super::{Config, files, shown};

/// Every key and its default.
pub const DEFAULTS: &str = include_str!("../../config.default.toml");

/// More complaints than this help nobody.
const MOST_PROBLEMS: usize = 50;

/// A checked configuration and how it reads.
pub struct Loaded {
    pub config: Config,
    /// Every key as TOML, secrets hidden, each value that is not a default with its place.
    pub shown: String,
}

/// Reads the named file, then as [`from_texts`].
pub fn load(sources: Sources) -> Result<Loaded, ConfigErrors> {
    let mut texts: Vec<(Origin, String)> = Vec::new();
    texts.extend(sources.base.map(|base| (Origin::BuiltIn, base)));
    if let Some(path) = sources.file {
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let error =
                ConfigError::FileUnreadable { path: path.display().to_string(), why: error.to_string() };
            ConfigErrors(vec![Problem { place: None, error }])
        })?;
        texts.push((Origin::File(path), text));
    }
    from_texts(texts, sources.env, sources.flags, sources.dev)
}

/// As if `text` were the person's file.
pub fn from_text(text: &str) -> Result<Loaded, ConfigErrors> {
    let file = (Origin::File(PathBuf::from("ringback.toml")), text.to_owned());
    from_texts(vec![file], Vec::new(), Vec::new(), false)
}

fn from_texts(
    texts: Vec<(Origin, String)>,
    env: Vec<(String, String)>,
    flags: Vec<Flag>,
    dev: bool,
) -> Result<Loaded, ConfigErrors> {
    let known = known();
    let texts_end = 1 + texts.len();
    let mut settings = sources::from_env(&known, env);
    if dev {
        let value = String::from("true");
        settings.push(Flag { name: "--dev", key: "webhooks.allow_loopback", value }.into());
    }
    settings.extend(flags.into_iter().map(Setting::from));

    let mut places = Places::default();
    places.add(Origin::Default, DEFAULTS.to_owned());
    for (origin, text) in texts {
        places.add(origin, text);
    }
    for setting in &settings {
        places.add(Origin::Named(setting.name.clone()), setting.value.clone());
    }

    let mut sieve = Sieve { known: &known, places: &places, problems: Vec::new() };
    let (mut template, mut root) = split_template(&known);
    for source in &places.sources()[1..texts_end] {
        match tree::parse(&source.text, source.start) {
            Ok(table) => {
                let table = sieve.keep_known(table, Lists::Written);
                lay(&mut sieve, &mut root, table, source.start);
            }
            Err(error) => {
                let start = source.start + error.span().map_or(0, |span| span.start);
                let message = error.message().lines().collect::<Vec<_>>().join(", ");
                sieve.refuse(start..start, ConfigError::Syntax(message));
            }
        }
    }
    for (setting, source) in settings.iter().zip(&places.sources()[texts_end..]) {
        let value = tree::value(&source.text, source.start, sources::expected(&known, &setting.path));
        if setting.name == "--dev" {
            let none = Spanned::new(value.span(), DeValue::String(Cow::Borrowed("none")));
            let mode = [String::from("identity"), String::from("mode")];
            lay(&mut sieve, &mut template, tree::single(&mode, none), source.start);
        }
        if setting.name == "--upstream" && upstreams(&root).len() > 1 {
            let error = ConfigError::UpstreamAmbiguous(upstreams(&root).len());
            sieve.refuse(value.span(), error);
            continue;
        }
        let table = sieve.keep_known(tree::single(&setting.path, value), Lists::Numbered);
        lay(&mut sieve, &mut root, table, source.start);
    }
    complete_upstreams(&mut root, &template);

    let config = typed(&mut sieve, root.clone());
    match config {
        Some(config) if sieve.problems.is_empty() => finish(config, root, &places),
        _ => Err(ConfigErrors(sieve.problems)),
    }
}

/// The compiled-in file as a tree: all keys there are.
pub fn known() -> Table<'static> {
    tree::parse(DEFAULTS, 0).expect("config.default.toml is compiled in and parsed by tests")
}

/// The template of an upstream, and the defaults with no upstream yet.
fn split_template<'s>(known: &Table<'s>) -> (Table<'s>, Table<'s>) {
    let mut root = known.clone();
    let mut template = Table::new();
    if let Some(DeValue::Array(list)) = root.get_mut("upstreams").map(Spanned::get_mut)
        && let Some(DeValue::Table(table)) =
            std::mem::replace(list, DeArray::new()).into_iter().next().map(Spanned::into_inner)
    {
        template = table;
    }
    (template, root)
}

fn lay<'s>(sieve: &mut Sieve<'_>, under: &mut Table<'s>, over: Table<'s>, start: usize) {
    if let Err(gap) = overlay::lay(under, over) {
        let error = ConfigError::IndexGap { list: gap.list, len: gap.len, index: gap.index };
        sieve.refuse(start..start, error);
    }
}

fn upstreams<'t, 's>(root: &'t Table<'s>) -> &'t [Node<'s>] {
    match root.get("upstreams").map(Spanned::get_ref) {
        Some(DeValue::Array(list)) => list,
        _ => &[],
    }
}

/// Lays each entry over the template, so that every upstream says everything.
fn complete_upstreams<'s>(root: &mut Table<'s>, template: &Table<'s>) {
    let Some(DeValue::Array(list)) = root.get_mut("upstreams").map(Spanned::get_mut) else { return };
    let mut entries = DeArray::new();
    for entry in std::mem::replace(list, DeArray::new()) {
        let span = entry.span();
        let value = match entry.into_inner() {
            DeValue::Table(entry) => {
                let mut whole = template.clone();
                // A gap is a number beyond a list's end; entries laid here have lost their numbers.
                drop(overlay::lay(&mut whole, entry));
                DeValue::Table(whole)
            }
            other => other,
        };
        entries.push(Spanned::new(span, value));
    }
    *list = entries;
}

/// Gives the tree its types. After a complaint the default takes the value's place, so that the
/// next complaint can be found too.
fn typed<'a>(sieve: &mut Sieve<'a>, mut root: Table<'a>) -> Option<Config> {
    while sieve.problems.len() < MOST_PROBLEMS {
        let error = match Config::deserialize(toml::Deserializer::from(Spanned::new(0..0, root.clone()))) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let span = error.span().unwrap_or_default();
        let Some((key, node)) = offender(&mut root, &span, "") else {
            let why = error.message().to_owned();
            sieve.refuse(span, ConfigError::BadValue { key: String::from("configuration"), why });
            return None;
        };
        // A header's value is a secret, and serde's sentences quote what they refuse.
        let is_secret = key.contains(".headers.set.");
        let why = if is_secret { "is a text in quotes" } else { error.message() }.to_owned();
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        *node.get_mut() = match sources::expected(sieve.known, &path) {
            Some(default) => default.clone(),
            None => DeValue::String(Cow::Borrowed("")),
        };
        sieve.refuse(span, ConfigError::BadValue { key, why });
    }
    None
}

/// The innermost key whose value, or an element of it, was written at `span`.
fn offender<'t, 's>(
    table: &'t mut Table<'s>,
    span: &Range<usize>,
    path: &str,
) -> Option<(String, &'t mut Node<'s>)> {
    for (key, node) in table {
        let path =
            if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        if !holds(node, span) {
            continue;
        }
        if tree::is_list_of_tables(node.get_ref()) {
            let DeValue::Array(list) = node.get_mut() else { return None };
            let mut entries = list.iter_mut().enumerate();
            return entries.find_map(|(index, entry)| match entry.get_mut() {
                DeValue::Table(entry) => offender(entry, span, &format!("{path}.{index}")),
                _ => None,
            });
        }
        return match node.get_ref() {
            DeValue::Table(inner) if inner.iter().any(|(_, node)| holds(node, span)) => {
                match node.get_mut() {
                    DeValue::Table(inner) => offender(inner, span, &path),
                    _ => None,
                }
            }
            _ => Some((path, node)),
        };
    }
    None
}

fn holds(node: &Node<'_>, span: &Range<usize>) -> bool {
    node.span() == *span
        || match node.get_ref() {
            DeValue::Table(table) => table.iter().any(|(_, node)| holds(node, span)),
            DeValue::Array(list) => list.iter().any(|node| holds(node, span)),
            _ => false,
        }
}

/// Fills in what follows from other keys, reads the files that are named, checks the whole.
fn finish(mut config: Config, mut root: Table<'_>, places: &Places) -> Result<Loaded, ConfigErrors> {
    config.complete();
    let mut findings = files::read(&mut config);
    findings.extend(checks::check(&config));
    if !findings.is_empty() {
        let problem = |finding: Finding| Problem {
            place: tree::at(&root, &finding.key).and_then(|node| places.name(node.span().start)),
            error: finding.error,
        };
        return Err(ConfigErrors(findings.into_iter().map(problem).collect()));
    }
    let mut show = |key: &str, text: &str| {
        if let Some(node) = tree::at_mut(&mut root, key) {
            *node.get_mut() = DeValue::String(Cow::Owned(text.to_owned()));
        }
    };
    show("server.public_url", &config.server.public_url);
    for (index, upstream) in config.upstreams.iter().enumerate() {
        show(&format!("upstreams.{index}.name"), &upstream.name);
        show(&format!("upstreams.{index}.url"), &upstream.url);
    }
    let shown = shown::toml(&root, places);
    Ok(Loaded { config, shown })
}
