//! The documents say what is so: what they tell a reader to type works, and their links lead somewhere.

mod api;
mod security;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::{Process, run};
use crate::support::sandbox::Sandbox;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The part of a document from one text to another.
fn part<'d>(document: &'d str, from: &str, to: &str) -> &'d str {
    let (_, rest) = document.split_once(from).unwrap_or_else(|| panic!("there is no {from}"));
    rest.split_once(to).unwrap_or_else(|| panic!("there is no {to} behind {from}")).0
}

/// The fenced blocks of one language.
fn blocks<'d>(document: &'d str, language: &str) -> Vec<&'d str> {
    let fence = format!("```{language}\n");
    document.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// Where a document says `sleep`, wait for the event it stands for: the end of the task.
const WAIT: &str = "sleep() {
    until curl -sI -H \"Authorization: Bearer $TOKEN\" \"$RESULTS\" | grep -qi '^ringback-status: [SF]'; do
        command sleep 0.05
    done
}
";

/// What the commands of a document print when they are typed into a shell.
async fn typed(sandbox: &Sandbox, document: &str) -> String {
    let commands = sandbox.place(&blocks(document, "sh").join("\n"));
    let commands = commands.replace("target/release/ringback", env!("CARGO_BIN_EXE_ringback"));
    let mut shell = Command::new("sh");
    shell.args(["-euc", &format!("{WAIT}{commands}")]);
    let ended = Process::of(shell, "KILL").ended().await;
    let output = ended.stdout.join("\n");
    assert!(ended.status.success(), "{commands}\n---\n{output}\n---\n{}", ended.stderr.join("\n"));
    output
}

/// `words` are in `text`, in this order.
#[track_caller]
fn says(text: &str, words: &[&str]) {
    let mut rest = text;
    for word in words {
        rest = rest.split_once(word).unwrap_or_else(|| panic!("`{word}` does not come next in:\n{rest}")).1;
    }
}

/// The header names of each answer in a text, in their order.
fn header_names(text: &str) -> Vec<Vec<&str>> {
    let answers = text.split("HTTP/1.1 ").skip(1);
    let names = |answer: &'_ str| -> Vec<usize> { answer.match_indices(": ").map(|(at, _)| at).collect() };
    answers
        .map(|answer| {
            let head = answer.lines().skip(1).take_while(|line| !line.trim().is_empty());
            head.filter_map(|line| names(line).first().map(|at| &line[..*at])).collect()
        })
        .collect()
}

#[tokio::test]
async fn the_walk_of_the_readme_can_be_typed() {
    let sandbox = Sandbox::start().await;
    let readme = read("README.md");
    let walk = part(&readme, "**Get a token**", "\n## ");

    let printed = typed(&sandbox, walk).await;

    says(
        &printed,
        &[
            "HTTP/1.1 202 Accepted",
            "\"status\":\"Queued\"",
            "HTTP/1.1 200 OK",
            "ringback-status: Succeeded",
            "{\"results\":[{\"update_timestamp\":",
            "ringback-status: Succeeded",
            "ringback-upstream-status: 200",
            "\"status\":503",
            "\"status\":503",
            "\"user\":\"flaky\"",
            "\"status\":200",
            "{\"status\":\"Failed\",\"task_id\":",
            "\"error_details\":{\"reason\":\"not_transient\",\"attempts\":1,\"upstream_status\":403}}",
            "\"full_name\":\"Jane Doe\"",
            "{\"results\":[{\"account_id\":",
        ],
    );
    let shown = blocks(walk, "http").into_iter().flat_map(header_names);
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown, header_names(&printed), "the heads that are shown are those that are printed");
}

#[tokio::test]
async fn the_examples_of_the_sandbox_can_be_typed() {
    let sandbox = Sandbox::start().await;

    let printed = typed(&sandbox, &read("docs/SANDBOX.md")).await;

    says(&printed, &["\"available\":", "\"user\":\"john\"", "/balance", "[]"]);
}

#[tokio::test]
async fn the_configuration_in_the_readme_is_a_good_one() {
    let readme = read("README.md");
    let example = blocks(part(&readme, "## Configuration", "\n## "), "toml").concat();
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("ringback.toml").display().to_string();
    std::fs::write(&file, example).expect("the directory can be written");

    let checked = run(&["check", "--config", &file]).await;

    assert!(checked.status.success(), "{:?}", checked.stderr);
}

#[test]
fn every_link_leads_somewhere() {
    let mut lost = Vec::new();
    for document in documents() {
        let text = read(&document);
        let directory = document.parent().expect("a file is in a directory");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.clone() } else { directory.join(file) };
            let is_there = root().join(&target).exists()
                && (anchor.is_empty() || anchors(&read(&target)).iter().any(|known| known == anchor));
            if !is_there {
                lost.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(lost.is_empty(), "links that lead nowhere:\n{}", lost.join("\n"));
}

/// The documents, their paths from the root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in ["", "docs", "docs/decisions"] {
        for entry in std::fs::read_dir(root().join(directory)).expect("the directory is there") {
            let name = PathBuf::from(entry.expect("it can be listed").file_name());
            if name.extension().is_some_and(|extension| extension == "md") {
                found.push(Path::new(directory).join(name));
            }
        }
    }
    found
}

/// The anchors a page of this document has: of each heading its words, joined by hyphens.
fn anchors(document: &str) -> Vec<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    let kept = |letter: &char| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter);
    let anchor = |line: &str| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        heading.chars().filter(kept).collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}
