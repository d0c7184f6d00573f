//! How many waiting calls the writer may accept in this commit, per upstream.
//!
//! Accepting is cheaper than finishing, so clients that push hard would starve the workers. Who is the
//! bottleneck decides: when tasks spend their time inside the upstream, accepting freely harms nobody
//! and the store holds the backlog; when they spend it waiting for us, accepts go only as fast as the
//! ready queue empties.

use std::time::Duration;

use crate::clock::Timestamp;

/// Above this share of time inside upstreams and receivers, they are the bottleneck.
const OUTSIDE_SHARE: f64 = 0.75;

/// One verdict is formed over at least this long.
const WINDOW: Duration = Duration::from_millis(200);

/// Who the tasks in flight are waiting for, judged over the last whole window.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    outside: f64,
    in_flight: f64,
    window_ends: Timestamp,
    last: Timestamp,
    upstream_is_bottleneck: bool,
}

impl Share {
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            outside: 0.0,
            in_flight: 0.0,
            window_ends: now.after(WINDOW),
            last: now,
            upstream_is_bottleneck: false,
        }
    }

    /// Adds a sample: of `in_flight` tasks, `outside` are inside a call to an upstream or receiver.
    pub fn sample(&mut self, now: Timestamp, in_flight: u32, outside: u32) {
        // At least a millisecond a sample, so that a busy writer's frequent samples count too.
        let weight = f64::max(1.0, self.last.until(now).as_secs_f64() * 1000.0);
        self.last = now;
        self.in_flight += f64::from(in_flight) * weight;
        self.outside += f64::from(outside) * weight;
        if now >= self.window_ends {
            self.upstream_is_bottleneck =
                self.in_flight > 0.0 && self.outside >= OUTSIDE_SHARE * self.in_flight;
            (self.outside, self.in_flight) = (0.0, 0.0);
            self.window_ends = now.after(WINDOW);
        }
    }

    #[must_use]
    pub fn upstream_is_bottleneck(&self) -> bool {
        self.upstream_is_bottleneck
    }
}

/// What the writer sees of one upstream when it forms a batch.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    pub upstream_is_bottleneck: bool,
    /// Free places in the ready queue.
    pub room: usize,
    /// Due tasks rest in the store.
    pub backlog: bool,
    /// Settles in this batch, which go first.
    pub settles: usize,
}

/// How many of the waiting calls may be accepted now.
#[must_use]
pub fn accepts_allowed(situation: Situation) -> usize {
    if situation.upstream_is_bottleneck {
        usize::MAX
    } else if situation.backlog {
        // The backlog must shrink: fewer in than out, yet never a closed door.
        (situation.settles / 2).max(1)
    } else {
        situation.room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after_a_window(in_flight: u32, outside: u32) -> Share {
        let mut share = Share::new(Timestamp(0));
        for ms in 0..=300 {
            share.sample(Timestamp(ms), in_flight, outside);
        }
        share
    }

    #[test]
    fn the_upstream_is_the_bottleneck_when_tasks_wait_inside_it() {
        assert!(after_a_window(256, 250).upstream_is_bottleneck());
        assert!(!after_a_window(256, 100).upstream_is_bottleneck());
        assert!(!after_a_window(0, 0).upstream_is_bottleneck());
    }

    #[test]
    fn a_slow_upstream_never_closes_the_door() {
        let situation = Situation { upstream_is_bottleneck: true, room: 0, backlog: true, settles: 0 };
        assert_eq!(accepts_allowed(situation), usize::MAX);
    }

    proptest! {
        #[test]
        fn with_a_backlog_of_our_own_fewer_come_in_than_go_out(settles in 2usize..2000, room in 0usize..2000) {
            let situation = Situation { upstream_is_bottleneck: false, room, backlog: true, settles };
            prop_assert!(accepts_allowed(situation) < settles);
            prop_assert!(accepts_allowed(situation) >= 1);
        }
    }
}
