//! SIGHUP: a running node takes over changed keys without letting go of anything.
//!
//! The key file is read again, so that a new master key seals, and the webhook keys are, so that new
//! ones sign. What cannot be taken over is said, and the node goes on with what it has.

use tokio::signal::unix::Signal;

use crate::seal::{self, KeyDropped, KeyFileError, KeyRing, SealError};
use crate::signing::{Signer, SigningError, SigningKeys};
use crate::store::{Files, Store, StoreError};

/// The parts of a node that can change while it runs.
pub(crate) struct Keys {
    pub files: Files,
    pub store: Store,
    pub ring: KeyRing,
    pub signer: Signer,
}

#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    File(#[from] KeyFileError),
    #[error(transparent)]
    Dropped(#[from] KeyDropped),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the key file does not fit the store: {0}")]
    Seal(#[from] SealError),
    #[error(transparent)]
    Signing(#[from] SigningError),
}

impl Keys {
    /// Runs as long as the node does.
    pub async fn on(self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            match self.take_over().await {
                Ok(()) => tracing::info!("keys read again"),
                Err(error) => {
                    tracing::error!(error = %error, "keys not taken over; the old ones stay in use");
                }
            }
        }
    }

    async fn take_over(&self) -> Result<(), ReloadError> {
        let ring = seal::load(&self.files.key_file())?;
        // Judged before anything is replaced: both change, or neither.
        let opened = ring.open_node_secret(self.store.signing_keys().await?)?;
        let keys = SigningKeys::from_stored(&opened)?;
        self.ring.replace(&ring)?;
        self.signer.replace(keys);
        Ok(())
    }
}
