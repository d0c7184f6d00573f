//! What a Failed task says about itself: the upstream's own words where it has some, else ours.

use serde_json::{Value, json};

use super::FailureCode;

/// Longest `error` and `error_description` taken over from an upstream.
const CODE_BYTES: usize = 128;
const DESCRIPTION_BYTES: usize = 1_024;

/// What an upstream itself says is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamsError {
    pub code: String,
    pub description: Option<String>,
}

impl UpstreamsError {
    /// `error` and `error_description` of a JSON object, where they are short strings.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        let Value::Object(fields) = serde_json::from_slice(body).ok()? else { return None };
        let short = |name: &str, limit: usize| {
            let text = fields.get(name)?.as_str()?;
            (!text.is_empty() && text.len() <= limit).then(|| text.to_owned())
        };
        Some(Self {
            code: short("error", CODE_BYTES)?,
            description: short("error_description", DESCRIPTION_BYTES),
        })
    }

    /// As kept with the result; [`UpstreamsError::read`] reads it back.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        json!({ "error": self.code, "error_description": self.description }).to_string().into_bytes()
    }
}

/// `error` and `error_description` of a Failed task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub error: String,
    pub description: String,
}

impl Said {
    /// The upstream's words explain an `upstream_error` better than ours; every other code is about
    /// something the upstream did not say.
    #[must_use]
    pub fn of(code: FailureCode, upstreams: Option<UpstreamsError>) -> Self {
        let ours = || code.description().to_owned();
        match upstreams {
            Some(error) if code == FailureCode::UpstreamError => {
                Self { error: error.code, description: error.description.unwrap_or_else(ours) }
            }
            _ => Self { error: code.as_str().to_owned(), description: ours() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstreams_error_is_taken_over_only_from_short_strings() {
        let code = |body: &str| UpstreamsError::read(body.as_bytes()).map(|error| error.code);
        assert_eq!(code(r#"{"error":"provider_error"}"#).as_deref(), Some("provider_error"));
        assert_eq!(code(r#"{"error":{"code":1}}"#), None);
        assert_eq!(code(r#"{"error":""}"#), None);
        assert_eq!(code(&format!(r#"{{"error":"{}"}}"#, "x".repeat(129))), None);
        assert_eq!(code("<html>"), None);
    }

    #[test]
    fn what_was_kept_reads_back() {
        for description in [None, Some(String::from("planned"))] {
            let error = UpstreamsError { code: String::from("provider_error"), description };
            assert_eq!(UpstreamsError::read(&error.write()), Some(error));
        }
    }

    #[test]
    fn a_redirect_is_told_in_our_words_whatever_its_body_says() {
        let upstreams = UpstreamsError { code: String::from("moved"), description: None };
        assert_eq!(Said::of(FailureCode::UpstreamRedirected, Some(upstreams)).error, "upstream_redirected");
    }
}
