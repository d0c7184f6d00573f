//! A writer that panics must not leave its node alive and deaf.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio_util::sync::CancellationToken;

use crate::store::embedded::inbox::Inbox;

/// Runs the writer on this thread. One that panics must not leave the node alive and deaf: whoever waits
/// is answered, and `failed` is cancelled for whoever can end the process.
pub(in crate::store::embedded) fn watch(inbox: &Inbox, failed: &CancellationToken, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!("the store's writer panicked; nothing can be written any more");
        inbox.abandon();
        failed.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::store::embedded::inbox::{Purge, Removal};
    use crate::store::{Cutoffs, StoreError};
    use tokio::sync::oneshot;

    #[test]
    fn everybody_hears_of_a_writer_that_panicked() {
        let (inbox, failed) = (Inbox::new(1), CancellationToken::new());
        let purge = || {
            let (reply, answer) = oneshot::channel();
            let never = Timestamp(0);
            let removal = Removal::Aged(Cutoffs { results: never, tasks: never, keys: never });
            (Purge { removal, rows: 1, reply }, answer)
        };
        let (waiting, mut answer) = purge();
        inbox.set_purge(waiting).unwrap();
        watch(&inbox, &failed, || panic!("as if by a defect"));
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(matches!(inbox.set_purge(purge().0), Err(StoreError::Unavailable)));
        assert!(failed.is_cancelled());
    }
}
