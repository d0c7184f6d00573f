//! `ringback keys` and `ringback erase` typed wrongly, or at the wrong place: the exit code says so, the
//! first lines say what is wrong, and nothing of the store is touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::node::{Node, Setup};
use crate::support::peer::Upstream;
use crate::support::process::{Ended, Process, run};
use crate::support::store;

/// A stopped node's data directory, with one finished task in it.
async fn stopped() -> Setup {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/x?async=true")).await;
    assert_eq!(node.finished(&task).await.status, 200);
    node.terminate().await.0
}

/// Every file of a directory, whole.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).expect("it is there").map(|file| file.expect("it can be listed").path());
    paths.map(|path| (path.clone(), fs::read(path).expect("it can be read"))).collect()
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').filter(|word| !word.is_empty()).collect()
}

/// Says what is wrong before anything else, says it on the right stream, and does not panic over it.
#[track_caller]
fn is_told(ended: &Ended, code: i32, what: &str, command: &str) {
    assert_eq!(ended.status.code(), Some(code), "{command}: {:?}", ended.stderr);
    let complaints = ended.complaints();
    assert!(complaints.iter().take(2).any(|line| line.contains(what)), "{command}: {complaints:?}");
    assert!(!ended.stderr.join("\n").contains("panicked"), "{command}: {complaints:?}");
    assert!(ended.stdout.is_empty(), "{command}: {:?}", ended.stdout);
    // How a command is used is worth more lines than what went wrong.
    assert!(code == 2 || complaints.len() == 1, "{command}: {complaints:?}");
}

#[tokio::test]
async fn a_command_that_is_typed_wrongly_is_a_usage_error_and_touches_nothing() {
    let setup = stopped().await;
    let dir = setup.data_dir();
    let before = files(&dir);
    for (command, what) in [
        ("keys nonsense", "nonsense"),
        ("keys rotate", "RING"),
        ("keys rotate everything", "everything"),
        ("keys rotate Sealing", "Sealing"),
        ("keys rotate sealing webhook", "webhook"),
        ("keys rotate webhook --overlap soon", "soon"),
        ("keys rotate webhook --overlap 5", "5"),
        ("keys rotate webhook --overlap=-1h", "-1h"),
        ("keys rotate webhook --overlap 99999999999999999999y", "overlap"),
        ("keys rotate webhook --overlap 1h --overlap 2h", "overlap"),
        ("keys show", "RING"),
        ("keys show sealing", "sealing"),
        ("keys new another", "another"),
        ("keys list --all", "--all"),
        ("keys reseal --force", "--force"),
        ("keys reseal 1", "'1'"),
        ("erase", "--credentials-id"),
        ("erase --credentials-id", "--credentials-id"),
        ("erase --credentials-id=", "--credentials-id"),
        ("erase john", "john"),
        ("erase --credentials-id john jane", "jane"),
        ("erase --credentials-id john --credentials-id jane", "--credentials-id"),
        ("erase --credentials_id john", "--credentials_id"),
        ("erase --all", "--all"),
    ] {
        let dir = dir.display().to_string();
        let mut args = words(command);
        // A missing value is missing only at the end.
        let at = 1 + usize::from(args[0] == "keys");
        args.splice(at..at, ["--data-dir", &dir]);
        is_told(&run(&args).await, 2, what, command);
    }
    for command in ["keys", "keys list --data-dir", "erase --credentials-id john --data-dir"] {
        is_told(&run(&words(command)).await, 2, "", command);
    }
    assert_eq!(files(&dir), before);
}

const COMMANDS: [&str; 8] = [
    "keys new",
    "keys list",
    "keys rotate sealing",
    "keys rotate webhook",
    "keys show webhook",
    "keys reseal",
    "erase --credentials-id anonymous",
    "compact",
];

#[tokio::test]
async fn a_command_with_a_configuration_it_cannot_read_does_nothing() {
    let setup = stopped().await;
    let dir = setup.data_dir();
    let (before, good) = (files(&dir), setup.config_file());
    let missing = good.with_file_name("missing.toml");
    let typo =
        setup.write("typo.toml", "[server]\ndata_dri = \"x\"\n[[upstreams]]\nurl = \"http://127.0.0.1:9\"\n");
    for command in COMMANDS {
        for (file, what) in [(&missing, "missing.toml"), (&typo, "data_dri"), (&dir, "data")] {
            let (dir, file) = (dir.display().to_string(), file.display().to_string());
            let args = [&words(command)[..], &["--data-dir", &dir, "--config", &file]].concat();
            is_told(&run(&args).await, 1, what, command);
        }
    }
    assert_eq!(files(&dir), before);
}

