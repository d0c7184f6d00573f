//! The node's webhook keys: who signs, for how long, and what receivers may know of it.
//!
//! A generation is one secret for `v1` and one key for `v1a`. The newest signs until it is replaced;
//! a replaced one signs beside it until its overlap ends, so that receivers can change over at leisure.
//! Pure but for [`Signer`], which lets a running node take over changed keys. Keys are kept sealed; no
//! type here has `Debug`.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use webhook_signature::{KeyError, Message, PublicKey, SharedSecret, Signature, SigningKey, header_value};
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::config::SignatureScheme;
use crate::id::TaskId;

/// As many generations may sign side by side; each makes the header longer.
const MAX_GENERATIONS: usize = 8;

/// Why keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("the stored webhook keys are damaged: {0}")]
    Key(#[from] KeyError),
    #[error("the stored webhook keys are damaged")]
    Damaged,
    #[error("8 webhook keys are in use side by side; wait until the overlap of one has ended")]
    TooMany,
}

/// One secret and one key pair.
pub struct Generation {
    made_at: Timestamp,
    /// End of the overlap; `None` for the newest.
    until: Option<Timestamp>,
    secret: SharedSecret,
    key: SigningKey,
    public: PublicKey,
    kid: String,
}

impl Generation {
    /// `secret` and `seed` are 32 bytes of good randomness each.
    #[must_use]
    pub fn new(made_at: Timestamp, secret: &[u8; 32], seed: &[u8; 32]) -> Self {
        let secret = SharedSecret::from_bytes(secret).expect("32 bytes are within 24 to 64");
        Self::of(made_at, None, secret, SigningKey::from_seed(seed))
    }

    fn of(made_at: Timestamp, until: Option<Timestamp>, secret: SharedSecret, key: SigningKey) -> Self {
        let public = key.public_key();
        let kid = thumbprint(&public);
        Self { made_at, until, secret, key, public, kid }
    }

    /// The key's name in the JWK set: its thumbprint (RFC 7638). No secret.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    #[must_use]
    pub fn made_at(&self) -> Timestamp {
        self.made_at
    }

    /// When it stops signing; `None` for the newest.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// `whsec_…`: for receivers, and nobody else.
    #[must_use]
    pub fn secret_text(&self) -> Zeroizing<String> {
        self.secret.to_text()
    }

    /// `whpk_…`; no secret.
    #[must_use]
    pub fn public_text(&self) -> String {
        self.public.to_text()
    }

    fn signs_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn sign(&self, scheme: SignatureScheme, message: &Message<'_>) -> Signature {
        match scheme {
            SignatureScheme::V1 => self.secret.sign(message),
            SignatureScheme::V1a => self.key.sign(message),
        }
    }

    /// RFC 8037, 2.
    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.public.as_bytes());
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid, "x": x })
    }
}

/// RFC 7638, 3.1, with the members that RFC 8037 asks for.
fn thumbprint(public: &PublicKey) -> String {
    let x = URL_SAFE_NO_PAD.encode(public.as_bytes());
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, members.as_bytes()))
}

/// All generations, the newest first. Never empty.
pub struct SigningKeys(Vec<Arc<Generation>>);

impl SigningKeys {
    #[must_use]
    pub fn first(generation: Generation) -> Self {
        Self(vec![Arc::new(generation)])
    }

    /// `new` signs from now on, the one before it until `overlap` from `now` has passed. Those whose
    /// overlap has ended are dropped.
    ///
    /// # Errors
    /// [`SigningError::TooMany`].
    pub fn rotated(&self, new: Generation, overlap: Duration) -> Result<Self, SigningError> {
        let now = new.made_at;
        let end = now.after(overlap);
        let mut all = vec![Arc::new(new)];
        for old in &self.0 {
            // An overlap that was announced is kept, unless it is now meant to end sooner.
            let until = old.until.map_or(end, |until| until.min(end));
            if now < until {
                let key = SigningKey::parse(&old.key.to_text())?;
                all.push(Arc::new(Generation::of(old.made_at, Some(until), old.secret.clone(), key)));
            }
        }
        if all.len() > MAX_GENERATIONS { Err(SigningError::TooMany) } else { Ok(Self(all)) }
    }

    /// Those that sign at `now`, the newest first.
    pub fn at(&self, now: Timestamp) -> impl Iterator<Item = &Generation> {
        self.0.iter().map(|generation| &**generation).filter(move |generation| generation.signs_at(now))
    }

