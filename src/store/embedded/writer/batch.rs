//! What one turn of the writer takes up.

use crate::store::embedded::backlog::Owner;
use crate::store::embedded::inbox::{Accept, Operation, Purge};
use crate::store::{Errand, StoreError};

#[derive(Default)]
pub(super) struct Batch {
    /// To be run first.
    pub errands: Vec<Errand>,
    pub operations: Vec<Operation>,
    pub accepts: Vec<Candidate>,
    /// Not to be accepted, and why.
    pub refused: Vec<(Candidate, StoreError)>,
    pub purge: Option<Purge>,
}

impl Batch {
    /// Nothing to do, to write or to answer.
    pub fn is_empty(&self) -> bool {
        self.errands.is_empty()
            && self.operations.is_empty()
            && self.accepts.is_empty()
            && self.refused.is_empty()
    }
}

/// A call to accept, and whose it is.
pub(super) struct Candidate {
    pub accept: Accept,
    pub owner: Owner,
}
