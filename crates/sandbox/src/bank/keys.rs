//! The bank's signing key: RSA, 2048 bits, in one file of the data directory.
//!
//! Everything a token needs to be believed again after a restart is this key: refresh tokens are signed
//! by it as well, under another type, so nothing else is kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const KEY_FILE: &str = "bank-key.pk8";

/// Why the bank cannot open.
#[derive(Debug, thiserror::Error)]
pub enum BankError {
    #[error("The data directory {} cannot be used: {source}; give a directory this user may write.", path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error("The key file {} holds no RSA key of 2048 bits; remove it to have a new one made.", .0.display())]
    KeyFile(PathBuf),
    #[error("No RSA key could be made: the system gave no randomness; try again.")]
    Randomness,
}

/// The key pair with what is derived from it. Has no `Debug`.
pub(crate) struct Keys {
    pair: KeyPair,
    kid: String,
    modulus: String,
}

impl Keys {
    /// Reads the key from `data_dir`, or makes directory and key.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, BankError> {
        let path = data_dir.join(KEY_FILE);
        let unusable = |source| BankError::DataDir { path: data_dir.to_owned(), source };
        match fs::read(&path) {
            Ok(pkcs8) => {
                let pair = KeyPair::from_pkcs8(&pkcs8).ok();
                pair.and_then(Self::of).ok_or(BankError::KeyFile(path))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| BankError::Randomness)?;
                let pkcs8 = pair.as_der().map_err(|_| BankError::Randomness)?;
                fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(unusable)?;
                write_new(&path, pkcs8.as_ref()).map_err(unusable)?;
                Self::of(pair).ok_or(BankError::KeyFile(path))
            }
            Err(error) => Err(unusable(error)),
        }
    }

    fn of(pair: KeyPair) -> Option<Self> {
        let modulus = BASE64_URL_SAFE_NO_PAD.encode(modulus(pair.public_key().as_ref())?);
        // RFC 7638: the members a key needs, in this order, without spaces.
        let thumbprint = format!(r#"{{"e":"AQAB","kty":"RSA","n":"{modulus}"}}"#);
        let kid = BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, thumbprint.as_bytes()));
        Some(Self { pair, kid, modulus })
    }

    /// A compact JWS, RS256 (RFC 7515), with `typ` and `kid` in its header.
    pub(crate) fn sign(&self, typ: &str, claims: &impl Serialize) -> String {
        let header = json!({"alg": "RS256", "kid": self.kid, "typ": typ});
        let claims = serde_json::to_vec(claims).expect("claims are plain text and numbers");
        let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(&claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .expect("the buffer is as long as the modulus");
        format!("{signed}.{}", encode(&signature))
    }

    /// The claims of a token this key has signed as `typ`; `None` for any other text.
    pub(crate) fn verify<T: DeserializeOwned>(&self, typ: &str, token: &str) -> Option<T> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        if header["alg"] != "RS256" || header["typ"] != typ || header["kid"] != self.kid.as_str() {
            return None;
        }
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .ok()?;
        serde_json::from_slice(&decode(claims)?).ok()
    }

    /// RFC 7517.
    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": [
            {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": self.modulus, "e": "AQAB"}
        ]})
    }
}

/// The modulus in an `RSAPublicKey` (RFC 8017 A.1.1) of 2048 bits with the exponent 65537: everything
/// but the modulus itself is always the same bytes.
fn modulus(public_key: &[u8]) -> Option<&[u8]> {
    const BEFORE: &[u8] = &[0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
    const AFTER: &[u8] = &[0x02, 0x03, 0x01, 0x00, 0x01];
    public_key.strip_prefix(BEFORE)?.strip_suffix(AFTER).filter(|modulus| modulus.len() == 256)
}

/// Writes the file whole or not at all, readable by its owner only.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension(format!("{:016x}", rand::random::<u64>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.and_then(|()| fs::rename(&unfinished, path)).inspect_err(|_| {
        // The first error is the one to report.
        let _ = fs::remove_file(&unfinished);
    })
}
