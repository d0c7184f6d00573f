//! What the world knows of one call: written down as it happens, by the people in it, never read from
//! the node. What the node says and does is held against it.

use super::chance;
use super::plan::{Call, Does, Fate, House, Receipt};
use crate::id::TaskId;
use crate::outcome::Idempotency;

/// What the client was told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Told {
    #[default]
    NotYet,
    /// It asks.
    Asked,
    /// The node died meanwhile: there may be a task or not.
    Nothing,
    Accepted,
    /// It is the task of an earlier call with its key.
    Before(TaskId),
    Refused,
}

/// What a ring said: status, and error.
pub(super) type Story = (String, Option<String>);

#[derive(Clone, Debug)]
pub(super) struct Life {
    pub call: Call,
    pub id: Option<TaskId>,
    pub told: Told,
    /// Attempts begun, those of which not a byte left included.
    pub tried: u32,
    /// Of them, such as no settle will ever tell of: the node died, or the lease was taken.
    pub tried_in_vain: u32,
    /// Ends of attempts, by the steady clock, of those that had one.
    pub ended: Vec<(Fate, i64)>,
    /// What left for the upstream: its fates.
    pub sent: Vec<Fate>,
    pub rung: u32,
    pub rung_in_vain: u32,
    pub heard: Vec<(Receipt, i64)>,
    pub story: Option<Story>,
    pub cancel_asked: bool,
    pub cancelled: bool,
    /// Somebody asked to remove what was accepted or ended before this.
    pub purged_before: i64,
    /// It was removed, as it may be.
    pub gone: bool,
    /// Leases taken from under their holders.
    pub taken: u32,
    pub kept: Kept,
}

/// What the store held when it was last looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Kept {
    #[default]
    Nothing,
    Waiting(Waiting),
    Final(Final),
    /// Its result is gone, as somebody wished.
    Expired,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiting {
    pub attempts: u32,
    pub started: u32,
    pub lease: i64,
    pub due_at: i64,
    pub deadline: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Final {
    pub failure: Option<String>,
    pub reason: Option<String>,
    pub attempts: u32,
    pub finished_at: i64,
    pub erased: bool,
    pub delivery: Option<Delivery>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Delivery {
    pub tries: u32,
    pub lease: i64,
    pub due_at: i64,
}

impl Kept {
    /// The lease that is held on it, as stored; 0 for nobody's.
    pub(super) fn lease(&self) -> i64 {
        match self {
            Self::Waiting(waiting) => waiting.lease,
            Self::Final(end) => end.delivery.as_ref().map_or(0, |delivery| delivery.lease),
            Self::Nothing | Self::Expired => 0,
        }
    }

    /// The same with whatever lease.
    fn with_lease(mut self, lease: i64) -> Self {
        match &mut self {
            Self::Waiting(waiting) => waiting.lease = lease,
            Self::Final(Final { delivery: Some(delivery), .. }) => delivery.lease = lease,
            Self::Final(_) | Self::Nothing | Self::Expired => {}
        }
        self
    }

    /// Whether only a claim of what nobody held, if anything, has changed it.
    pub(super) fn is_untouched(&self, before: &Self) -> bool {
        let claimed = before.lease() == 0;
        let lease = if claimed { self.lease() } else { before.lease() };
        *self == before.clone().with_lease(lease)
    }
}

impl Life {
    pub(super) fn of(call: &Call) -> Self {
        Self {
            call: call.clone(),
            id: None,
            told: Told::NotYet,
            tried: 0,
            tried_in_vain: 0,
            ended: Vec::new(),
            sent: Vec::new(),
            rung: 0,
            rung_in_vain: 0,
            heard: Vec::new(),
            story: None,
            cancel_asked: false,
            cancelled: false,
            purged_before: i64::MIN,
            gone: false,
            taken: 0,
            kept: Kept::Nothing,
        }
    }

    /// Whether anything may still happen to it by itself.
    pub(super) fn is_open(&self) -> bool {
        match &self.kept {
            Kept::Nothing => match self.told {
                Told::NotYet | Told::Asked => true,
                Told::Accepted => !self.gone,
                Told::Nothing | Told::Before(_) | Told::Refused => false,
            },
            Kept::Waiting(_) => true,
            Kept::Final(end) => end.delivery.is_some(),
            Kept::Expired => false,
        }
    }

    /// Whether all that is left of it is what retention may remove one day.
    pub(super) fn rests(&self) -> bool {
        match &self.kept {
            Kept::Final(end) => end.delivery.is_none(),
            Kept::Expired => true,
            Kept::Nothing | Kept::Waiting(_) => false,
        }
    }

    /// Whether its result, which ended like this, may be removed now.
    pub(super) fn may_expire(&self, end: &Final, house: &House) -> bool {
        let before = self.cutoff(house.keeps.map(|keeps| keeps.results));
        end.delivery.is_none() && (end.erased || self.cancel_asked || end.finished_at < before)
    }

    /// Whether it may be removed as a whole.
    pub(super) fn may_go(&self, house: &House) -> bool {
        let accepted_at = self.id.map_or(i64::MAX, |id| id.seq().accepted_at().0);
        let is_old = accepted_at < self.cutoff(house.keeps.map(|keeps| keeps.tasks));
        let bound = house.keeps.filter(|keeps| keeps.max_bytes > 0);
        let makes_room = |finished_at: i64| {
            bound.is_some_and(|keeps| finished_at < ago(keeps.at_least.min(keeps.results)))
        };
        match &self.kept {
            Kept::Final(end) => {
                end.delivery.is_none()
                    && (self.may_expire(end, house) && is_old || makes_room(end.finished_at))
            }
            Kept::Expired => is_old || bound.is_some(),
            Kept::Nothing => self.told != Told::Accepted || self.gone,
            Kept::Waiting(_) => false,
        }
    }

    fn cutoff(&self, kept: Option<u64>) -> i64 {
        self.purged_before.max(kept.map_or(i64::MIN, ago))
    }

    pub(super) fn fate(&self, tried: u32) -> Fate {
        *nth(&self.call.upstream, tried)
    }

    pub(super) fn receipt(&self, rung: u32) -> Receipt {
        *nth(&self.call.receiver, rung)
    }

    /// Whether the call's work may be done twice.
    pub(super) fn repeatable(&self, house: &House) -> bool {
        match house.api(&self.call).idempotency {
            Idempotency::Always => true,
            Idempotency::Key if self.call.key.is_some() => true,
            Idempotency::Key | Idempotency::None => !self.call.post,
        }
    }

    /// Whether another attempt may follow one with this fate.
    pub(super) fn may_follow(&self, fate: Does, house: &House) -> bool {
        let repeatable = self.repeatable(house);
        match fate {
            Does::Unreachable => true,
            Does::Times | Does::Breaks | Does::BreaksOff(_) => repeatable,
            Does::Answers(status) | Does::Asks(status, _) | Does::Long(status) | Does::TooLarge(status) => {
                is_transient(status) && (repeatable || does_nothing(status))
            }
            Does::Panics => false,
        }
    }
}

/// So many milliseconds ago, by the steady clock.
fn ago(ms: u64) -> i64 {
    chance::steady() - i64::try_from(ms).expect("no world is that old")
}

/// The last one repeats.
fn nth<T>(list: &[T], index: u32) -> &T {
    let index = usize::try_from(index).expect("few").min(list.len() - 1);
    &list[index]
}

/// The answers that are about now, as the program promises.
fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502..=504 | 520..=529)
}

/// The answers that say that nothing was done.
pub(super) fn does_nothing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 503)
}
