//! Encryption at rest: what is sealed, with which key, and what it is bound to.
//!
//! A [`KeyRing`] holds master keys; the first seals, all open. Each task has a key of its own,
//! HKDF-SHA256 (RFC 5869) of a master key and the task id, so that a random 96-bit nonce a value is
//! safe however many tasks there are. Values are AES-256-GCM; the associated data is
//! `task id ‖ column ‖ key id ‖ chunk index ‖ last flag`, so a value moved to another task, column or place
//! does not open. Stored form: key id (4 bytes) ‖ nonce (12) ‖ ciphertext ‖ tag (16).
//!
//! Sealed and opened values have no `Debug`: they cannot be logged by accident.

mod key_file;

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use aws_lc_rs::hmac;
use rand::Rng;
use zeroize::Zeroizing;

use crate::id::TaskId;

pub use key_file::{KeyFileError, add_key, create_new, load, load_or_create};

/// The largest piece of a body or result sealed as one value.
pub const CHUNK_BYTES: usize = 256 * 1024;

const SALT: &[u8] = b"ringback seal v1";
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
const TAG_BYTES: usize = 16;

/// What a sealed value is; part of what it is bound to. The numbers are stored: never reuse one.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Column {
    RequestQuery = 1,
    RequestHeaders = 2,
    RequestBody = 3,
    WebhookUri = 4,
    ResultHeaders = 5,
    ResultBody = 6,
    ResultError = 7,
    NodeSecret = 8,
}

/// Where a value stands among the chunks of its column.
#[derive(Clone, Copy)]
pub struct Place {
    index: u32,
    last: bool,
}

impl Place {
    /// The one and only value of its column.
    pub const WHOLE: Self = Self { index: 0, last: true };

    #[must_use]
    pub fn chunk(index: u32, last: bool) -> Self {
        Self { index, last }
    }
}

/// A value as stored. Useless without the ring.
#[derive(Clone)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    #[must_use]
    pub fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn as_stored(&self) -> &[u8] {
        &self.0
    }
}

/// Why a stored value does not open. Says nothing about the value.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the value was sealed with key {0}, which is not in the key file")]
    UnknownKey(u32),
    #[error("the value does not open: it was changed, moved, or sealed with another key")]
    NotAuthentic,
}

/// Why a running node does not take over a key file.
#[derive(Debug, thiserror::Error)]
#[error("key {0} is in use and no longer in the key file; only a restart can drop it")]
pub struct KeyDropped(u32);

type Keys = Arc<[(u32, Prk)]>;

/// Master keys. Clones share them, also after [`KeyRing::replace`].
#[derive(Clone)]
pub struct KeyRing {
    keys: Arc<RwLock<Keys>>,
}

impl KeyRing {
    /// `keys` in order: the first seals. Never empty.
    fn new(keys: &[(u32, Zeroizing<[u8; KEY_BYTES]>)]) -> Self {
        let keys = keys.iter().map(|(id, key)| (*id, extract(&key[..]))).collect();
        Self { keys: Arc::new(RwLock::new(keys)) }
    }

    fn keys(&self) -> Keys {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The numbers of the keys in their order: the first seals.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.keys().iter().map(|(id, _)| *id).collect()
    }

    /// From now on `other` seals and opens, in every clone of this ring.
    ///
    /// # Errors
    /// `other` lacks a key of this ring: values sealed with it would be out of reach.
    pub fn replace(&self, other: &Self) -> Result<(), KeyDropped> {
        let new = other.keys();
        let known = other.ids();
        if let Some(dropped) = self.ids().into_iter().find(|id| !known.contains(id)) {
            return Err(KeyDropped(dropped));
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The sealing side of a task's key: one derivation serves all its values.
    #[must_use]
    pub fn task_key(&self, task: TaskId) -> TaskKey {
        self.sealing_key(*task.as_bytes())
    }

    fn sealing_key(&self, owner: [u8; 16]) -> TaskKey {
        let keys = self.keys();
        let (id, prk) = &keys[0];
        TaskKey::derive(*id, prk, owner)
    }

    /// The first bytes of every value that the first key sealed.
    #[must_use]
    pub fn sealing_mark(&self) -> [u8; KEY_ID_BYTES] {
        self.keys()[0].0.to_be_bytes()
    }

    /// The same value under the key that seals now.
    ///
    /// # Errors
    /// As [`KeyRing::open`].
    pub fn reseal(
        &self,
        task: TaskId,
        column: Column,
        place: Place,
        sealed: Sealed,
    ) -> Result<Sealed, SealError> {
        let value = Zeroizing::new(self.open(task, column, place, sealed)?);
        Ok(self.task_key(task).seal(column, place, &value))
    }

    /// Opens a stored value of `task`.
    ///
    /// # Errors
    /// The key is missing, or the value is not the one sealed for this task, column and place.
    pub fn open(
        &self,
        task: TaskId,
        column: Column,
        place: Place,
        sealed: Sealed,
    ) -> Result<Vec<u8>, SealError> {
        self.opener(task).open(column, place, sealed)
    }

    /// For opening several values of one task.
    #[must_use]
    pub fn opener(&self, task: TaskId) -> Opener<'_> {
        self.opener_of(*task.as_bytes())
    }

    /// Seals something of the node's own, such as the key behind opaque fingerprints.
    #[must_use]
    pub fn seal_node_secret(&self, secret: &[u8]) -> Sealed {
        self.sealing_key(NODE).seal(Column::NodeSecret, Place::WHOLE, secret)
    }

    /// # Errors
    /// As [`KeyRing::open`].
    pub fn open_node_secret(&self, sealed: Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.opener_of(NODE).open(Column::NodeSecret, Place::WHOLE, sealed).map(Zeroizing::new)
    }

    fn opener_of(&self, owner: [u8; 16]) -> Opener<'_> {
        Opener { ring: self, owner, derived: None }
    }
}

