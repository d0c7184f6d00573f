//! What is printed about one webhook. Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::webhook::Webhook;
use crate::cli::screen::{Tone, elapsed, painted, printable};
use crate::clock::Timestamp;

/// Characters of a result that are shown to a person.
const SHOWN: usize = 2_000;

/// Everything there is to say.
pub struct Report {
    /// Wall clock.
    pub at: Timestamp,
    pub webhook: Webhook,
    pub again: bool,
    pub forwarded: Option<Forwarded>,
    pub fetched: Option<Result<Fetched, String>>,
}

/// What the program behind `--forward` did.
pub enum Forwarded {
    Answered { status: StatusCode, took: Duration },
    Failed(String),
}

impl Forwarded {
    /// The webhook's answer: the program's own, so that Ringback retries what that refuses.
    pub fn answer(&self) -> StatusCode {
        match self {
            // An upgrade is nothing to pass back.
            Self::Answered { status, .. } if !status.is_informational() => *status,
            Self::Answered { .. } | Self::Failed(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

/// The beginning of a result.
pub struct Fetched {
    status: u16,
    content_type: String,
    length: Option<u64>,
    /// `None` for what is no text.
    text: Option<String>,
}

impl Fetched {
    pub fn of(status: StatusCode, headers: &HeaderMap, start: &[u8]) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // A character may be cut in two at the end of what was fetched.
        let whole = match std::str::from_utf8(start) {
            Ok(text) => Some(text),
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(&start[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        Self {
            status: status.as_u16(),
            content_type: text("content-type").unwrap_or("no content type").to_owned(),
            length: text("content-length").and_then(|length| length.parse().ok()),
            text: whole.map(str::to_owned),
        }
    }
}

impl Report {
    /// A block of lines, the details below the first.
    pub fn to_text(&self, coloured: bool) -> String {
        let webhook = &self.webhook;
        let faint = |text: &str| painted(coloured, Tone::Faint, text);
        let good = webhook.status == "Succeeded";
        let (tone, mark) = if good { (Tone::Good, "✓") } else { (Tone::Bad, "✗") };
        let status = painted(coloured, tone, &format!("{mark} {:<9}", printable(&webhook.status)));
        let time = self.at.to_rfc3339().get(11..19).map(|time| format!("{time}Z")).unwrap_or_default();
        let again = if self.again { "  (again)" } else { "" };
        let first = format!("{}  {status}  {}{again}", faint(&time), printable(&webhook.task_id));

        let mut details = vec![printable(&webhook.request_uri).into_owned()];
        if let Some(error) = &webhook.error {
            let description = webhook.error_description.as_deref().unwrap_or_default();
            details.push(format!("{}: {}", printable(error), printable(description)));
        }
        details.extend(self.forwarded.as_ref().map(|forwarded| match forwarded {
            Forwarded::Answered { status, took } => {
                format!("forwarded: {} in {}", status.as_u16(), elapsed(*took))
            }
            Forwarded::Failed(why) => format!("not forwarded: {}", printable(why)),
        }));
        details.extend(self.fetched.iter().flat_map(|fetched| match fetched {
            Ok(fetched) => fetched.lines(),
            Err(why) => vec![format!("not fetched: {}", printable(why))],
        }));
        let details = details.iter().map(|line| format!("           {line}\n"));
        format!("{first}\n{}\n", details.collect::<String>())
    }

    /// The same for scripts.
    pub fn to_json(&self) -> Value {
        let forwarded = self.forwarded.as_ref().map(|forwarded| match forwarded {
            Forwarded::Answered { status, .. } => json!({ "status": status.as_u16() }),
            Forwarded::Failed(why) => json!({ "error": why }),
        });
        let fetched = self.fetched.as_ref().map(|fetched| match fetched {
            Ok(fetched) => json!({
                "status": fetched.status,
                "content_type": fetched.content_type,
                "length": fetched.length,
                "text": fetched.text,
            }),
            Err(why) => json!({ "error": why }),
        });
        json!({
            "received_at": self.at.to_rfc3339(),
            "webhook_id": self.webhook.id,
            "again": self.again,
            "webhook": self.webhook.body,
            "forwarded": forwarded,
            "result": fetched,
        })
    }
}

impl Fetched {
    fn lines(&self) -> Vec<String> {
        let length = self.length.map(|length| format!(", {length} bytes")).unwrap_or_default();
        let mut lines = vec![format!("result: {} {}{length}", self.status, printable(&self.content_type))];
        if let Some(text) = &self.text {
            let shown: String = text.chars().take(SHOWN).collect();
            lines.extend(shown.lines().map(|line| printable(line).into_owned()));
            if shown.len() < text.len() {
                lines.push(String::from("…"));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let body = json!({
            "request_uri": "http://a/x?b=c", "task_id": "019a", "status": "Failed", "results_uri": "http://a/r",
            "error": "gone", "error_description": "No\u{1b}[2J such thing.",
        });
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "019a".parse().unwrap());
        Report {
            at: Timestamp(1_700_000_000_123),
            webhook: Webhook::read(&headers, body.to_string().as_bytes()).unwrap(),
            again: true,
            forwarded: Some(Forwarded::Answered {
                status: StatusCode::NO_CONTENT,
                took: Duration::from_millis(200),
            }),
            fetched: Some(Err(String::from("no"))),
        }
    }

    #[test]
    fn a_webhook_is_a_block_of_lines_without_a_strangers_control_characters() {
        assert_eq!(
            report().to_text(false),
            "22:13:20Z  ✗ Failed     019a  (again)\n           http://a/x?b=c\n           gone: No\\u{1b}[2J \
             such thing.\n           forwarded: 204 in 0.2s\n           not fetched: no\n\n"
        );
        assert!(report().to_text(true).contains("\x1b[31m✗ Failed"));
    }

    #[test]
    fn the_receivers_refusal_is_passed_back_and_silence_is_a_bad_gateway() {
        let answered = |status| Forwarded::Answered { status, took: Duration::ZERO }.answer();
        assert_eq!(answered(StatusCode::GONE), StatusCode::GONE);
        assert_eq!(answered(StatusCode::SWITCHING_PROTOCOLS), StatusCode::BAD_GATEWAY);
        assert_eq!(Forwarded::Failed(String::new()).answer(), StatusCode::BAD_GATEWAY);
    }

    #[test]
    fn a_result_cut_in_the_middle_of_a_character_is_still_text() {
        let of = |bytes: &[u8]| Fetched::of(StatusCode::OK, &HeaderMap::new(), bytes).text;
        assert_eq!(of(b"Z\xc3\xbcrich \xc3").as_deref(), Some("Zürich "));
        assert_eq!(of(b"\xff\xfe"), None);
    }
}
