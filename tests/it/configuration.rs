//! Configuration as a person writes it: laid over the defaults, checked, explained.

use http::Method;

use crate::support::client::Call;
use crate::support::node::{Setup, listening, ready};
use crate::support::peer::Upstream;
use crate::support::process::{Ended, Process, run};

/// Starts and checks `text` as configuration; both must refuse it, naming all of `words`.
async fn is_refused(text: &str, words: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("ringback.toml");
    std::fs::write(&file, text).expect("it can be written");
    let data = dir.path().join("data").display().to_string();
    let file = file.display().to_string();
    let served = run(&["serve", "--config", &file, "--data-dir", &data]).await;
    let checked = run(&["check", "--config", &file]).await;
    for (command, ended) in [("serve", served), ("check", checked)] {
        assert!(!ended.status.success(), "{command} took:\n{text}");
        let said = said(&ended);
        for word in words {
            assert!(said.contains(word), "{command}: `{word}` is not in: {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
    assert!(!dir.path().join("data").exists(), "a refused configuration makes no data directory");
}

fn said(ended: &Ended) -> String {
    [ended.stdout.join("\n"), ended.stderr.join("\n")].concat()
}

/// A good configuration, and lines behind it.
fn with(more: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n\
         [[upstreams]]\nname = \"bank\"\nprefix = \"/data/v1\"\nurl = \"http://127.0.0.1:9\"\n{more}"
    )
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_key() {
    is_refused(&with("tiemout = \"5s\"\n"), &["ringback.toml", ":8", "tiemout", "timeout"]).await;
    is_refused(&with("[webhooks]\ndelais = []\n"), &["ringback.toml", ":9", "delais", "delays"]).await;
    is_refused(&with("[upstreams.retry]\ndeadlin = \"1m\"\n"), &["deadlin", "deadline"]).await;
    is_refused(&with("[webhook]\n"), &["webhook", "webhooks"]).await;
}

#[tokio::test]
async fn values_that_cannot_be_read_are_refused_with_their_place() {
    is_refused(&with("timeout = \"soon\"\n"), &["ringback.toml", ":8", "soon"]).await;
    is_refused(&with("max_result_bytes = \"many\"\n"), &["ringback.toml", ":8", "many"]).await;
    is_refused(&with("idempotency = \"sometimes\"\n"), &["ringback.toml", ":8", "sometimes"]).await;
    is_refused(&with("[upstreams.retry]\nstatuses = [200]\n"), &["status"]).await;
    is_refused("[server\n", &["ringback.toml", ":1"]).await;
}

#[tokio::test]
async fn contradictions_are_refused() {
    is_refused(&with("[upstreams.retry]\ndeadline = \"1s\"\n"), &["deadline", "timeout"]).await;
    let twice = "[[upstreams]]\nname = \"other\"\nprefix = \"/data/v1\"\nurl = \"http://127.0.0.1:9\"\n";
    is_refused(&with(twice), &["/data/v1"]).await;
    is_refused(&with(&twice.replace("/data/v1", "/data/v1/")), &["prefix"]).await;
    let twice = twice.replace("/data/v1", "/other").replace("\"other\"", "\"bank\"");
    is_refused(&with(&twice), &["bank"]).await;
    let seven = "[webhooks]\ndelays = [\"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\"]\n";
    is_refused(&with(seven), &["webhooks.delays", "6"]).await;
}

#[tokio::test]
async fn an_identity_that_cannot_work_is_refused() {
    let jwt = |more: &str| with(&format!("[upstreams.identity]\nmode = \"jwt\"\n{more}"));
    let source = "jwks_url = \"http://127.0.0.1:9/jwks\"\n";
    is_refused(&jwt(&format!("{source}issuer = \"i\"\n")), &["audience"]).await;
    is_refused(&jwt(&format!("{source}audience = \"a\"\n")), &["issuer"]).await;
    is_refused(&jwt("issuer = \"i\"\naudience = \"a\"\n"), &["jwks"]).await;
    is_refused(&with("[upstreams.identity]\nmode = \"guess\"\n"), &["guess"]).await;
}

#[tokio::test]
async fn an_upstream_that_cannot_be_called_is_refused() {
    let upstream = |url: &str, prefix: &str| {
        format!("[[upstreams]]\nname = \"bank\"\nprefix = \"{prefix}\"\nurl = \"{url}\"\n")
    };
    is_refused(&upstream("ftp://127.0.0.1", "/"), &["url"]).await;
    is_refused(&upstream("127.0.0.1:80", "/"), &["url"]).await;
    is_refused(&upstream("http://127.0.0.1/?x=1", "/"), &["url"]).await;
    is_refused(&upstream("http://127.0.0.1", "data"), &["prefix"]).await;
    is_refused(&upstream("http://127.0.0.1", "/data/../x"), &["prefix"]).await;
    is_refused("[server]\nlisten = \"127.0.0.1:0\"\n", &["upstream"]).await;
}

#[tokio::test]
async fn a_node_that_listens_everywhere_must_know_its_public_url() {
    let text = with("").replace("listen = \"127.0.0.1:0\"\nadmin", "listen = \"0.0.0.0:0\"\nadmin");
    is_refused(&text, &["public_url"]).await;
    let text = with("").replace("listen = \"127.0.0.1:0\"\nadmin", "listen = \"[::]:0\"\nadmin");
    is_refused(&text, &["public_url"]).await;
}

#[tokio::test]
async fn a_configuration_that_is_not_there_is_named() {
    let ended = run(&["check", "--config", "/nowhere/ringback.toml"]).await;
    assert!(!ended.status.success());
    assert!(said(&ended).contains("/nowhere/ringback.toml"), "{}", said(&ended));
}

#[tokio::test]
async fn check_says_what_a_configuration_resolves_to_and_hides_secrets() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream)
        .set("upstreams.0.headers.set.x-api-key", "hush-value")
        .set("webhooks.timeout", "7s");
    let ended = run(&["check", "--config", &setup.config_file().display().to_string()]).await;
    let said = said(&ended);
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("x-api-key") && !said.contains("hush"), "{said}");
    assert!(said.contains("7s"), "what the file says: {said}");
    assert!(said.contains("drain_timeout") && said.contains("35s"), "and the defaults: {said}");
    assert!(!setup.data_dir().exists(), "a check makes nothing");
}

