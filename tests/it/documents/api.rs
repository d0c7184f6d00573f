//! `docs/API.md`: its examples are typed as they are written, what they say comes back does come back,
//! and no status, code or header of the gateway is without one.
//!
//! A comment such as `# 404 no_upstream` behind a command is the status and a word of the answer. A block
//! that is marked `http` shows the last answer of the block before it. A block with `serve` in it is a
//! node that is started beside the sandbox; a `toml` block that begins with its name is such a node's file.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{header_names, part, read};
use crate::support::node::listening;
use crate::support::process::Process;
use crate::support::sandbox::Sandbox;
use crate::tidy::sources;

const DOCUMENT: &str = "docs/API.md";

/// A fenced block.
struct Block<'d> {
    language: &'d str,
    text: &'d str,
}

fn blocks(document: &str) -> Vec<Block<'_>> {
    let fenced = document.split("\n```").skip(1).step_by(2);
    fenced
        .map(|block| {
            let (language, text) = block.split_once('\n').expect("a fence is a line of its own");
            Block { language, text }
        })
        .collect()
}

impl Block<'_> {
    fn starts_a_node(&self) -> bool {
        self.language == "sh" && self.text.contains(" serve ")
    }

    fn is_typed(&self) -> bool {
        self.language == "sh" && !self.starts_a_node()
    }
}

/// What a line says it gets: a status and a word.
fn expected(line: &str) -> Option<(&str, &str)> {
    let (_, comment) = line.rsplit_once(" # ")?;
    let (status, word) = comment.split_once(' ').unwrap_or((comment, ""));
    (status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit())).then_some((status, word))
}

/// The typed lines, with a mark behind each that says what it gets, and one behind each block.
fn script(blocks: &[Block<'_>]) -> String {
    let mut script = String::from("sleep() { command sleep 0.05; }\n");
    for block in blocks.iter().filter(|block| block.is_typed()) {
        for line in block.text.lines() {
            script.push_str(line);
            script.push('\n');
            if expected(line).is_some() {
                script.push_str("printf '\\n<<<\\n'\n");
            }
        }
        script.push_str("\nprintf '\\n===\\n'\n");
    }
    script
}

/// The file of configuration that a command names, which the document has as a block of its own.
fn file_of<'d>(command: &str, all: &[Block<'d>]) -> Option<(&'d str, &'d str)> {
    let named = command.split("--config ").nth(1)?.split_whitespace().next()?;
    let file = |block: &Block<'d>| block.text.strip_prefix("# ")?.split_once('\n');
    all.iter().filter(|block| block.language == "toml").filter_map(file).find(|(name, _)| *name == named)
}

/// Starts a node of the document on any free ports; the address it is written for, and the one it has.
async fn start_node(block: &Block<'_>, all: &[Block<'_>], directory: &Path) -> (Process, String, SocketAddr) {
    let command = block.text.replace("target/release/ringback", env!("CARGO_BIN_EXE_ringback"));
    let command = command.trim().trim_start_matches('(').trim_end_matches(')');
    let file = file_of(command, all);
    let usual = addresses(file.map_or(command, |(_, text)| text)).next().expect("it says where it listens");
    let usual = usual.to_owned();
    if let Some((name, text)) = file {
        std::fs::write(directory.join(name), anywhere(text)).expect("the directory can be written");
    }
    let mut shell = Command::new("sh");
    // The node takes the shell's place, so that it ends with it.
    let exec = if command.contains("exec ") { "" } else { "exec " };
    shell.args(["-euc", &format!("{exec}{}", anywhere(command))]).current_dir(directory);
    let mut process = Process::of(shell, "KILL");
    let address = listening(&mut process, "gateway").await;
    (process, usual, address)
}

/// The addresses that a text says to listen on.
fn addresses(text: &str) -> impl Iterator<Item = &str> {
    let said = text.split("listen").skip(1).map(|rest| rest.trim_start_matches([' ', '=', '"']));
    said.filter_map(|rest| rest.split([' ', '"', '\n', ')']).next()).filter(|word| word.contains(':'))
}

/// The same text, listening on any free port.
fn anywhere(text: &str) -> String {
    addresses(text).fold(text.to_owned(), |changed, address| changed.replace(address, "127.0.0.1:0"))
}

#[tokio::test]
async fn the_examples_can_be_typed_and_get_what_they_say() {
    let sandbox = Sandbox::start().await;
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let document = sandbox.place(&read(DOCUMENT));
    let all = blocks(&document);
    let mut script = script(&all);
    let mut nodes = Vec::new();
    for block in all.iter().filter(|block| block.starts_a_node()) {
        let (node, usual, address) = start_node(block, &all, directory.path()).await;
        script = script.replace(&usual, &address.to_string());
        nodes.push(node);
    }

    let mut shell = Command::new("sh");
    shell.args(["-euc", &script]);
    let ended = Process::of(shell, "KILL").ended_within(4).await;

    let output = ended.stdout.join("\n");
    assert!(ended.status.success(), "{output}\n---\n{}", ended.stderr.join("\n"));
    judge(&all, &output);
}

