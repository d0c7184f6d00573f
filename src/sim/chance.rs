//! The world's clocks and dice: one a thread, set by whoever runs a world there.
//!
//! True time is the runtime's paused clock, carried on from one life of the node to the next. The wall
//! clock is true time moved by a skew that a plan may change at any instant. The dice are `SplitMix64`, so
//! that a seed means the same whatever the libraries become.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;

/// When every world begins.
const DAWN: i64 = 1_800_000_000_000;

#[derive(Clone, Copy)]
struct Hands {
    /// True time when this life of the node began, and the runtime's instant of it.
    began: i64,
    instant: Option<Instant>,
    skew: i64,
    /// What the wall clock said when this life began.
    steady_from: i64,
    /// How far the steady clock of the last life had come.
    latest: i64,
    /// How far the wall clock was set either way since the last life began, in all.
    ahead: i64,
    back: i64,
}

const AT_DAWN: Hands =
    Hands { began: DAWN, instant: None, skew: 0, steady_from: DAWN, latest: DAWN, ahead: 0, back: 0 };

impl Hands {
    fn set_by(self, by: i64) -> Self {
        Self {
            skew: self.skew + by,
            ahead: self.ahead + by.max(0),
            back: self.back + by.min(0).abs(),
            ..self
        }
    }
}

thread_local! {
    static HANDS: Cell<Hands> = const { Cell::new(AT_DAWN) };
    static DICE: Cell<u64> = const { Cell::new(0) };
}

/// A new world begins.
pub(super) fn dawn(seed: u64) {
    HANDS.set(AT_DAWN);
    DICE.set(seed);
}

/// The node starts. Call it inside the runtime that it lives in.
pub(super) fn begin(skew: i64) {
    let hands = HANDS.get().set_by(skew);
    let steady_from = hands.began + hands.skew;
    HANDS.set(Hands { instant: Some(Instant::now()), steady_from, ..hands });
}

/// The node's steady clock begins here. It goes on where it was, if nobody set the wall clock; else it may
/// be off by as much as that was set after the last commit.
pub(super) fn resume(steady_from: Timestamp) -> bool {
    let hands = HANDS.get();
    let latest = hands.latest.max(steady_from.0);
    HANDS.set(Hands { steady_from: steady_from.0, latest, ahead: 0, back: 0, ..hands });
    (hands.latest - hands.back..=hands.latest + hands.ahead).contains(&steady_from.0)
}

/// The node is gone; its runtime is about to be.
pub(super) fn end() {
    HANDS.set(Hands {
        began: true_now(),
        instant: None,
        steady_from: steady(),
        latest: steady(),
        ..HANDS.get()
    });
}

/// Milliseconds that no clock of the node can change.
pub(super) fn true_now() -> i64 {
    let hands = HANDS.get();
    hands.began + hands.instant.map_or(0, |instant| millis(instant.elapsed()))
}

/// Since the world began.
pub(super) fn age() -> i64 {
    true_now() - DAWN
}

/// What the node's wall clock says.
pub(super) fn wall() -> Timestamp {
    Timestamp(true_now() + HANDS.get().skew)
}

/// What the node's steady clock has to say.
pub(super) fn steady() -> i64 {
    let hands = HANDS.get();
    hands.steady_from + true_now() - hands.began
}

/// The wall clock jumps.
pub(super) fn jump(by: i64) {
    HANDS.set(HANDS.get().set_by(by));
}

/// For the worker's jitter.
pub(super) fn jitter() -> f64 {
    let mut dice = Dice(DICE.get());
    let chance = f64::from(dice.below(1 << 20)) / f64::from(1 << 20);
    DICE.set(dice.0);
    chance
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).expect("no world is that old")
}

/// `SplitMix64`.
#[derive(Clone)]
pub(super) struct Dice(pub u64);

impl Dice {
    /// Dice for one purpose, so that one more throw here does not change what is thrown there.
    pub(super) fn of(seed: u64, purpose: u64) -> Self {
        let mut dice = Self(seed ^ purpose.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        dice.next();
        dice
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.next() % u64::from(end)).expect("below a u32")
    }

    pub(super) fn between(&mut self, from: u32, to: u32) -> u32 {
        from + self.below(to - from + 1)
    }

    /// True so many times in a hundred.
    pub(super) fn percent(&mut self, of_hundred: u32) -> bool {
        self.below(100) < of_hundred
    }

    pub(super) fn of_these<T: Copy>(&mut self, these: &[T]) -> T {
        let index = self.below(u32::try_from(these.len()).expect("few"));
        these[usize::try_from(index).expect("few")]
    }
}