#[tokio::test]
async fn the_environment_overrides_the_file_and_flags_override_both() {
    let (wrong, right) = (Upstream::start().await, Upstream::start().await);
    let node = Setup::new(&wrong)
        .env("RINGBACK_UPSTREAMS__0__URL", &right.uri(""))
        .env("RINGBACK_SERVER__MAX_URI_BYTES", "50")
        .env("RINGBACK_COLOUR", "blue")
        .start()
        .await;
    assert_eq!(node.get("/x").send().await.status, 200);
    assert_eq!(right.only_call().target, "/x");
    wrong.saw_nobody();
    node.get(&format!("/{}", "x".repeat(50))).send().await.is_refusal(414, "uri_too_long");
    let flag = Setup::new(&wrong).set("server.listen", "127.0.0.1:1").arg("--listen").arg("127.0.0.1:0");
    assert_eq!(flag.start().await.get("/x").send().await.status, 200);
}

#[tokio::test]
async fn an_unknown_variable_that_is_configuration_is_refused() {
    let upstream = Upstream::start().await;
    let ended = Setup::new(&upstream).env("RINGBACK_WEBHOOKS__TIMOUT", "5s").spawn().ended().await;
    assert!(!ended.status.success());
    assert!(said(&ended).contains("RINGBACK_WEBHOOKS__TIMOUT"), "{}", said(&ended));
}

