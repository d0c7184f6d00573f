use std::error::Error;
use std::time::SystemTime;

use http::HeaderMap;
use webhook_signature::{Claim, SharedSecret, TOLERANCE_SECONDS, Verifier};

fn verified(secret: &str, headers: &HeaderMap, body: &[u8]) -> Result<serde_json::Value, Box<dyn Error>> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let [id, timestamp, signatures] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(header);
    let claim = Claim { id, timestamp, signatures };
    let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_secs())?;
    let verifier = Verifier::new().with_secret(SharedSecret::parse(secret)?);
    verifier.verify(&claim, body, now, TOLERANCE_SECONDS)?;
    Ok(serde_json::from_slice(body)?)
}
