//! What must hold of any input, parser by parser.

use http::{HeaderMap, HeaderValue, Uri};
use ringback::clock::Timestamp;
use ringback::config::{Config, IdentityConfig, WebhooksConfig};
use ringback::gateway::framing::{Follower, Limits, Step};
use ringback::gateway::query::{self, Mode};
use ringback::guard::{Rules, WebhookUri};
use ringback::identity::{FetchError, Identity, Reach};
use ringback::outcome::RetryAfter;
use ringback::secret::FingerprintKey;

pub const WALL: Timestamp = Timestamp(1_800_000_000_000);

/// What is left of a query is what was there, in order, and nothing of it is ours.
pub fn query(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(cut) = query::cut(Some(text)) else { return };
    let left = cut.query.as_deref().unwrap_or_default();
    let mut pieces = text.split('&');
    assert!(left.is_empty() || left.split('&').all(|piece| pieces.any(|other| other == piece)));
    let again = query::cut(cut.query.as_deref()).expect("what is left has nothing to refuse");
    assert!(again.mode == Mode::Proxy && again.query == cut.query, "cutting is done in one go");
    if cut.mode == Mode::Proxy && !text.contains(['s', 'S', '%']) {
        assert_eq!(left, text, "a query without our names is not touched");
    }
}

/// A wait is never negative and never overflows.
pub fn retry_after(input: &[u8]) {
    if let Some(wait) = RetryAfter::parse(input) {
        let _ = WALL.after(wait.wait(WALL));
        let _ = Timestamp::MAX.after(wait.wait(Timestamp(i64::MIN)));
    }
}

pub fn strict_rules() -> Rules {
    Rules::new(&webhooks())
}

fn config() -> Config {
    Config::from_toml("[[upstreams]]\nurl = \"http://127.0.0.1:9\"\n")
        .unwrap_or_else(|errors| panic!("{errors}"))
}

pub fn default_identity() -> IdentityConfig {
    config().upstreams.remove(0).identity
}

fn webhooks() -> WebhooksConfig {
    config().webhooks
}

/// Whatever is accepted reads the same to a parser that is not ours: https, port 443, nobody's user-info,
/// and no address that the table denies.
pub fn webhook_uri(input: &[u8], rules: &Rules) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if WebhookUri::parse(text, rules).is_err() {
        return;
    }
    assert!(text.is_ascii() && !text.contains(['\\', ' ', '\r', '\n', '\t', '\0']), "{text:?}");
    // The other parser wants fragments gone.
    let uri: Uri = text.split('#').next().unwrap_or_default().parse().expect("another parser reads it too");
    let authority = uri.authority().expect("it is absolute");
    assert!(uri.scheme_str() == Some("https") && !authority.as_str().contains('@'), "{text:?}");
    assert!(matches!(authority.port_u16(), None | Some(443)), "{text:?}");
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        assert!(rules.judge_address(address).allowed, "{text:?}");
    } else {
        let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        let hex = last.to_ascii_lowercase();
        let hex =
            hex.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let numeric = hex || last.bytes().all(|byte| byte.is_ascii_digit());
        assert!(!numeric, "an address in disguise: {text:?}");
    }
}

/// Where messages end does not depend on how their bytes arrive.
pub fn framing(input: &[u8]) {
    let whole = follow(input, input.len().max(1));
    assert_eq!(follow(input, 1), whole);
    assert_eq!(follow(input, 7), whole);
}

/// The bytes that went on, and where it stopped.
fn follow(input: &[u8], piece: usize) -> (Vec<u8>, Option<Step>) {
    let mut follower = Follower::new(Limits { target: 64, headers: 256 });
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    for piece in input.chunks(piece) {
        there.extend_from_slice(piece);
        loop {
            let step = follower.step(&there);
            let count = match step {
                Step::Head(count) | Step::Body(count) => {
                    gone.extend_from_slice(&there[..count]);
                    count
                }
                Step::Drop(count) => count,
                Step::More => break,
                Step::Hold | Step::Refuse(..) | Step::Break => return (gone, Some(step)),
            };
            assert!(count <= there.len(), "no more goes on than is there");
            there.drain(..count);
        }
    }
    (gone, None)
}

/// Two ways to read a credential.
pub struct Tokens {
    jwt: Identity,
    opaque: Identity,
    runtime: tokio::runtime::Runtime,
}

impl Tokens {
    pub fn new() -> Self {
        let jwks = tempfile::NamedTempFile::new().expect("a temporary file");
        let key = r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "alg": "ES256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;
        std::fs::write(jwks.path(), key).expect("the file can be written");
        let default = default_identity();
        let jwt = IdentityConfig {
            mode: ringback::config::IdentityMode::Jwt,
            jwks_file: Some(jwks.path().to_owned()),
            issuer: Some("i".to_owned()),
            audience: Some("a".to_owned()),
            ..default.clone()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { jwt: build(&jwt), opaque: build(&default), runtime: runtime.expect("a runtime") }
    }

    /// Nobody here has the key, so no token is good; and no refusal repeats what was sent.
    pub fn judge(&self, input: &[u8]) {
        let Ok(value) = HeaderValue::from_bytes(input) else { return };
        let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
        let refused = self.runtime.block_on(self.jwt.identify(&headers, WALL)).expect_err("nobody signed it");
        let (said, sent) = (refused.to_string(), String::from_utf8_lossy(input));
        assert!(!sent.split(' ').any(|word| word.len() > 20 && said.contains(word)), "{said}");
        if let Ok(caller) = self.runtime.block_on(self.opaque.identify(&headers, WALL)) {
            assert_eq!(caller.credentials_id.len(), 44);
            assert!(input.iter().any(|byte| !byte.is_ascii_whitespace()), "an empty credential is nobody's");
        }
    }
}

fn build(config: &IdentityConfig) -> Identity {
    use futures_util::FutureExt as _;
    let nobody: ringback::identity::Exchange =
        std::sync::Arc::new(|_, _| async { Err(FetchError::Unreachable) }.boxed());
    let reach = Reach {
        fetch: std::sync::Arc::new(|_, _| async { Err(FetchError::Unreachable) }.boxed()),
        service: std::sync::Arc::clone(&nobody),
        upstream: nobody,
    };
    Identity::new(config, "bank", &FingerprintKey::new([1; 32]), reach).expect("a good configuration")
}

/// What can be read is written back byte for byte the same.
pub fn header_block(input: &[u8]) {
    if let Some(headers) = ringback::header_block::read(input) {
        let written = ringback::header_block::write(&headers);
        assert_eq!(ringback::header_block::read(&written), Some(headers));
    }
}