/// HKDF-Extract (RFC 5869, 2.2), once a master key. The library's own `extract` is lazy: every key
/// derived from it would pay for it again.
fn extract(key: &[u8]) -> Prk {
    let extracted = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SALT), key);
    Prk::new_less_safe(HKDF_SHA256, extracted.as_ref())
}

/// Opens values of one task; one derivation serves all that were sealed with the same key.
pub struct Opener<'ring> {
    ring: &'ring KeyRing,
    owner: [u8; 16],
    derived: Option<TaskKey>,
}

impl Opener<'_> {
    /// # Errors
    /// As [`KeyRing::open`].
    pub fn open(&mut self, column: Column, place: Place, sealed: Sealed) -> Result<Vec<u8>, SealError> {
        let mut bytes = sealed.0;
        if bytes.len() < KEY_ID_BYTES + NONCE_LEN + TAG_BYTES {
            return Err(SealError::NotAuthentic);
        }
        let key_id = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let derived = self.derived.take().filter(|derived| derived.key_id == key_id);
        let key = if let Some(derived) = derived {
            derived
        } else {
            let keys = self.ring.keys();
            let found = keys.iter().find(|(id, _)| *id == key_id);
            let (_, prk) = found.ok_or(SealError::UnknownKey(key_id))?;
            TaskKey::derive(key_id, prk, self.owner)
        };
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&bytes[KEY_ID_BYTES..KEY_ID_BYTES + NONCE_LEN]);
        let opened = key
            .key
            .open_within(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated_data(self.owner, column, key_id, place)),
                &mut bytes,
                KEY_ID_BYTES + NONCE_LEN..,
            )
            .map_err(|_| SealError::NotAuthentic)?
            .len();
        self.derived = Some(key);
        bytes.truncate(opened);
        Ok(bytes)
    }
}

/// Owner of node secrets: no task has the nil id.
const NODE: [u8; 16] = [0; 16];

/// The key of one task.
pub struct TaskKey {
    owner: [u8; 16],
    key_id: u32,
    key: LessSafeKey,
}

impl TaskKey {
    fn derive(key_id: u32, prk: &Prk, owner: [u8; 16]) -> Self {
        let info = [&owner[..]];
        let key = prk
            .expand(&info, &AES_256_GCM)
            .map(|okm| LessSafeKey::new(UnboundKey::from(okm)))
            .expect("32 bytes are within what HKDF-SHA256 gives");
        Self { owner, key_id, key }
    }

    /// Seals `value` for this task, column and place.
    #[must_use]
    pub fn seal(&self, column: Column, place: Place, value: &[u8]) -> Sealed {
        let mut nonce = [0; NONCE_LEN];
        rand::rng().fill_bytes(&mut nonce);
        let mut bytes = Vec::with_capacity(KEY_ID_BYTES + NONCE_LEN + value.len() + TAG_BYTES);
        bytes.extend_from_slice(&self.key_id.to_be_bytes());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(value);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated_data(self.owner, column, self.key_id, place)),
                &mut bytes[KEY_ID_BYTES + NONCE_LEN..],
            )
            .expect("a chunk is far below what AES-GCM takes");
        bytes.extend_from_slice(tag.as_ref());
        Sealed(bytes)
    }
}

