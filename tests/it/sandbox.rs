//! The sandbox as a newcomer meets it: bank, gateway and inbox, and users that mean trouble.

use serde_json::Value;

use crate::support::client::{Answer, encode};
use crate::support::eventually;
use crate::support::node::Task;
use crate::support::sandbox::{Sandbox, Tokens};

/// Calls the accounts of `user` asynchronously and waits for the end.
async fn accounts_of(sandbox: &Sandbox, user: &str) -> (Tokens, Task, Answer) {
    let tokens = sandbox.tokens(user).await;
    let task = sandbox.submit("/data/v1/accounts?async=true", &tokens.access).await;
    let answer = sandbox.finished(&task, &tokens.access).await;
    (tokens, task, answer)
}

/// The data calls a user has made at the bank.
async fn calls_of(sandbox: &Sandbox, user: &str) -> Vec<Value> {
    sandbox.bank_calls().await.into_iter().filter(|call| call["user"] == user).collect()
}

#[tokio::test]
async fn the_whole_walk() {
    let sandbox = Sandbox::start().await;
    let tokens = sandbox.tokens("john").await;
    let synchronous = sandbox.get("/data/v1/accounts", &tokens.access).send().await;
    assert_eq!(synchronous.status, 200);

    let webhook_uri = encode(&sandbox.inbox_uri("/hooks/mine?secret=s3cret"));
    let target = format!("/data/v1/accounts?async=true&webhook_uri={webhook_uri}");
    let accepted = sandbox.get(&target, &tokens.access).send().await;
    let task = Task::from(&accepted);
    let polled = Sandbox::results(&task, &tokens.access).send().await;
    assert!([200, 202].contains(&polled.status), "{}", polled.status);
    let answer = sandbox.finished(&task, &tokens.access).await;
    let deliveries = sandbox.wait_for_deliveries(&task, 1).await;

    assert_eq!(answer.body, synchronous.body, "the result is the synchronous answer, byte for byte");
    assert_eq!(answer.header("content-type"), synchronous.header("content-type"));
    assert_eq!(answer.json()["status"], "Succeeded");
    assert!(answer.json()["results"].as_array().is_some_and(|results| results.len() > 1));
    let delivery = &deliveries[0];
    assert_eq!((&delivery["path"], &delivery["query"]), (&"/hooks/mine".into(), &"secret=s3cret".into()));
    let webhook = &delivery["json"];
    assert_eq!((&webhook["task_id"], &webhook["status"]), (&task.id.as_str().into(), &"Succeeded".into()));
    assert_eq!(webhook["results_uri"], task.results_uri);
    assert_eq!(webhook["credentials_id"].as_str(), synchronous.header("x-credentials-id"));
    assert!(webhook["request_uri"].as_str().is_some_and(|uri| uri.ends_with("/data/v1/accounts")));
}

#[tokio::test]
async fn every_endpoint_answers_the_same_both_ways() {
    let sandbox = Sandbox::start().await;
    let token = sandbox.tokens("john").await.access;
    let first = async |kind: &str| {
        let list = sandbox.get(&format!("/data/v1/{kind}"), &token).send().await.json();
        list["results"][0]["account_id"].as_str().expect("a first one").to_owned()
    };
    let (account, card) = (first("accounts").await, first("cards").await);
    let (account, card) = (format!("accounts/{account}"), format!("cards/{card}"));
    let range = "from=2024-01-01&to=2024-02-01T00:00:00Z";
    let paths = [
        "me".to_owned(),
        "info".to_owned(),
        "accounts".to_owned(),
        account.clone(),
        format!("{account}/balance"),
        format!("{account}/transactions?{range}"),
        format!("{account}/transactions/pending"),
        format!("{account}/standing_orders"),
        format!("{account}/direct_debits"),
        "cards".to_owned(),
        card.clone(),
        format!("{card}/balance"),
        format!("{card}/transactions?{range}"),
        format!("{card}/transactions/pending"),
    ];
    for path in paths {
        let target = format!("/data/v1/{path}");
        let synchronous = sandbox.get(&target, &token).send().await;
        assert_eq!(synchronous.status, 200, "{path}: {:?}", synchronous.body);
        let question = if path.contains('?') { "&" } else { "?" };
        let task = sandbox.submit(&format!("{target}{question}async=true"), &token).await;
        let answer = sandbox.finished(&task, &token).await;
        assert_eq!(answer.header("ringback-status"), Some("Succeeded"), "{path}");
        assert_eq!(answer.body, synchronous.body, "{path}");
    }
}

#[tokio::test]
async fn a_refreshed_token_reads_and_janes_does_not() {
    let sandbox = Sandbox::start().await;
    let (tokens, task, answer) = accounts_of(&sandbox, "john").await;
    let refreshed = sandbox.refreshed(&tokens).await;
    assert_ne!(refreshed.access, tokens.access);
    assert_eq!(Sandbox::results(&task, &refreshed.access).send().await.body, answer.body);
    let jane = sandbox.tokens("jane").await.access;
    Sandbox::results(&task, &jane).send().await.is_refusal(404, "task_not_found");
    Sandbox::results(&task, "nonsense").send().await.is_refusal(401, "invalid_token");
}

