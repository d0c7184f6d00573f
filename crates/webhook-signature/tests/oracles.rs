//! Libraries nobody here wrote agree, both ways, on random messages.

use ed25519_dalek::{Signer as _, SigningKey as DalekKey, Verifier as _};
use proptest::prelude::*;
use webhook_signature::{
    Claim, Message, PublicKey, SharedSecret, Signature, SigningKey, Verifier, header_value,
};

fn signed_bytes(id: &str, timestamp: i64, body: &[u8]) -> Vec<u8> {
    [format!("{id}.{timestamp}.").as_bytes(), body].concat()
}

fn verifies(verifier: &Verifier, id: &str, timestamp: i64, signatures: &str, body: &[u8]) -> bool {
    let claim = Claim { id, timestamp: &timestamp.to_string(), signatures };
    verifier.verify(&claim, body, timestamp, 0).is_ok()
}

proptest! {
    #[test]
    fn standardwebhooks_makes_the_same_v1_signature(
        secret in proptest::collection::vec(any::<u8>(), 24..=64), id in "[!--/-~]{1,60}",
        timestamp in 0i64..1 << 40, body in ".{0,200}",
    ) {
        let ours = SharedSecret::from_bytes(&secret).unwrap();
        let theirs = standardwebhooks::Webhook::new(&ours.to_text()).unwrap();
        let message = Message::new(&id, timestamp, body.as_bytes()).unwrap();
        let signature = theirs.sign(&id, timestamp, body.as_bytes()).unwrap();
        prop_assert_eq!(&signature, &ours.sign(&message).to_string());
        prop_assert!(verifies(&Verifier::new().with_secret(ours), &id, timestamp, &signature, body.as_bytes()));
    }

    #[test]
    fn dalek_makes_the_same_v1a_signature_and_accepts_ours(
        seed in any::<[u8; 32]>(), id in "[!--/-~]{1,60}", timestamp in 0i64..1 << 40,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (ours, theirs) = (SigningKey::from_seed(&seed), DalekKey::from_bytes(&seed));
        prop_assert_eq!(*ours.public_key().as_bytes(), theirs.verifying_key().to_bytes());
        let signed = signed_bytes(&id, timestamp, &body);
        let Signature::Ed25519(signature) = ours.sign(&Message::new(&id, timestamp, &body).unwrap()) else {
            panic!("an ed25519 key makes ed25519 signatures")
        };
        prop_assert!(theirs.verifying_key().verify(&signed, &signature.into()).is_ok());
        let theirs = Signature::Ed25519(theirs.sign(&signed).to_bytes());
        let verifier = Verifier::new().with_key(ours.public_key());
        prop_assert!(verifies(&verifier, &id, timestamp, &theirs.to_string(), &body));
    }

    #[test]
    fn no_changed_bit_passes(
        seed in any::<[u8; 32]>(), body in proptest::collection::vec(any::<u8>(), 1..100),
        at in any::<proptest::sample::Index>(), bit in 0u8..8,
    ) {
        let (secret, key) = (SharedSecret::from_bytes(&seed).unwrap(), SigningKey::from_seed(&seed));
        let message = Message::new("msg", 1, &body).unwrap();
        let value = header_value([secret.sign(&message), key.sign(&message)]);
        let verifier = Verifier::new().with_secret(secret).with_key(key.public_key());
        prop_assert!(verifies(&verifier, "msg", 1, &value, &body));
        let mut changed = body.clone();
        changed[at.index(body.len())] ^= 1 << bit;
        prop_assert!(!verifies(&verifier, "msg", 1, &value, &changed));
    }

    #[test]
    fn no_header_makes_verifying_panic(id in ".{0,20}", timestamp in ".{0,20}", signatures in ".{0,80}") {
        let verifier = Verifier::new()
            .with_secret(SharedSecret::from_bytes(&[1; 32]).unwrap())
            .with_key(SigningKey::from_seed(&[1; 32]).public_key());
        let claim = Claim { id: &id, timestamp: &timestamp, signatures: &signatures };
        prop_assert!(verifier.verify(&claim, b"", 0, u64::MAX).is_err());
    }

    #[test]
    fn no_text_makes_reading_a_key_panic(text in "(whsec_|whsk_|whpk_)?[A-Za-z0-9+/=]{0,100}") {
        let _ = SharedSecret::parse(&text);
        let _ = SigningKey::parse(&text);
        let _ = PublicKey::parse(&text);
    }
}
