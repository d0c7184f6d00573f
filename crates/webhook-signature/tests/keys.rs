//! Which texts are keys.

use webhook_signature::{KeyError, PublicKey, SharedSecret, SigningKey};

#[test]
fn a_secret_is_24_to_64_bytes() {
    for (length, good) in [(0, false), (23, false), (24, true), (64, true), (65, false)] {
        assert_eq!(SharedSecret::from_bytes(&vec![1; length]).is_ok(), good, "{length}");
    }
}

#[test]
fn a_key_of_another_kind_is_refused() {
    let key = SigningKey::from_seed(&[1; 32]);
    let secret = SharedSecret::from_bytes(&[1; 32]).unwrap();
    assert_eq!(SharedSecret::parse(&key.to_text()).err(), Some(KeyError::Prefix("whsec_")));
    assert_eq!(SigningKey::parse(&secret.to_text()).err(), Some(KeyError::Prefix("whsk_")));
    assert_eq!(PublicKey::parse(&secret.to_text()).err(), Some(KeyError::Prefix("whpk_")));
    assert_eq!(SharedSecret::parse("whsec_*").err(), Some(KeyError::Base64));
    assert_eq!(SigningKey::parse("whsk_AAAA").err(), Some(KeyError::Length));
    assert_eq!(PublicKey::parse("whpk_AAAA").err(), Some(KeyError::Length));
}

#[test]
fn a_signing_key_is_read_with_and_without_its_public_half() {
    // 32 bytes of 1, as base64.
    let seed = format!("whsk_{}", "AQEB".repeat(10) + "AQE=");
    let key = SigningKey::parse(&seed).unwrap();
    assert_eq!(*key.to_text(), *SigningKey::from_seed(&[1; 32]).to_text());
    assert!(SigningKey::parse(&key.to_text()).is_ok());
}

#[test]
fn a_signing_key_with_the_public_half_of_another_is_refused() {
    let (one, other) = (SigningKey::from_seed(&[1; 32]).to_text(), SigningKey::from_seed(&[2; 32]).to_text());
    // 48 characters of base64 are 36 bytes, so the tail is public key only.
    let mixed = format!("{}{}", &one[..5 + 48], &other[5 + 48..]);
    assert_eq!(SigningKey::parse(&mixed).err(), Some(KeyError::NotAKey));
}