#[tokio::test]
async fn a_data_directory_that_is_none_is_refused_and_left_as_it_is() {
    let setup = stopped().await;
    let file = setup.write("a-file", "not a directory");
    let nowhere = file.with_file_name("nowhere");
    for command in COMMANDS {
        let dir = file.display().to_string();
        let ended = run(&[&words(command)[..], &["--data-dir", &dir]].concat()).await;
        is_told(&ended, 1, "a-file", command);
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "not a directory", "{command}");
        if command == "keys new" {
            continue;
        }
        let dir = nowhere.display().to_string();
        let ended = run(&[&words(command)[..], &["--data-dir", &dir]].concat()).await;
        is_told(&ended, 1, "nowhere", command);
        assert!(!nowhere.exists(), "{command} made a data directory");
    }
}

#[tokio::test]
async fn with_a_key_file_that_does_not_fit_no_command_touches_the_store() {
    let setup = stopped().await;
    let dir = setup.data_dir();
    let path = dir.join("ringback.keys");
    let good = fs::read(&path).expect("the node made it");
    let before = store::content(&dir);
    let needs_keys = [
        "keys rotate webhook",
        "keys show webhook",
        "keys reseal",
        "erase --credentials-id anonymous",
        "compact",
    ];
    for (bad, what) in [
        ("1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "does not fit the store"),
        ("7:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "key 1"),
        ("nonsense\n", "line 1"),
        ("1:AAAA\n", "line 1"),
        ("", ""),
    ] {
        fs::write(&path, bad).expect("it can be written");
        for command in needs_keys {
            let dir = dir.display().to_string();
            let ended = run(&[&words(command)[..], &["--data-dir", &dir]].concat()).await;
            is_told(&ended, 1, what, &format!("{command} with {bad:?}"));
        }
        assert_eq!(fs::read_to_string(&path).expect("it is there"), bad, "the key file was changed");
        assert_eq!(store::content(&dir), before, "{bad:?}");
    }
    fs::write(&path, good).expect("it can be written");
    setup.start().await;
}

#[tokio::test]
async fn a_broken_key_file_gets_no_new_key_and_is_not_listed() {
    let setup = stopped().await;
    let dir = setup.data_dir();
    let path = dir.join("ringback.keys");
    for bad in [
        "nonsense\n",
        "1:AAAA\n",
        "1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "99999999999:AAAA\n",
    ] {
        fs::write(&path, bad).expect("it can be written");
        for command in ["keys rotate sealing", "keys list"] {
            let dir = dir.display().to_string();
            let ended = run(&[&words(command)[..], &["--data-dir", &dir]].concat()).await;
            assert_eq!(ended.status.code(), Some(1), "{command} with {bad:?}: {:?}", ended.stdout);
            assert_eq!(ended.complaints().len(), 1, "{command} with {bad:?}: {:?}", ended.stderr);
            assert!(!ended.stderr.join("\n").contains("AAAA"), "a key is printed: {:?}", ended.stderr);
        }
        assert_eq!(fs::read_to_string(&path).expect("it is there"), bad);
    }
}

#[tokio::test]
async fn a_key_file_is_made_nowhere_it_cannot_be() {
    let setup = stopped().await;
    let file = setup.write("a-file", "not a directory");
    let other = file.with_file_name("other").display().to_string();
    let below = file.join("keys").display().to_string();
    let there = file.display().to_string();
    for key_file in [below, there] {
        let args = ["keys", "new", "--data-dir", &other].map(String::from);
        let env = [(String::from("RINGBACK_KEY_FILE"), key_file.clone())];
        is_told(&Process::start(&args, &env).ended().await, 1, "a-file", &key_file);
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "not a directory");
    }
}

#[tokio::test]
async fn more_webhook_keys_than_can_sign_side_by_side_are_refused_and_change_nothing() {
    let setup = stopped().await;
    let dir = setup.data_dir().display().to_string();
    let args = ["keys", "rotate", "webhook", "--overlap", "1h", "--data-dir", &dir];
    let mut before = store::content(&setup.data_dir());
    for rotation in 0.. {
        let ended = run(&args).await;
        let after = store::content(&setup.data_dir());
        if ended.status.success() {
            assert_ne!(after, before);
            assert!(rotation < 100, "there is no limit");
            before = after;
            continue;
        }
        is_told(&ended, 1, "keys", "keys rotate webhook");
        assert_eq!(after, before);
        break;
    }
}

#[tokio::test]
async fn erasing_nobody_that_is_known_says_so_and_changes_nothing() {
    let setup = stopped().await;
    let dir = setup.data_dir();
    let before = store::content(&dir);
    for id in ["Anonymous", "anonymou", "%", "anonymous' OR '1'='1", "*"] {
        let ended = run(&["erase", "--credentials-id", id, "--data-dir", &dir.display().to_string()]).await;
        assert!(ended.status.success(), "{:?}", ended.stderr);
        assert!(ended.stdout[0].starts_with("Erased 0 tasks"), "{id}: {:?}", ended.stdout);
    }
    assert_eq!(store::content(&dir), before);
}
