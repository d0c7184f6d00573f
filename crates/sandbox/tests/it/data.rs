//! The Data API: shapes, headers, dates, errors, and that answers repeat.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Reply, Server};

/// Every path that answers this user.
async fn paths(bank: &Server, token: &str) -> Vec<String> {
    let mut paths: Vec<String> =
        ["me", "info", "accounts", "cards"].map(|path| format!("/data/v1/{path}")).into();
    for (kind, views) in [
        (
            "accounts",
            &["", "/balance", "/transactions", "/transactions/pending", "/standing_orders", "/direct_debits"]
                [..],
        ),
        ("cards", &["", "/balance", "/transactions", "/transactions/pending"]),
    ] {
        for item in bank.get(&format!("/data/v1/{kind}"), token).await.results() {
            let id = item["account_id"].as_str().unwrap();
            paths.extend(views.iter().map(|view| format!("/data/v1/{kind}/{id}{view}")));
        }
    }
    paths
}

async fn current_account(bank: &Server, token: &str) -> String {
    let accounts = bank.get("/data/v1/accounts", token).await.results();
    format!("/data/v1/accounts/{}", accounts[0]["account_id"].as_str().unwrap())
}

fn assert_error(reply: &Reply, status: u16, code: &str) {
    let body = reply.json();
    assert_eq!((reply.status, &body["error"]), (status, &json!(code)), "{body}");
    assert!(body["error_description"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(body["error_details"], json!({}));
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
}

#[tokio::test]
async fn every_answer_repeats_byte_for_byte_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let bank = Server::bank_in(dir.path()).await;
    let token = bank.token("john").await;
    let paths = paths(&bank, &token).await;
    assert!(paths.len() > 25);
    let mut bodies = Vec::new();
    for path in &paths {
        let reply = bank.get(path, &token).await;
        reply.results();
        assert_eq!(
            reply.body,
            bank.get(&format!("{path}?t=1&async=true&webhook_uri=x"), &token).await.body,
            "{path}"
        );
        bodies.push(reply.body);
    }
    bank.stop().await;
    let bank = Server::bank_in(dir.path()).await;
    for (path, body) in paths.iter().zip(&bodies) {
        assert_eq!(bank.get(path, &token).await.body, body, "{path}");
    }
}

#[tokio::test]
async fn every_answer_carries_the_headers_of_the_contract() {
    let bank = Server::bank().await;
    let token = bank.token("john").await;
    let me = bank.get("/data/v1/me", &token).await;
    let again = bank.get("/data/v1/me", &token).await;
    let missing = bank.get("/data/v1/accounts/x", &token).await;
    for reply in [&me, &missing] {
        for (name, value) in [
            ("content-type", "application/json; charset=utf-8"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none';"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "deny"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(reply.header(name), value);
        }
        assert_eq!(reply.header("x-credentials-id"), me.results()[0]["credentials_id"]);
        assert_eq!(reply.header("x-tl-correlation-id").len(), 36);
        assert_eq!(reply.header("x-request-id").len(), 36);
        assert!(!reply.header("x-xss-protection").is_empty());
    }
    assert_ne!(me.header("x-tl-correlation-id"), again.header("x-tl-correlation-id"));
    assert_eq!(
        (me.header("cache-control"), missing.header("cache-control")),
        ("private, max-age=3600", "no-store")
    );
    assert!(me.header("last-modified").ends_with(" 00:00:00 GMT"));
}

#[tokio::test]
async fn shapes_are_those_of_the_contract() {
    let bank = Server::bank().await;
    let token = bank.token("john").await;
    let account = current_account(&bank, &token).await;
    let card =
        bank.get("/data/v1/cards", &token).await.results()[0]["account_id"].as_str().unwrap().to_owned();
    let card = format!("/data/v1/cards/{card}");
    for (path, fields) in [
        (
            "/data/v1/me".to_owned(),
            "client_id credentials_id consent_status consent_status_updated_at consent_created_at consent_expires_at provider scopes privacy_policy",
        ),
        ("/data/v1/info".to_owned(), "full_name emails phones addresses date_of_birth update_timestamp"),
        (
            "/data/v1/accounts".to_owned(),
            "update_timestamp account_id account_type display_name currency account_number provider",
        ),
        (
            account.clone(),
            "update_timestamp account_id account_type display_name currency account_number provider",
        ),
        (format!("{account}/balance"), "currency available current overdraft update_timestamp"),
        (
            format!("{account}/transactions"),
            "transaction_id normalised_provider_transaction_id provider_transaction_id timestamp description amount currency transaction_type transaction_category transaction_classification running_balance meta",
        ),
        (
            format!("{account}/standing_orders"),
            "frequency status timestamp currency next_payment_date next_payment_amount first_payment_date first_payment_amount final_payment_date final_payment_amount reference payee meta",
        ),
        (
            format!("{account}/direct_debits"),
            "direct_debit_id timestamp name status previous_payment_timestamp previous_payment_amount currency meta",
        ),
        (
            "/data/v1/cards".to_owned(),
            "account_id card_network card_type currency display_name partial_card_number name_on_card valid_from valid_to update_timestamp provider",
        ),
        (
            format!("{card}/balance"),
            "available current currency credit_limit last_statement_balance last_statement_date payment_due payment_due_date update_timestamp",
        ),
        (
            format!("{card}/transactions"),
            "transaction_id timestamp description amount currency transaction_type transaction_category transaction_classification running_balance meta",
        ),
    ] {
        let results = bank.get(&path, &token).await.results();
        assert!(!results.is_empty(), "{path}");
        for item in &results {
            for field in fields.split(' ') {
                assert!(!item[field].is_null(), "{field} of {path}: {item}");
            }
        }
    }
    let one = bank.get(&account, &token).await.results();
    assert_eq!(one, &bank.get("/data/v1/accounts", &token).await.results()[..1]);
}

#[tokio::test]
async fn a_standing_order_and_a_direct_debit_say_what_the_account_shows() {
    let bank = Server::bank().await;
    let token = bank.token("jane").await;
    let account = current_account(&bank, &token).await;
    let transactions = bank.get(&format!("{account}/transactions"), &token).await.results();
    let latest = |category: &str, text: &Value| {
        let found = transactions
            .iter()
            .find(|line| line["transaction_category"] == category && line["description"] == *text);
        found.unwrap_or_else(|| panic!("no {category} {text}")).clone()
    };
    for debit in bank.get(&format!("{account}/direct_debits"), &token).await.results() {
        let line = latest("DIRECT_DEBIT", &debit["name"]);
        assert_eq!(line["timestamp"], debit["previous_payment_timestamp"]);
        assert_eq!(line["amount"].as_f64().map(|amount| -amount), debit["previous_payment_amount"].as_f64());
    }
    let rent = &bank.get(&format!("{account}/standing_orders"), &token).await.results()[0];
    latest("STANDING_ORDER", &rent["payee"]);
}

#[tokio::test]
async fn every_date_form_filters_alike_and_both_ends_belong() {
    let bank = Server::bank().await;
    let token = bank.token("john").await;
    let url = format!("{}/transactions", current_account(&bank, &token).await);
    let all = bank.get(&url, &token).await.results();
    let within = |from: &str, to: &str| {
        let inside = |line: &&Value| (from..=to).contains(&&line["timestamp"].as_str().unwrap()[..10]);
        all.iter().filter(inside).cloned().collect::<Vec<_>>()
    };
    let wanted = within("2024-01-02", "2024-01-31");
    let days: Vec<&str> = wanted.iter().map(|line| &line["timestamp"].as_str().unwrap()[..10]).collect();
    assert!(wanted.len() > 10);
    assert_eq!(
        (days.first(), days.last()),
        (Some(&"2024-01-31"), Some(&"2024-01-02")),
        "both ends have lines"
    );
    for (from, to) in [
        ("2024-01-02", "2024-01-31"),
        ("2024-01-02T00:00:00Z", "2024-01-31T00:00:00Z"),
        ("2024-01-02T00:00:00.000Z", "2024-01-31T23:59:59.999Z"),
        ("2024-01-02T00%3A00%3A00%2B00%3A00", "2024-01-31T00%3A00%3A00%2B0000"),
        ("2024-01-02T00:00:00+00:00", "2024-01-31T00:00:00+0000"),
        ("2024-01-02T01:00:00+01:00", "2024-01-31T01:00:00+0100"),
        ("2024-01-01T19:00:00-05:00", "2024-01-30T19:00:00-0500"),
        ("2024-01-02T00:00:00", "2024-01-31T00:00:00"),
    ] {
        let reply = bank.get(&format!("{url}?from={from}&to={to}&t=17"), &token).await;
        assert_eq!(reply.results(), wanted, "{from} {to}");
    }
    let late = bank.get(&format!("{url}?from=2024-01-02&to=2024-01-30T23:59:59Z"), &token).await.results();
    assert_eq!(late, within("2024-01-02", "2024-01-30"));
    let since = bank.get(&format!("{url}?from=2024-01-02"), &token).await.results();
    assert_eq!(since, within("2024-01-02", "9999"));
    let until = bank.get(&format!("{url}?to=2024-01-31"), &token).await.results();
    assert_eq!(until, within("2022-01-01", "2024-01-31"));
    assert_eq!(until.last().unwrap()["timestamp"], "2022-01-01T00:00:00Z");
    assert!(bank.get(&format!("{url}?to=2021-12-31"), &token).await.results().is_empty());
}

#[tokio::test]
async fn bad_dates_are_refused_only_where_dates_mean_something() {
    let bank = Server::bank().await;
    let token = bank.token("john").await;
    let account = current_account(&bank, &token).await;
    for (query, code) in [
        ("from=yesterday", "validation_error"),
        ("to=2024-02-30", "validation_error"),
        ("from=", "validation_error"),
        ("from=2024-01-02T00:00:00%FF", "validation_error"),
        ("from=2024-02-01&to=2024-01-01", "invalid_date_range"),
    ] {
        for path in ["transactions", "transactions/pending"] {
            assert_error(&bank.get(&format!("{account}/{path}?{query}"), &token).await, 400, code);
        }
    }
    assert_eq!(bank.get(&format!("{account}/balance?from=yesterday"), &token).await.status, 200);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_a_wrong_method_405() {
    let bank = Server::bank().await;
    let token = bank.token("john").await;
    let jane = bank.token("jane").await;
    let account = current_account(&bank, &token).await;
    assert_error(&bank.get("/data/v1/accounts/nobody/balance", &token).await, 404, "account_not_found");
    assert_error(&bank.get("/data/v1/cards/nobody", &token).await, 404, "account_not_found");
    assert_error(&bank.get(&account, &jane).await, 404, "account_not_found");
    for path in ["/data/v1", "/data/v1/", "/data/v1/nothing", "/data/v1/results/1", "/data/v2/me", "/"] {
        assert_error(&bank.get(path, &token).await, 404, "not_found");
    }
    for method in [Method::POST, Method::DELETE, Method::PUT, Method::PATCH, Method::OPTIONS] {
        let reply = bank.send(method, "/data/v1/me", &[], b"x").await;
        assert_error(&reply, 405, "method_not_allowed");
        assert_eq!(reply.header("allow"), "GET, HEAD");
    }
}

#[tokio::test]
async fn head_answers_like_get_without_the_body() {
    let bank = Server::bank().await;
    let token = format!("Bearer {}", bank.token("john").await);
    let get = bank.send(Method::GET, "/data/v1/info", &[("authorization", &token)], b"").await;
    let head = bank.send(Method::HEAD, "/data/v1/info", &[("authorization", &token)], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.body.len().to_string());
}

#[tokio::test]
async fn calls_are_listed_in_order_with_who_what_and_how_it_ended() {
    let bank = Server::bank().await;
    let token = bank.token("john").await;
    bank.get("/data/v1/me?t=1", &token).await;
    bank.get("/data/v1/accounts/x", &token).await;
    bank.get("/data/v1/nothing", "").await;
    let mut calls = bank.get("/calls", "").await.json();
    for call in calls.as_array_mut().unwrap() {
        let time = call.as_object_mut().unwrap().remove("time").unwrap();
        time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
    assert_eq!(
        calls,
        json!([
            {"user": "john", "method": "GET", "path": "/data/v1/me", "query": "t=1", "status": 200},
            {"user": "john", "method": "GET", "path": "/data/v1/accounts/x", "query": null, "status": 404},
            {"user": null, "method": "GET", "path": "/data/v1/nothing", "query": null, "status": 404},
        ])
    );
}