fn associated_data(owner: [u8; 16], column: Column, key_id: u32, place: Place) -> [u8; 26] {
    let mut data = [0; 26];
    data[..16].copy_from_slice(&owner);
    data[16] = column as u8;
    data[17..21].copy_from_slice(&key_id.to_be_bytes());
    data[21..25].copy_from_slice(&place.index.to_be_bytes());
    data[25] = u8::from(place.last);
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{Seq, TaskIds};
    use proptest::prelude::*;

    fn ring(ids: &[u32]) -> KeyRing {
        let keys: Vec<_> = ids
            .iter()
            .map(|id| {
                let mut key = [7u8; 32];
                key[..4].copy_from_slice(&id.to_be_bytes());
                (*id, Zeroizing::new(key))
            })
            .collect();
        KeyRing::new(&keys)
    }

    fn ids() -> TaskIds {
        TaskIds::after(Seq(0))
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_no_changed_byte_does(value in proptest::collection::vec(any::<u8>(), 0..200), at in any::<proptest::sample::Index>()) {
            let ring = ring(&[1]);
            let task = ids().next(Timestamp(1), 5);
            let sealed = ring.task_key(task).seal(Column::RequestBody, Place::WHOLE, &value);
            let mut changed = sealed.as_stored().to_vec();
            prop_assert_eq!(ring.open(task, Column::RequestBody, Place::WHOLE, sealed).unwrap(), value);
            let at = at.index(changed.len());
            changed[at] ^= 1;
            prop_assert!(ring.open(task, Column::RequestBody, Place::WHOLE, Sealed::from_stored(changed)).is_err());
        }
    }

    #[test]
    fn keys_are_extracted_as_the_standard_says() {
        let ring = ring(&[1]);
        let mut key = [7u8; 32];
        key[..4].copy_from_slice(&1u32.to_be_bytes());
        let theirs = aws_lc_rs::hkdf::Salt::new(HKDF_SHA256, SALT).extract(&key);
        let task = ids().next(Timestamp(1), 5);
        let sealed =
            TaskKey::derive(1, &theirs, *task.as_bytes()).seal(Column::RequestBody, Place::WHOLE, b"x");
        assert_eq!(ring.open(task, Column::RequestBody, Place::WHOLE, sealed).unwrap(), b"x");
    }

    #[test]
    fn an_opener_opens_values_of_several_keys() {
        let (old, both) = (ring(&[1]), ring(&[2, 1]));
        let task = ids().next(Timestamp(1), 5);
        let seal = |ring: &KeyRing| ring.task_key(task).seal(Column::RequestBody, Place::WHOLE, b"x");
        let mut opener = both.opener(task);
        for ring in [&old, &both, &both, &old] {
            assert_eq!(opener.open(Column::RequestBody, Place::WHOLE, seal(ring)).unwrap(), b"x");
        }
    }

    #[test]
    fn a_value_opens_only_in_its_own_task_column_and_place() {
        let (ring, ids) = (ring(&[1]), ids());
        let (task, other) = (ids.next(Timestamp(1), 5), ids.next(Timestamp(1), 5));
        let sealed = ring.task_key(task).seal(Column::ResultBody, Place::chunk(1, false), b"x");
        let open = |task, column, place| ring.open(task, column, place, sealed.clone()).is_ok();
        assert!(open(task, Column::ResultBody, Place::chunk(1, false)));
        assert!(!open(other, Column::ResultBody, Place::chunk(1, false)));
        assert!(!open(task, Column::RequestBody, Place::chunk(1, false)));
        assert!(!open(task, Column::ResultBody, Place::chunk(2, false)));
        assert!(!open(task, Column::ResultBody, Place::chunk(1, true)));
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let task = ids().next(Timestamp(1), 5);
        let old = ring(&[1]).task_key(task).seal(Column::WebhookUri, Place::WHOLE, b"x");
        let both = ring(&[2, 1]);
        assert!(both.open(task, Column::WebhookUri, Place::WHOLE, old).is_ok());
        let new = both.task_key(task).seal(Column::WebhookUri, Place::WHOLE, b"x");
        assert!(matches!(
            ring(&[1]).open(task, Column::WebhookUri, Place::WHOLE, new),
            Err(SealError::UnknownKey(2))
        ));
    }

    #[test]
    fn a_replaced_ring_seals_anew_in_every_clone_and_opens_what_was_sealed() {
        let task = ids().next(Timestamp(1), 5);
        let running = ring(&[1]);
        let clone = running.clone();
        let old = running.task_key(task).seal(Column::WebhookUri, Place::WHOLE, b"x");
        assert!(running.replace(&ring(&[2])).is_err());
        assert_eq!(clone.ids(), [1]);
        running.replace(&ring(&[2, 1])).unwrap();
        assert_eq!(clone.ids(), [2, 1]);
        let new = clone.reseal(task, Column::WebhookUri, Place::WHOLE, old).unwrap();
        assert_eq!(new.as_stored()[..4], clone.sealing_mark());
        assert_eq!(ring(&[2]).open(task, Column::WebhookUri, Place::WHOLE, new).unwrap(), b"x");
    }
}
