//! The credentials id of a credential nobody here can read: a keyed hash of it.
//!
//! Equal credentials give equal ids at one upstream and unrelated ids at two; without the key an id
//! neither reveals nor confirms a credential, however short that is.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::FingerprintKey;
use super::credential::Credential;

/// Base64 of 32 bytes.
const ID_LEN: usize = 44;

/// HMAC-SHA256 with the key and the upstream's name already taken in.
pub struct Fingerprint {
    begun: hmac::Context,
}

impl Fingerprint {
    pub fn new(key: &FingerprintKey, upstream: &str) -> Self {
        let mut begun = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key.0));
        begun.update(upstream.as_bytes());
        // Names hold no NUL, so no name and credential run together like another pair.
        begun.update(&[0]);
        Self { begun }
    }

    /// The id: HMAC of `upstream ‖ 0 ‖ scheme in lower case ‖ space ‖ credential`, 44 characters.
    pub fn of(&self, credential: Credential<'_>) -> Arc<str> {
        let mut hash = self.begun.clone();
        if let Some(scheme) = credential.scheme {
            for piece in scheme.chunks(16) {
                let mut folded = [0; 16];
                let folded = &mut folded[..piece.len()];
                folded.copy_from_slice(piece);
                folded.make_ascii_lowercase();
                hash.update(folded);
            }
            hash.update(b" ");
        }
        hash.update(credential.secret);
        let mut text = [0; ID_LEN];
        STANDARD.encode_slice(hash.sign(), &mut text).expect("32 bytes are 44 characters of base64");
        Arc::from(std::str::from_utf8(&text).expect("base64 is ASCII"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fingerprint(key: u8, upstream: &str, scheme: Option<&str>, secret: &str) -> Arc<str> {
        let key = FingerprintKey::new([key; 32]);
        let credential = Credential { scheme: scheme.map(str::as_bytes), secret: secret.as_bytes() };
        Fingerprint::new(&key, upstream).of(credential)
    }

    #[test]
    fn an_id_is_the_documented_hash() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let expected = STANDARD.encode(hmac::sign(&key, b"bank\0bearer s3cret"));
        assert_eq!(&*fingerprint(7, "bank", Some("Bearer"), "s3cret"), expected);
        let expected = STANDARD.encode(hmac::sign(&key, b"bank\0s3cret"));
        assert_eq!(&*fingerprint(7, "bank", None, "s3cret"), expected);
        assert_eq!(expected.len(), ID_LEN);
    }

    #[test]
    fn key_upstream_scheme_and_every_byte_of_the_credential_count() {
        let id = fingerprint(1, "bank", Some("Bearer"), "abc");
        assert_ne!(id, fingerprint(2, "bank", Some("Bearer"), "abc"));
        assert_ne!(id, fingerprint(1, "bank2", Some("Bearer"), "abc"));
        assert_ne!(id, fingerprint(1, "bank", Some("Basic"), "abc"));
        assert_ne!(id, fingerprint(1, "bank", None, "abc"));
        assert_ne!(id, fingerprint(1, "bank", Some("Bearer"), "abC"));
    }

    proptest! {
        #[test]
        fn the_case_of_the_scheme_does_not_count(scheme in "[A-Za-z0-9-]{1,40}", secret in "[!-~]{1,60}") {
            let id = fingerprint(1, "bank", Some(&scheme), &secret);
            prop_assert_eq!(&id, &fingerprint(1, "bank", Some(&scheme.to_uppercase()), &secret));
            prop_assert_eq!(&id, &fingerprint(1, "bank", Some(&scheme.to_lowercase()), &secret));
        }
    }
}