    /// A line a generation; to be sealed.
    #[must_use]
    pub fn to_stored(&self) -> Zeroizing<String> {
        // Room for all at once: growing would leave copies of secrets behind.
        let mut text = Zeroizing::new(String::with_capacity(512 * self.0.len()));
        for generation in &self.0 {
            let until = generation.until.map_or_else(|| String::from("-"), |until| until.0.to_string());
            let made_at = generation.made_at.0.to_string();
            let (secret, key) = (generation.secret.to_text(), generation.key.to_text());
            for part in [made_at.as_str(), " ", &until, " ", &secret, " ", &key, "\n"] {
                text.push_str(part);
            }
        }
        text
    }

    /// What [`SigningKeys::to_stored`] wrote.
    ///
    /// # Errors
    /// Damaged.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, SigningError> {
        let text = str::from_utf8(bytes).map_err(|_| SigningError::Damaged)?;
        let mut all = Vec::new();
        for line in text.lines() {
            let mut parts = line.split(' ');
            let mut next = || parts.next().ok_or(SigningError::Damaged);
            let time = |text: &str| text.parse().map(Timestamp).map_err(|_| SigningError::Damaged);
            let made_at = time(next()?)?;
            let until = match next()? {
                "-" => None,
                until => Some(time(until)?),
            };
            let (secret, key) = (SharedSecret::parse(next()?)?, SigningKey::parse(next()?)?);
            all.push(Arc::new(Generation::of(made_at, until, secret, key)));
        }
        if all.is_empty() { Err(SigningError::Damaged) } else { Ok(Self(all)) }
    }
}

/// The value of `webhook-signature`, and the keys that made it.
pub struct Signatures {
    keys: Arc<SigningKeys>,
    /// Empty when nothing is to be signed.
    value: String,
}

impl Signatures {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.value
    }
}

/// Signs for a running node. Clones share the keys, also after [`Signer::replace`].
#[derive(Clone)]
pub struct Signer {
    schemes: Arc<[SignatureScheme]>,
    keys: Arc<RwLock<Arc<SigningKeys>>>,
}

impl Signer {
    #[must_use]
    pub fn new(schemes: &[SignatureScheme], keys: SigningKeys) -> Self {
        Self { schemes: schemes.into(), keys: Arc::new(RwLock::new(Arc::new(keys))) }
    }

