//! The inbox as a page for people: newest first, no scripts, everything escaped. Pure.

use std::fmt::Write;

use super::Delivery;

/// Further ones are in `/deliveries`.
const SHOWN_MAX: usize = 100;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5">
<link rel="icon" href="data:,">
<title>Webhook inbox</title>
<style>
:root { color-scheme: light dark; --line: #d5d9e0; --soft: #f5f6f8; --dim: #667080; --good: #1a7f4b; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --line: #3a404a; --soft: #23272e; --dim: #9aa4b2; --good: #55c58c; --bad: #ff8a7a; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
p { color: var(--dim); margin: .25rem 0 1.5rem; }
article { border: 1px solid var(--line); border-radius: .5rem; margin: 0 0 1rem; overflow: hidden; }
header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; padding: .6rem 1rem; background: var(--soft); }
h2 { font: 600 .95rem/1.5 ui-monospace, monospace; margin: 0; flex: 1 1 60%; overflow-wrap: anywhere; }
small { color: var(--dim); font-size: .85rem; }
b.good { color: var(--good); } b.bad { color: var(--bad); } b.none { color: var(--dim); }
pre { font: .85rem/1.5 ui-monospace, monospace; margin: 0; padding: .75rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
summary { color: var(--dim); font-size: .85rem; padding: .35rem 1rem; cursor: pointer; border-top: 1px solid var(--line); }
code { font: .9em ui-monospace, monospace; }
</style>
</head>
<body>
<h1>Webhook inbox</h1>
"#;

/// The whole page; `deliveries` are oldest first.
pub(super) fn render(deliveries: &[Delivery]) -> String {
    let mut page = String::from(HEAD);
    page.push_str(&summary(deliveries.len()));
    for delivery in deliveries.iter().rev().take(SHOWN_MAX) {
        page.push_str(&article(delivery));
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn summary(count: usize) -> String {
    let counted = match count {
        0 => "Nothing has arrived yet. Give a call a <code>webhook_uri</code> on this address, any path."
            .to_owned(),
        1 => "1 delivery attempt.".to_owned(),
        _ if count > SHOWN_MAX => format!("{count} delivery attempts; the last {SHOWN_MAX} are shown."),
        _ => format!("{count} delivery attempts, newest first."),
    };
    format!(
        "<p>{counted} As JSON: <a href=\"/deliveries\">/deliveries</a>. This page refreshes itself.</p>\n"
    )
}

fn article(delivery: &Delivery) -> String {
    let received = &delivery.received;
    let query = received.query.as_deref().map_or_else(String::new, |query| format!("?{query}"));
    let target = escaped(&format!("{} {}{query}", received.method, received.path));
    let (class, answer) = match delivery.status {
        Some(status @ 200..300) => ("good", format!("answered {status}")),
        Some(status) => ("bad", format!("answered {status}")),
        None => ("none", "not answered".to_owned()),
    };
    let id = received.webhook_id.as_deref().map_or_else(String::new, |id| format!(" of {}", escaped(id)));
    let mut html = format!(
        "<article>\n<header><h2>{target}</h2><b class=\"{class}\">{answer}</b>\
         <small>{}</small><small>try {}{id}</small></header>\n",
        escaped(&received.arrived),
        received.attempt,
    );
    let body = received.json.as_ref().and_then(|json| serde_json::to_string_pretty(json).ok());
    let body = escaped(body.as_deref().unwrap_or(&received.body));
    if !body.is_empty() {
        let _ = writeln!(html, "<pre>{body}</pre>");
    }
    html.push_str("<details><summary>Headers</summary><pre>");
    for (name, value) in &received.headers {
        let _ = writeln!(html, "{}: {}", escaped(name), escaped(value));
    }
    html.push_str("</pre></details>\n</article>\n");
    html
}

/// Text that means itself in HTML, in an element or in a quoted attribute.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(letter),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::inbox::Received;

    fn delivery(attempt: u32, text: &str, status: Option<u16>) -> Delivery {
        let received = Received {
            arrived: "2026-01-01T00:00:00.000Z".into(),
            method: "POST".into(),
            path: format!("/{text}"),
            query: Some(text.into()),
            headers: [("x-test".to_owned(), text.to_owned())].into(),
            body: text.into(),
            json: serde_json::from_str(text).ok(),
            webhook_id: Some(text.into()),
            attempt,
        };
        Delivery { received: Arc::new(received), status }
    }

    #[test]
    fn nothing_that_was_sent_is_markup() {
        let hostile = "</pre><script>alert('x')</script>\"&";
        let page = render(&[delivery(1, hostile, Some(200)), delivery(2, &format!("[{hostile:?}]"), None)]);
        assert!(!page.contains("<script") && !page.contains("alert('x')"));
        assert_eq!(page.matches("&lt;script&gt;").count(), 9 + 1, "path, query, id, header and body, twice");
    }

    #[test]
    fn the_newest_is_on_top_and_json_is_laid_out() {
        let page = render(&[delivery(1, "{}", Some(503)), delivery(2, r#"{"a":1}"#, Some(200))]);
        assert!(page.find("try 2").unwrap() < page.find("try 1").unwrap());
        assert!(page.contains("{\n  &quot;a&quot;: 1\n}"));
        assert!(page.contains("class=\"bad\">answered 503") && page.contains("class=\"good\">answered 200"));
    }
}