#[tokio::test]
async fn an_error_user_fails_with_the_banks_own_error() {
    let sandbox = Sandbox::start().await;
    let cases = [
        ("provider_error", 503, 5),
        ("temporarily_unavailable", 503, 5),
        ("provider_timeout", 504, 5),
        ("internal_server_error", 500, 5),
        ("provider_too_many_requests", 429, 5),
        ("access_denied", 403, 1),
        ("account_not_found", 404, 1),
        ("endpoint_not_supported", 501, 1),
    ];
    for (code, status, attempts) in cases {
        let user = format!("error.{code}");
        let (_, _, answer) = accounts_of(&sandbox, &user).await;
        let failed = answer.json();
        assert_eq!(
            (answer.status, &failed["status"], &failed["error"]),
            (200, &"Failed".into(), &code.into())
        );
        assert_eq!(failed["error_details"]["upstream_status"], status, "{code}");
        let reason = if attempts == 1 { "not_transient" } else { "retries_exhausted" };
        assert_eq!(failed["error_details"]["reason"], reason, "{code}");
        assert_eq!(calls_of(&sandbox, &user).await.len(), attempts, "{code}");
    }
}

#[tokio::test]
async fn a_flaky_bank_is_called_until_it_answers() {
    let sandbox = Sandbox::start().await;
    let (_, _, answer) = accounts_of(&sandbox, "flaky").await;
    assert_eq!(answer.header("ringback-status"), Some("Succeeded"));
    let statuses: Vec<_> =
        calls_of(&sandbox, "flaky").await.iter().map(|call| call["status"].clone()).collect();
    assert_eq!(statuses, [503, 503, 200]);
}

#[tokio::test]
async fn a_slow_bank_is_waited_for() {
    let sandbox = Sandbox::start().await;
    let tokens = sandbox.tokens("slow").await;
    let task = sandbox.submit("/data/v1/accounts?async=true", &tokens.access).await;
    let polled = Sandbox::results(&task, &tokens.access).send().await;
    assert_eq!(polled.status, 202, "the 202 came long before the answer");
    let answer = sandbox.finished(&task, &tokens.access).await;
    assert_eq!(answer.header("ringback-status"), Some("Succeeded"));
    assert_eq!(calls_of(&sandbox, "slow").await.len(), 1);
}

#[tokio::test]
async fn a_limited_bank_is_not_called_before_it_said() {
    let sandbox = Sandbox::start().await;
    let (_, _, answer) = accounts_of(&sandbox, "limited").await;
    assert_eq!(answer.header("ringback-status"), Some("Succeeded"));
    let calls = calls_of(&sandbox, "limited").await;
    let statuses: Vec<_> = calls.iter().map(|call| call["status"].clone()).collect();
    assert_eq!(statuses, [429, 200]);
    let times = calls.iter().map(|call| {
        let time = call["time"].as_str().expect("the bank says when");
        time.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond()
    });
    let times: Vec<_> = times.collect();
    // The bank notes when a call comes; its times are whole milliseconds.
    assert!(times[1] - times[0] >= 2000 - 1, "called again after {} ms", times[1] - times[0]);
}

#[tokio::test]
async fn a_broken_bank_fails_the_task_when_its_retries_are_used_up() {
    let sandbox = Sandbox::start().await;
    let (tokens, _, answer) = accounts_of(&sandbox, "broken").await;
    let failed = answer.json();
    assert_eq!((&failed["status"], &failed["error"]), (&"Failed".into(), &"upstream_error".into()));
    assert_eq!(failed["error_details"]["reason"], "retries_exhausted");
    assert_eq!(calls_of(&sandbox, "broken").await.len(), 5);
    assert!(
        sandbox.get("/data/v1/accounts", &tokens.access).try_send().await.is_err(),
        "and never a clean end"
    );
}

#[tokio::test]
async fn the_inbox_refuses_as_often_as_it_is_told() {
    let sandbox = Sandbox::start().await;
    let token = sandbox.tokens("john").await.access;
    let submit = async |query: &str| {
        let uri = encode(&sandbox.inbox_uri(&format!("/hook?{query}")));
        sandbox.submit(&format!("/data/v1/accounts?async=true&webhook_uri={uri}"), &token).await
    };
    let task = submit("fail=2").await;
    let deliveries = sandbox.wait_for_deliveries(&task, 3).await;
    let ids: Vec<_> = deliveries.iter().map(|delivery| &delivery["webhook_id"]).collect();
    assert!(ids.iter().all(|id| id.is_string() && *id == ids[0]), "{ids:?}");

    let never = submit("status=500").await;
    sandbox.wait_for_deliveries(&never, 7).await;
    let page = sandbox.inbox("/").send().await;
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(String::from_utf8_lossy(&page.body).contains(&task.id));
    assert_eq!(sandbox.deliveries(&task).await.len(), 3, "delivered on the third try");
    assert_eq!(sandbox.deliveries(&never).await.len(), 7, "given up after six retries");
}

#[tokio::test]
async fn tokens_tasks_and_results_outlive_a_crash_of_the_whole_sandbox() {
    let sandbox = Sandbox::start().await;
    let (tokens, task, answer) = accounts_of(&sandbox, "john").await;
    let sandbox = sandbox.restart().await;
    let path = task.path();
    let again = sandbox.get(path, &tokens.access).send().await;
    assert_eq!((again.status, &again.body), (200, &answer.body));
    let fresh = sandbox.get("/data/v1/accounts", &tokens.access).send().await;
    assert_eq!(fresh.body, answer.body, "data repeats exactly");
    assert!(sandbox.data_dir().exists());
}

#[tokio::test]
async fn the_sandbox_prints_what_to_paste() {
    let mut sandbox = Sandbox::start().await;
    // The guide comes once everything serves, which is when the sandbox counts as started.
    let output = eventually("the guide is printed to its end", async || {
        Some(sandbox.process().output()).filter(|output| output.contains("Ctrl-C"))
    })
    .await;
    for word in
        ["curl", "/connect/token", "async=true", "webhook_uri", "/data/v1/", "results_uri", "/deliveries"]
    {
        assert!(output.contains(word), "`{word}` is not in:\n{output}");
    }
    assert!(output.contains(&sandbox.inbox_uri("")), "it names the ports it really has:\n{output}");
}