/// Starts `serve` by flags alone.
async fn by_flags(
    upstream: &Upstream,
    dir: &tempfile::TempDir,
    more: &[&str],
) -> (Process, std::net::SocketAddr) {
    let data = dir.path().join("data").display().to_string();
    let url = upstream.uri("");
    let mut args =
        vec!["serve", "--upstream", &url, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    args.extend(["--data-dir", &data]);
    args.extend(more);
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    let mut process = Process::start(&args, &[]);
    let gateway = listening(&mut process, "gateway").await;
    let admin = listening(&mut process, "admin").await;
    ready(admin).await;
    (process, gateway)
}

#[tokio::test]
async fn one_flag_is_configuration_enough() {
    let upstream = Upstream::start().await;
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (_process, gateway) = by_flags(&upstream, &dir, &[]).await;
    let call = |target: &str| Call::new(gateway, Method::GET, target);
    assert_eq!(call("/x?y=1").send().await.status, 200);
    assert_eq!(upstream.only_call().target, "/x?y=1");
    call("/x?async=true").send().await.is_refusal(401, "invalid_token");
    let accepted = call("/x?async=true").bearer("mine").send().await;
    assert_eq!(accepted.status, 202, "{:?}", accepted.body);
    let results = accepted.header("location").expect("the answer says where the results are").to_owned();
    assert!(results.starts_with(&format!("http://{gateway}/results/")), "{results}");
    assert!(Call::get(&results).bearer("mine").send().await.status < 300);
    Call::get(&results).bearer("other").send().await.is_refusal(404, "task_not_found");
}

#[tokio::test]
async fn dev_asks_for_nothing_and_says_so_loudly() {
    let upstream = Upstream::start().await;
    let receiver = crate::support::receiver::Receiver::start().await;
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (process, gateway) = by_flags(&upstream, &dir, &["--dev"]).await;
    let target = format!("/x?{}", receiver.query("/hook"));
    assert_eq!(Call::new(gateway, Method::GET, &target).send().await.status, 202);
    receiver.wait_for(1).await;
    assert!(process.log().contains("WARN"), "{}", process.log());
}

#[tokio::test]
async fn every_command_explains_itself() {
    for command in [&["--help"][..], &["serve", "--help"], &["check", "--help"], &["sandbox", "--help"]] {
        let ended = run(command).await;
        assert!(ended.status.success(), "{command:?}");
        assert!(ended.stdout.join("\n").contains("Usage"), "{command:?}");
    }
    let ended = run(&["serv"]).await;
    assert!(!ended.status.success());
}

#[tokio::test]
async fn an_identity_that_asks_and_cannot_is_refused() {
    let introspection = |more: &str| {
        with(&format!("[upstreams.identity]\nmode = \"introspection\"\nclaim = \"sub\"\n{more}\n"))
    };
    let url = "introspection_url = \"https://issuer.example/introspect\"";
    let id = "client_id = \"me\"";
    is_refused(&introspection(id), &["introspection_url"]).await;
    is_refused(&introspection(url), &["client_id"]).await;
    is_refused(&introspection(&format!("{url}\n{id}")), &["client_secret"]).await;
    is_refused(&introspection("introspection_url = \"issuer.example\""), &["introspection_url"]).await;

    let upstream = |more: &str| with(&format!("[upstreams.identity]\nmode = \"upstream\"\n{more}\n"));
    is_refused(&upstream("path = \"/me\""), &["pointer"]).await;
    is_refused(&upstream("pointer = \"/id\""), &["path"]).await;
    is_refused(&upstream("path = \"/me\"\npointer = \"id\""), &["pointer", "must start with `/`"]).await;
    is_refused(&upstream("path = \"https://other.example/me\"\npointer = \"/id\""), &["path"]).await;

    let opaque = |more: &str| with(&format!("[upstreams.identity]\nmode = \"opaque\"\n{more}\n"));
    is_refused(&opaque("revalidate = true"), &["path"]).await;
}