    /// From now on these sign, in every clone.
    pub fn replace(&self, keys: SigningKeys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    fn keys(&self) -> Arc<SigningKeys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// For exactly these bytes, by the keys in use at `sent_at`.
    #[must_use]
    pub fn sign(&self, id: TaskId, sent_at: Timestamp, body: &[u8]) -> Signatures {
        let id = id.to_string();
        let message = Message::new(&id, sent_at.as_secs(), body).expect("a UUID has no full stop");
        let keys = self.keys();
        let signing = keys.at(sent_at);
        let value = header_value(signing.flat_map(|generation| {
            self.schemes.iter().map(move |scheme| generation.sign(*scheme, &message))
        }));
        Signatures { keys, value }
    }

    /// Whether no keys were put in the place of those that signed.
    #[must_use]
    pub fn still_signs_as(&self, signatures: &Signatures) -> bool {
        Arc::ptr_eq(&self.keys(), &signatures.keys)
    }

    /// The JWK set (RFC 7517) of the public keys in use at `now`; empty when `v1a` is off.
    #[must_use]
    pub fn jwks(&self, now: Timestamp) -> String {
        let is_public = self.schemes.contains(&SignatureScheme::V1a);
        let keys = self.keys();
        let set: Vec<_> = keys.at(now).filter(|_| is_public).map(Generation::jwk).collect();
        json!({ "keys": set }).to_string()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use webhook_signature::{Claim, Verifier};

    const HOUR: Duration = Duration::from_hours(1);

    fn generation(number: u8, made_at: i64) -> Generation {
        Generation::new(Timestamp(made_at), &[number; 32], &[number; 32])
    }

    /// A signer that is the same in every test.
    pub(crate) fn signer(schemes: &[SignatureScheme]) -> Signer {
        Signer::new(schemes, SigningKeys::first(generation(1, 0)))
    }

    impl Signer {
        /// The same keys, with other schemes.
        pub(crate) fn with_schemes(&self, schemes: &[SignatureScheme]) -> Self {
            Self { schemes: schemes.into(), keys: Arc::clone(&self.keys) }
        }
    }

    fn kids(keys: &SigningKeys, now: i64) -> Vec<String> {
        keys.at(Timestamp(now)).map(|generation| generation.kid().to_owned()).collect()
    }

    #[test]
    fn a_thumbprint_is_that_of_rfc_8037() {
        // RFC 8037, A.1 and A.3.
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let public = SigningKey::from_seed(&seed.try_into().unwrap()).public_key();
        assert_eq!(thumbprint(&public), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn an_old_key_signs_beside_the_new_one_until_its_overlap_ends() {
        let hour = 3_600_000;
        let first = SigningKeys::first(generation(1, 0));
        let [one, two] = [1, 2].map(|number| generation(number, 0).kid);
        let rotated = first.rotated(generation(2, 1000), HOUR).unwrap();
        assert_eq!(kids(&rotated, 1000), [two.clone(), one.clone()]);
        assert_eq!(kids(&rotated, 1000 + hour - 1), [two.clone(), one]);
        assert_eq!(kids(&rotated, 1000 + hour), [two]);
        let again = rotated.rotated(generation(3, 2 * hour), HOUR).unwrap();
        assert_eq!(kids(&again, 2 * hour).len(), 2);
        assert_eq!(again.0.len(), 2, "a key whose overlap has ended is dropped");
    }

    #[test]
    fn without_overlap_the_old_key_is_gone_at_once() {
        let rotated = SigningKeys::first(generation(1, 0)).rotated(generation(2, 5), Duration::ZERO).unwrap();
        assert_eq!(kids(&rotated, 5).len(), 1);
    }

    #[test]
    fn only_so_many_keys_sign_side_by_side() {
        let mut keys = SigningKeys::first(generation(1, 0));
        for number in 2..=8 {
            keys = keys.rotated(generation(number, i64::from(number)), HOUR).unwrap();
        }
        assert!(matches!(keys.rotated(generation(9, 9), HOUR), Err(SigningError::TooMany)));
    }

    #[test]
    fn what_was_stored_is_read_back_and_damage_is_noticed() {
        let keys = SigningKeys::first(generation(1, 7)).rotated(generation(2, 9), HOUR).unwrap();
        let text = keys.to_stored();
        let back = SigningKeys::from_stored(text.as_bytes()).ok().unwrap();
        assert_eq!(*back.to_stored(), *text);
        assert_eq!(kids(&back, 10), kids(&keys, 10));
        for damaged in ["", "7 -\n", "x - a b\n", &text[..text.len() - 9]] {
            assert!(SigningKeys::from_stored(damaged.as_bytes()).is_err(), "{damaged}");
        }
    }

    #[test]
    fn every_configured_scheme_of_every_key_signs_the_exact_bytes() {
        let keys = SigningKeys::first(generation(1, 0)).rotated(generation(2, 0), HOUR).unwrap();
        let id: TaskId = "019a3f00-0000-7000-8000-000000000001".parse().unwrap();
        let signer = Signer::new(&[SignatureScheme::V1, SignatureScheme::V1a], keys);
        let signatures = signer.sign(id, Timestamp(1_999), b"{}");
        let value = signatures.as_str();
        assert_eq!(value.split(' ').count(), 4);
        let (text, now) = (id.to_string(), 1);
        let claim = Claim { id: &text, timestamp: "1", signatures: value };
        for number in [1, 2] {
            let generation = generation(number, 0);
            let by_secret = Verifier::new().with_secret(generation.secret.clone());
            let by_key = Verifier::new().with_key(generation.public.clone());
            for verifier in [by_secret, by_key] {
                assert!(verifier.verify(&claim, b"{}", now, 0).is_ok());
                assert!(verifier.verify(&claim, b"{} ", now, 0).is_err());
            }
        }
    }

    #[test]
    fn the_key_set_holds_public_keys_only_and_none_without_v1a() {
        let set = signer(&[SignatureScheme::V1a]).jwks(Timestamp(0));
        let set: Value = serde_json::from_str(&set).unwrap();
        let key = set["keys"][0].as_object().unwrap();
        assert_eq!(key.keys().collect::<Vec<_>>(), ["kty", "crv", "alg", "use", "kid", "x"]);
        assert_eq!(signer(&[SignatureScheme::V1]).jwks(Timestamp(0)), r#"{"keys":[]}"#);
    }
}
