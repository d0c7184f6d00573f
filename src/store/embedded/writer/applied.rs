//! What one transaction of the writer did.

use super::WriterLane;
use crate::clock::Timestamp;
use crate::id::Seq;
use crate::lease::LeaseToken;
use crate::store::embedded::apply::Effect;
use crate::store::embedded::backlog::{Held, Owner};
use crate::store::{Accepted, ReadyDelivery, ReadyTask, Settled};

/// What a transaction did, known before the commit and acted on after it.
pub(super) struct Applied {
    pub at: Timestamp,
    pub settled: Vec<Settled>,
    /// What became of each accept, with the lease of one that is handed off.
    pub accepted: Vec<(Accepted, Option<LeaseToken>)>,
    pub claimed: Vec<Vec<(ReadyTask, Held)>>,
    pub claimed_deliveries: Vec<ReadyDelivery>,
    pub due: Vec<Timestamp>,
    pub delivery_due: Timestamp,
    pub finished: Vec<Owner>,
    /// Leases whose holders are to be told; the first number is the lane.
    pub cancelled: Vec<(usize, Seq, LeaseToken)>,
}

/// Adds what one operation changed beside rows.
pub(super) fn note(applied: &mut Applied, lanes: &[WriterLane], effect: &Effect) {
    if let Some((upstream, due_at)) = effect.task_due
        && let Some(index) = lanes.iter().position(|lane| lane.upstream == upstream)
    {
        applied.due[index] = applied.due[index].min(due_at);
    }
    if let Some((upstream, seq, lease)) = effect.cancelled
        && let Some(index) = lanes.iter().position(|lane| lane.upstream == upstream)
    {
        applied.cancelled.push((index, seq, lease));
    }
    if let Some(due_at) = effect.delivery_due {
        applied.delivery_due = applied.delivery_due.min(due_at);
    }
    applied.finished.extend(effect.finished);
}
