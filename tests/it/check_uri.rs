//! `ringback check-uri`: the rule table, asked from a terminal.

use crate::support::node::Setup;
use crate::support::process::run;

async fn check(args: &[&str]) -> (Option<i32>, String) {
    let ended = run(&[&["check-uri"], args].concat()).await;
    (ended.status.code(), [ended.stdout, ended.stderr].concat().join("\n"))
}

#[tokio::test]
async fn each_answer_has_its_exit_code_and_names_its_rule() {
    for (uri, code, words) in [
        ("https://1.1.1.1/", 0, "1.1.1.1 allowed by rule public"),
        ("https://127.0.0.1/", 3, "rule loopback"),
        ("https://localhost/", 3, "127.0.0.1 denied by rule loopback"),
        ("https://169.254.169.254/latest", 3, "rule link_local"),
        ("https://[::ffff:1.1.1.1]/", 3, "rule ipv4_mapped"),
        ("http://1.1.1.1/", 3, "rule scheme"),
        ("https://1.1.1.1:22/", 3, "rule port"),
        ("https://0177.0.0.1/", 2, "not a webhook URI"),
        ("https://user@1.1.1.1/", 2, "not a webhook URI"),
        ("ftp://1.1.1.1/", 2, "not a webhook URI"),
        ("1.1.1.1", 2, "not a webhook URI"),
        // RFC 6761: never resolves.
        ("https://nobody.invalid/", 4, "does not resolve"),
    ] {
        let (found, said) = check(&[uri]).await;
        assert_eq!(found, Some(code), "{uri}: {said}");
        assert!(said.contains(words), "{uri}: {said}");
    }
}

#[tokio::test]
async fn the_configuration_is_the_nodes_own() {
    let setup = Setup::of("http://127.0.0.1:9").set("webhooks.allow_networks", vec!["10.1.0.0/16"]);
    let config = setup.config_file().display().to_string();
    let (code, said) = check(&["https://10.1.2.3/", "--config", &config]).await;
    assert_eq!((code, said.contains("rule allow_networks")), (Some(0), true), "{said}");
    assert_eq!(check(&["https://10.2.2.3/", "--config", &config]).await.0, Some(3));
    assert_eq!(check(&["http://127.0.0.1:9/", "--dev"]).await.0, Some(0));
    assert_eq!(check(&["http://127.0.0.1:9/"]).await.0, Some(3));
}
