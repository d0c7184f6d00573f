//! A webhook as it came, read; and which ones came before.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

/// As many ids are remembered as a person can care about.
const REMEMBERED: usize = 1_024;

/// What is shown of a webhook.
pub struct Webhook {
    pub id: String,
    pub task_id: String,
    pub status: String,
    pub request_uri: String,
    pub results_uri: String,
    pub error: Option<String>,
    pub error_description: Option<String>,
    /// The whole body.
    pub body: Value,
}

#[derive(Deserialize)]
struct Fields {
    task_id: String,
    status: String,
    request_uri: String,
    results_uri: String,
    error: Option<String>,
    error_description: Option<String>,
}

impl Webhook {
    /// # Errors
    /// What is missing.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, &'static str> {
        let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).ok_or("it has no webhook-id")?;
        let body: Value = serde_json::from_slice(body).map_err(|_| "its body is not JSON")?;
        let fields = Fields::deserialize(&body).map_err(|_| "its body has other fields")?;
        let Fields { task_id, status, request_uri, results_uri, error, error_description } = fields;
        let id = id.to_owned();
        Ok(Self { id, task_id, status, request_uri, results_uri, error, error_description, body })
    }
}

/// Ids of webhooks that came: a try that is repeated has the same one.
#[derive(Default)]
pub struct Seen(Mutex<VecDeque<String>>);

impl Seen {
    /// Whether this id came before. Remembers it.
    pub fn again(&self, id: &str) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.iter().any(|one| one == id) {
            return true;
        }
        if seen.len() == REMEMBERED {
            seen.pop_front();
        }
        seen.push_back(id.to_owned());
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_webhook_is_told_by_what_is_missing() {
        let mut headers = HeaderMap::new();
        let why = |headers: &HeaderMap, body: &str| Webhook::read(headers, body.as_bytes()).err();
        assert_eq!(why(&headers, "{}"), Some("it has no webhook-id"));
        headers.insert("webhook-id", "1".parse().unwrap());
        assert_eq!(why(&headers, "<"), Some("its body is not JSON"));
        assert_eq!(why(&headers, "{}"), Some("its body has other fields"));
        let good = r#"{"task_id":"1","status":"Succeeded","request_uri":"a","results_uri":"b","error":null}"#;
        assert!(why(&headers, good).is_none());
    }

    #[test]
    fn only_so_many_ids_are_remembered() {
        let seen = Seen::default();
        assert!(!seen.again("first"));
        assert!(seen.again("first"));
        for number in 0..REMEMBERED {
            seen.again(&number.to_string());
        }
        assert!(!seen.again("first"));
    }
}