/// Each block's output holds what its lines say and what is shown behind it; where not, everything that is
/// wrong is told at once.
#[track_caller]
fn judge(all: &[Block<'_>], output: &str) {
    let mut outputs = output.split("\n===");
    let (mut last, mut wrong) = ("", Vec::new());
    for block in all {
        if block.is_typed() {
            last = outputs.next().expect("each block has its output");
            let mut answers = last.split("\n<<<");
            for (line, said) in block.text.lines().filter_map(|line| Some((line, expected(line)?))) {
                let answer = answers.next().expect("each line has its answer");
                if !is_answered(answer, said) {
                    wrong.push(format!("{line}\ngets:\n{answer}"));
                }
            }
        } else if block.language == "http" && last_head(block.text) != last_head(last) {
            wrong.push(format!("{:?}\nis shown, and comes:\n{:?}", last_head(block.text), last_head(last)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n-----\n"));
}

fn is_answered(answer: &str, (status, word): (&str, &str)) -> bool {
    let plain = format!("{status} ");
    let has_status =
        answer.contains(&format!("HTTP/1.1 {status}")) || answer.lines().any(|line| line.starts_with(&plain));
    has_status && answer.contains(word)
}

/// The status and the header names of the last answer in a text.
fn last_head(text: &str) -> Option<(&str, Vec<&str>)> {
    let status = text.rsplit("HTTP/1.1 ").next()?.lines().next()?;
    Some((status.trim(), header_names(text).pop()?))
}

#[test]
fn every_status_of_a_table_has_an_example() {
    let document = read(DOCUMENT);
    let examples = expectations(&document);
    let first_cells = document.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let statuses = first_cells.flat_map(|cell| cell.split(", ")).filter(|cell| cell.parse::<u16>().is_ok());
    let has_one = |status: &&str| *status == OF_A_DEFECT.0 || examples.iter().any(|(one, _)| one == status);
    let missing: Vec<_> = statuses.filter(|status| !has_one(status)).collect();
    assert!(missing.is_empty(), "without an example: {missing:?}");
}

#[test]
fn every_code_has_an_example() {
    let document = read(DOCUMENT);
    let examples = expectations(&document);
    let (refusal, outcome) = (read("src/gateway/refusal.rs"), read("src/outcome.rs"));
    let failures = part(&outcome, "impl FailureCode {", "\n}\n");
    let lines = refusal.lines().chain(failures.lines()).map(str::trim_start);
    let quoted =
        lines.filter(|line| line.starts_with("(\"") || line.contains("=> (\"") || line.contains("=> \""));
    let is_code = |text: &&str| text.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
    let codes: Vec<&str> = quoted.filter_map(|line| line.split('"').nth(1)).filter(is_code).collect();
    assert!(codes.len() > 35, "the codes are found: {codes:?}");
    let has_one = |code: &&str| *code == OF_A_DEFECT.1 || examples.iter().any(|(_, word)| word == code);
    let missing: Vec<_> = codes.into_iter().filter(|code| !has_one(code)).collect();
    assert!(missing.is_empty(), "without an example: {missing:?}");
}

#[test]
fn every_header_has_an_example() {
    let document = read(DOCUMENT).to_lowercase();
    let shown: Vec<&str> = blocks(&document).iter().map(|block| block.text).collect();
    let mut names = header_names_in("src/gateway");
    names.extend(header_names_in("crates/webhook-signature/src"));
    names.sort();
    names.dedup();
    assert!(names.len() > 50, "the names are found: {names:?}");
    let has_one = |name: &String| shown.iter().any(|text| text.contains(name.as_str()));
    let missing: Vec<_> =
        names.into_iter().filter(|name| !PASSED_BY.contains(&name.as_str()) && !has_one(name)).collect();
    assert!(missing.is_empty(), "without an example: {missing:?}");
}

/// Nobody can provoke a defect of ours.
const OF_A_DEFECT: (&str, &str) = ("500", "internal_error");

/// Headers that are the HTTP library's, end with their connection, are only passed on, or are left out.
const PASSED_BY: [&str; 12] = [
    "cookie",
    "expect",
    "http2-settings",
    "keep-alive",
    "link",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "trailer",
    "cdn-cache-control",
    "pragma",
    "surrogate-control",
];

/// What comes before the name of a header in the code.
const BEFORE_A_NAME: [&str; 8] = [
    "header::",
    "from_static(\"",
    "insert(\"",
    "append(\"",
    "get(\"",
    "get_all(\"",
    "HEADER: &str = \"",
    "remove(\"",
];

/// The names of headers in the code below a directory, in lower case, less those in tests.
fn header_names_in(directory: &str) -> Vec<String> {
    let mut names = Vec::new();
    for source in sources(&[directory]) {
        let code = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        for before in BEFORE_A_NAME {
            for rest in code.split(before).skip(1) {
                let letters = rest
                    .chars()
                    .take_while(|letter| letter.is_ascii_alphanumeric() || "-_".contains(*letter));
                let word: String = letters.collect();
                // A constant of the library is the name in capitals; its types are not.
                let is_name = if before == "header::" {
                    word.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
                } else {
                    rest[word.len()..].starts_with('"') && word.contains('-')
                };
                if is_name && !word.is_empty() {
                    names.push(word.to_lowercase().replace('_', "-"));
                }
            }
        }
    }
    names
}

/// The statuses and words that the typed lines say.
fn expectations(document: &str) -> Vec<(String, String)> {
    let typed = blocks(document).into_iter().filter(Block::is_typed);
    let lines = typed.flat_map(|block| block.text.lines().filter_map(expected).collect::<Vec<_>>());
    lines.map(|(status, word)| (status.to_owned(), word.to_owned())).collect()
}
