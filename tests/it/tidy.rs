//! The house rules that a program can check.

use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A source file: its path from the root, and its text.
pub struct Source {
    path: String,
    pub text: String,
}

/// The Rust files below these directories.
pub fn sources(directories: &[&str]) -> Vec<Source> {
    let mut pending: Vec<PathBuf> = directories.iter().map(|directory| root().join(directory)).collect();
    let mut sources = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).expect("the directory is there") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = read(&path);
                let path = path.strip_prefix(root()).expect("it is below the root").display().to_string();
                sources.push(Source { path, text });
            }
        }
    }
    sources
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn nothing_is(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn no_source_file_is_too_long() {
    let long = sources(&["src", "crates", "tests"]).into_iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines", source.path))
    });
    nothing_is("longer than 500 lines", &long.collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_undone() {
    // Written apart, so that this file does not find itself.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["#[ig", "nore"].concat()];
    let left = sources(&["src", "crates", "tests"]).into_iter().flat_map(|source| {
        let marked = |line: &&str| marks.iter().any(|mark| line.contains(mark.as_str()));
        source.text.lines().filter(marked).map(|line| format!("{}: {line}", source.path)).collect::<Vec<_>>()
    });
    nothing_is("left undone", &left.collect::<Vec<_>>());
}

#[test]
fn every_module_says_what_it_is() {
    let silent = sources(&["src", "crates", "tests"])
        .into_iter()
        .filter(|source| !source.text.starts_with("//!") && !source.path.ends_with("tests.rs"));
    nothing_is("without a module comment", &silent.map(|source| source.path).collect::<Vec<_>>());
}

/// The domain: pure, and knows nothing of the rest.
const DOMAIN: [&str; 10] =
    ["admission", "backoff", "clock", "delivery", "id", "lease", "outcome", "pace", "secret", "task"];

/// For each module that is held to it, what it may not import.
const FORBIDDEN: [(&str, &[&str]); 12] = [
    ("gateway", &["worker", "janitor", "service", "cli", "admin"]),
    ("worker", &["gateway", "janitor", "service", "cli", "admin"]),
    ("janitor", &["gateway", "worker", "service", "cli", "admin", "upstream", "webhook"]),
    ("admin", &["gateway", "worker", "janitor", "service", "cli"]),
    (
        "store",
        &["gateway", "worker", "janitor", "service", "cli", "admin", "upstream", "webhook", "identity"],
    ),
    (
        "upstream",
        &["gateway", "worker", "janitor", "service", "cli", "admin", "store", "webhook", "identity"],
    ),
    (
        "webhook",
        &["gateway", "worker", "janitor", "service", "cli", "admin", "store", "upstream", "identity"],
    ),
    (
        "identity",
        &["gateway", "worker", "janitor", "service", "cli", "admin", "store", "upstream", "webhook"],
    ),
    ("client", &["gateway", "worker", "janitor", "service", "cli", "admin", "store", "upstream", "webhook"]),
    ("guard", &["gateway", "worker", "janitor", "service", "cli", "admin", "store", "upstream", "webhook"]),
    ("seal", &["gateway", "worker", "janitor", "service", "cli", "admin", "store", "upstream", "webhook"]),
    ("config", &["gateway", "worker", "janitor", "service", "cli", "admin", "store", "upstream", "webhook"]),
];

/// The modules of the crate that a source file names, less itself.
fn imports(source: &Source) -> Vec<String> {
    let own = module(source);
    // Comments may point anywhere.
    let code: Vec<&str> = source.text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let named = code.split("crate::").skip(1).flat_map(|rest| {
        let group = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
        let names: Vec<&str> = group.map_or_else(|| vec![rest], |group| group.split(',').collect());
        names.into_iter().map(first_word).collect::<Vec<_>>()
    });
    let mut named: Vec<String> = named.filter(|name| !name.is_empty() && *name != own).collect();
    named.sort();
    named.dedup();
    named
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
}

/// The top module a file of `src` belongs to.
fn module(source: &Source) -> String {
    let path = source.path.trim_start_matches("src/");
    path.split(['/', '.']).next().unwrap_or_default().to_owned()
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    // What tests a module may stand above it: a gateway is tested in the node that holds it.
    for source in sources(&["src"]).into_iter().filter(|source| !source.path.contains("/tests")) {
        let (own, imports) = (module(&source), imports(&source));
        if DOMAIN.contains(&own.as_str()) {
            let outside = imports.iter().filter(|name| !DOMAIN.contains(&name.as_str()));
            wrong.extend(outside.map(|name| format!("{} imports {name}, which is not domain", source.path)));
        }
        let forbidden = FORBIDDEN.iter().find(|(name, _)| *name == own).map_or(&[][..], |(_, names)| names);
        let crossing = imports.iter().filter(|name| forbidden.contains(&name.as_str()));
        wrong.extend(crossing.map(|name| format!("{} imports {name}", source.path)));
    }
    nothing_is("imports against the direction", &wrong);
}

#[test]
fn the_domain_is_pure() {
    let impure = ["async fn", "tokio::", "std::fs", "std::net", "SystemTime::now", "Instant::now", "rand::"];
    let wrong = sources(&["src"]).into_iter().filter(|source| {
        // The clock is where time comes in; everyone else gets it as a value.
        let own = module(source);
        DOMAIN.contains(&own.as_str()) && own != "clock"
    });
    let wrong = wrong.flat_map(|source| {
        let uses = |line: &&str| impure.iter().any(|word| line.contains(word));
        source.text.lines().filter(uses).map(|line| format!("{}: {line}", source.path)).collect::<Vec<_>>()
    });
    nothing_is("impure domain", &wrong.collect::<Vec<_>>());
}

/// The codes in `(“code”, StatusCode::…)` and `=> "code"` of one file.
fn codes(path: &str) -> Vec<String> {
    let text = read(&root().join(path));
    let code = |text: &str| {
        !text.is_empty() && text.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
    };
    let quoted = text.lines().filter(|line| line.contains("=> (\"") || line.contains("=> \""));
    let quoted = quoted.filter_map(|line| line.split('"').nth(1)).filter(|text| code(text));
    quoted.map(str::to_owned).collect()
}

#[test]
fn every_code_is_documented() {
    let documented = read(&root().join("docs/API.md"));
    let codes: Vec<String> =
        ["src/gateway/refusal.rs", "src/outcome.rs"].iter().flat_map(|path| codes(path)).collect();
    assert!(codes.len() > 25, "the codes are found: {codes:?}");
    let missing = codes.into_iter().filter(|code| !documented.contains(&format!("`{code}`")));
    nothing_is("not in docs/API.md", &missing.collect::<Vec<_>>());
}

#[test]
fn every_configuration_key_is_in_the_commented_defaults() {
    let defaults = read(&root().join("config.default.toml"));
    let mut missing = Vec::new();
    for source in sources(&["src/config"]) {
        for structure in source.text.split("#[serde(deny_unknown_fields)]").skip(1) {
            let body = structure.split("\n}").next().unwrap_or_default();
            let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
            let absent = fields.map(|(field, _)| field).filter(|field| !names(&defaults, field));
            missing.extend(absent.map(|field| format!("{}: {field}", source.path)));
        }
    }
    nothing_is("not in config.default.toml", &missing);
}

/// Whether a line of `defaults`, commented out or not, sets `field` or opens it as a section.
fn names(defaults: &str, field: &str) -> bool {
    defaults.lines().any(|line| {
        let line = line.trim_start_matches(['#', ' ']);
        let section = line.trim_start_matches('[').split(']').next().unwrap_or_default();
        line.starts_with(&format!("{field} =")) || section.split('.').any(|segment| segment == field)
    })
}
