//! Cross-origin calls from browsers (the Fetch standard): who may read our own answers.
//!
//! Owns the fields of our answers only; an upstream's answers keep theirs. Invariant: credentials
//! are allowed only to origins that are listed by name, never through `*`.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use crate::config::CorsConfig;

/// Every field of our answers that a page cannot read without it (Fetch standard, CORS-safelisted
/// response-header names).
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Location, Retry-After, Ringback-Task, Ringback-Status, Ringback-Error, Ringback-Upstream-Status, \
     Preference-Applied, ETag, Accept-Ranges, Content-Range, Content-Disposition, Content-Encoding, Allow, \
     WWW-Authenticate",
);
const PREFLIGHT_VARIES: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
/// Ten minutes: what every browser honours.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins that may read our answers.
pub struct Cors {
    any: bool,
    listed: Vec<HeaderValue>,
}

impl Cors {
    /// Origins that cannot stand in a header match nobody.
    #[must_use]
    pub fn new(config: &CorsConfig) -> Self {
        let listed = config.origins.iter().filter(|origin| *origin != "*");
        Self {
            any: config.origins.iter().any(|origin| origin == "*"),
            listed: listed.filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(),
        }
    }

    /// Whether we speak about origins at all; if not, preflights are the upstream's.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.any || !self.listed.is_empty()
    }

    /// Our answer to a preflight. An origin that may not call gets it without permission.
    #[must_use]
    pub fn preflight(&self, request: &HeaderMap) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::VARY, PREFLIGHT_VARIES);
        if !self.permit(request.get(header::ORIGIN), headers) {
            return response;
        }
        // Echoed because `*` neither covers `Authorization` nor counts beside credentials.
        if let Some(method) = request.get(header::ACCESS_CONTROL_REQUEST_METHOD) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
        }
        for names in request.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.append(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        response
    }

    /// Lets the origin of a call read this answer of ours, where it may.
    pub fn decorate(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if !self.is_configured() {
            return;
        }
        vary_by_origin(headers);
        if self.permit(origin, headers) {
            // An upstream's answer that is replayed exposes what it exposed.
            headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    fn permit(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
        let Some(origin) = origin else { return false };
        if self.listed.contains(origin) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        } else if self.any {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        self.any || self.listed.contains(origin)
    }
}

/// Whether a browser only asks if it may call.
#[must_use]
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn vary_by_origin(headers: &mut HeaderMap) {
    let varies = |name: &str| {
        name.trim().eq_ignore_ascii_case(HeaderName::as_str(&header::ORIGIN)) || name.trim() == "*"
    };
    let known = headers
        .get_all(header::VARY)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(varies);
    if !known {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        Cors::new(&CorsConfig { origins: origins.iter().map(|origin| String::from(*origin)).collect() })
    }

    fn from(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (header::ORIGIN, HeaderValue::from_static(origin)),
            (header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PATCH")),
            (header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("authorization,x-a")),
        ])
    }

    fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn decorated(cors: &Cors, origin: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        cors.decorate(origin.map(HeaderValue::from_static).as_ref(), &mut headers);
        headers
    }

    #[test]
    fn a_preflight_is_options_with_origin_and_method() {
        let whole = from("https://app.example");
        assert!(is_preflight(&Method::OPTIONS, &whole));
        assert!(!is_preflight(&Method::GET, &whole));
        for missing in [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD] {
            let mut headers = whole.clone();
            headers.remove(missing);
            assert!(!is_preflight(&Method::OPTIONS, &headers));
        }
    }

    #[test]
    fn a_listed_origin_may_call_with_credentials() {
        let answer = cors(&["https://app.example"]).preflight(&from("https://app.example"));
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let headers = answer.headers();
        assert_eq!(text(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN), Some("https://app.example"));
        assert_eq!(text(headers, header::ACCESS_CONTROL_ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(text(headers, header::ACCESS_CONTROL_ALLOW_METHODS), Some("PATCH"));
        assert_eq!(text(headers, header::ACCESS_CONTROL_ALLOW_HEADERS), Some("authorization,x-a"));
        assert!(text(headers, header::VARY).unwrap().contains("Origin"));
    }

    #[test]
    fn an_origin_that_is_not_listed_gets_no_permission() {
        let cors = cors(&["https://app.example"]);
        for origin in ["https://evil.example", "https://app.example.evil", "null"] {
            let answer = cors.preflight(&from(origin));
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
            assert_eq!(text(answer.headers(), header::ACCESS_CONTROL_ALLOW_ORIGIN), None, "{origin}");
            assert_eq!(text(answer.headers(), header::ACCESS_CONTROL_ALLOW_METHODS), None, "{origin}");
        }
        assert_eq!(decorated(&cors, Some("https://evil.example")), decorated(&cors, None));
    }

    #[test]
    fn a_star_never_allows_credentials() {
        let cors = cors(&["*", "https://app.example"]);
        let headers = decorated(&cors, Some("https://other.example"));
        assert_eq!(text(&headers, header::ACCESS_CONTROL_ALLOW_ORIGIN), Some("*"));
        assert_eq!(text(&headers, header::ACCESS_CONTROL_ALLOW_CREDENTIALS), None);
        let headers = decorated(&cors, Some("https://app.example"));
        assert_eq!(text(&headers, header::ACCESS_CONTROL_ALLOW_CREDENTIALS), Some("true"));
    }

    #[test]
    fn our_answers_expose_our_fields_and_vary() {
        let headers = decorated(&cors(&["https://app.example"]), Some("https://app.example"));
        let exposed = text(&headers, header::ACCESS_CONTROL_EXPOSE_HEADERS).unwrap();
        for name in ["Location", "Retry-After", "ETag", "Content-Range", "Ringback-Upstream-Status"] {
            assert!(exposed.split(", ").any(|one| one == name), "{name}");
        }
        assert_eq!(text(&headers, header::VARY), Some("Origin"));
        assert_eq!(text(&decorated(&cors(&["https://app.example"]), None), header::VARY), Some("Origin"));
    }

    #[test]
    fn an_answer_that_varies_already_keeps_one_origin() {
        let mut headers =
            HeaderMap::from_iter([(header::VARY, HeaderValue::from_static("Authorization, origin"))]);
        cors(&["*"]).decorate(None, &mut headers);
        assert_eq!(headers.get_all(header::VARY).iter().count(), 1);
    }

    #[test]
    fn without_origins_nothing_is_said() {
        let cors = cors(&[]);
        assert!(!cors.is_configured());
        assert!(decorated(&cors, Some("https://app.example")).is_empty());
    }
}
