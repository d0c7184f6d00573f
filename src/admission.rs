//! How many waiting calls the writer may accept in this commit, per upstream.
//!
//! Accepting is cheaper than finishing, so clients that push hard would starve the workers. Who is the
//! bottleneck decides. Where it is the upstream, accepting freely harms nobody and the store holds the
//! backlog. Where it is this node, accepts go only as fast as the ready queue empties.
//!
//! The upstream is it when tasks spend their time inside calls, which alone would not do: answers that
//! nobody has had time to read count as time inside calls too. So besides, either the shortest calls are
//! as long as the others, or this node has time left. The latter can be seen only while accepts are paced,
//! since accepting takes whatever time there is: accepting freely for that reason is for a while, then
//! looked at again, ever more seldom.

use std::time::Duration;

use crate::clock::Timestamp;

/// Above this share of time inside upstreams and receivers, tasks wait for those.
const OUTSIDE_SHARE: f64 = 0.75;

/// Below this share of time at work, this node has time left.
const SPARE_SHARE: f64 = 0.85;

/// Above it, it has none, and fewer tasks at once than there are would do as well.
const BUSY_SHARE: f64 = 0.95;

/// Tasks at once, ready or in flight, that this node is held to while it is the bottleneck: as many as
/// keep it busy. More would only wait, in memory and in the way of those that can go on.
const AT_ONCE_MIN: u32 = 128;
const AT_ONCE_MAX: u32 = 8_192;
const AT_ONCE_AT_FIRST: u32 = 256;

/// One verdict is formed over at least this long.
const WINDOW: Duration = Duration::from_millis(100);

/// Accepting freely is looked at again after this long at first …
const FREE_AT_FIRST: Duration = Duration::from_millis(400);

/// … and after this long at most.
const FREE_AT_MOST: Duration = Duration::from_secs(10);

/// Calls that ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    pub count: u32,
    /// The shortest of them; of no meaning without one.
    pub shortest: Duration,
}

impl Ended {
    fn add(&mut self, other: Self) {
        self.shortest = match (self.count, other.count) {
            (_, 0) => self.shortest,
            (0, _) => other.shortest,
            _ => self.shortest.min(other.shortest),
        };
        self.count += other.count;
    }

    /// The time they took if all were as short.
    fn at_least(self) -> f64 {
        f64::from(self.count) * self.shortest.as_secs_f64()
    }
}

/// What is seen of one upstream and of the node at one instant.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Tasks in the ready queue.
    pub ready: u32,
    /// Tasks that left the ready queue and are not settled.
    pub in_flight: u32,
    /// Those of them inside a call to an upstream or receiver.
    pub outside: u32,
    /// Since the last sample: calls of attempts, and calls of deliveries.
    pub ended: [Ended; 2],
    /// How long the threads that run tasks have been at work since they began, on average.
    pub busy: Duration,
}

/// Whether accepts are held to the pace of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pacing {
    Paced,
    Free {
        until: Timestamp,
    },
    /// Paced again, and still at work for what was accepted freely: this window says nothing.
    Settling,
}

/// Who the tasks in flight are waiting for, judged window by window.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    outside: f64,
    in_flight: f64,
    ready: f64,
    weight: f64,
    ended: [Ended; 2],
    window_began: Timestamp,
    /// At work when the window began.
    busy_before: Duration,
    last: Timestamp,
    pacing: Pacing,
    /// How long accepts are free the next time.
    free_for: Duration,
    at_once: u32,
}

impl Share {
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            outside: 0.0,
            in_flight: 0.0,
            ready: 0.0,
            weight: 0.0,
            ended: [Ended::default(); 2],
            window_began: now,
            busy_before: Duration::ZERO,
            last: now,
            pacing: Pacing::Paced,
            free_for: FREE_AT_FIRST,
            at_once: AT_ONCE_AT_FIRST,
        }
    }

    /// Adds what is seen now.
    pub fn sample(&mut self, now: Timestamp, sample: Sample) {
        // At least a millisecond a sample, so that a busy writer's frequent samples count too.
        let weight = f64::max(1.0, self.last.until(now).as_secs_f64() * 1000.0);
        self.last = now;
        self.in_flight += f64::from(sample.in_flight) * weight;
        self.outside += f64::from(sample.outside) * weight;
        self.ready += f64::from(sample.ready) * weight;
        self.weight += weight;
        for (ended, more) in self.ended.iter_mut().zip(sample.ended) {
            ended.add(more);
        }
        let window = self.window_began.until(now);
        if window >= WINDOW {
            let busy = sample.busy.saturating_sub(self.busy_before);
            self.judge(now, window.as_secs_f64(), busy.as_secs_f64() / window.as_secs_f64());
            (self.outside, self.in_flight, self.ready, self.weight) = (0.0, 0.0, 0.0, 0.0);
            self.ended = [Ended::default(); 2];
            (self.window_began, self.busy_before) = (now, sample.busy);
        }
    }

    /// Whether calls take long of themselves, and not because we are late to read their answers.
    fn calls_are_long(&self, window: f64) -> bool {
        let none_ended = self.ended.iter().all(|ended| ended.count == 0);
        let at_least: f64 = self.ended.iter().map(|ended| ended.at_least()).sum();
        none_ended || at_least >= OUTSIDE_SHARE * window * self.in_flight / self.weight
    }

    fn judge(&mut self, now: Timestamp, window: f64, busy: f64) {
        let waits_outside = self.in_flight > 0.0 && self.outside >= OUTSIDE_SHARE * self.in_flight;
        let calls_are_long = waits_outside && self.calls_are_long(window);
        let has_time_left = busy < SPARE_SHARE;
        match self.pacing {
            Pacing::Free { .. } | Pacing::Settling if calls_are_long => {
                self.pacing = Pacing::Free { until: now.after(self.free_for) };
            }
            Pacing::Paced if waits_outside && (has_time_left || calls_are_long) => {
                self.pacing = Pacing::Free { until: now.after(self.free_for) };
                self.free_for = (self.free_for * 2).min(FREE_AT_MOST);
            }
            Pacing::Paced => self.free_for = FREE_AT_FIRST,
            Pacing::Free { until } if waits_outside && now < until => {}
            Pacing::Free { .. } => self.pacing = Pacing::Settling,
            Pacing::Settling => self.pacing = Pacing::Paced,
        }
        self.at_once = match self.at_once {
            now if calls_are_long => (now * 2).min(AT_ONCE_MAX),
            now if has_time_left && self.uses(now) => {
                // Where tasks wait inside this node, a few more may already be too many.
                let more = if waits_outside { now } else { now / 8 };
                (now + more).min(AT_ONCE_MAX)
            }
            now if busy >= BUSY_SHARE => {
                let used = if self.uses(now) { now } else { now / 2 };
                (used - used / 8).max(AT_ONCE_MIN)
            }
            now => now,
        };
    }

    /// Whether at least half as many tasks were there as there might have been. Where fewer come, time left
    /// does not tell that there would be some with more: nothing would hold the next burst.
    fn uses(&self, at_once: u32) -> bool {
        2.0 * (self.ready + self.in_flight) >= f64::from(at_once) * self.weight
    }

    #[must_use]
    pub fn upstream_is_bottleneck(&self) -> bool {
        matches!(self.pacing, Pacing::Free { .. })
    }

    /// How many tasks, ready or in flight, are enough while the upstream is not the bottleneck.
    #[must_use]
    pub fn at_once(&self) -> usize {
        self.at_once as usize
    }
}

/// What the writer sees of one upstream when it forms a batch.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    pub upstream_is_bottleneck: bool,
    /// Tasks that left the ready queue and are not settled.
    pub in_flight: usize,
    /// Tasks in the ready queue.
    pub ready: usize,
    /// Places of the ready queue.
    pub capacity: usize,
    /// How many tasks, ready or in flight, are enough.
    pub at_once: usize,
    /// Due tasks rest in the store, more than the last claim could take.
    pub backlog: bool,
    /// Attempts that this batch settles.
    pub settled: usize,
}

/// How many of the waiting calls may be accepted now.
#[must_use]
pub fn accepts_allowed(situation: Situation) -> usize {
    let Situation { in_flight, ready, capacity, at_once, settled, .. } = situation;
    let room = capacity.saturating_sub(ready);
    // The workers are stopped, and holding calls back helps nobody.
    let stopped = in_flight == 0 && room == 0;
    if situation.upstream_is_bottleneck || stopped {
        usize::MAX
    } else if situation.backlog {
        // The backlog must shrink: fewer in than out, yet never a closed door.
        (settled / 2).max(1)
    } else {
        room.min(at_once.saturating_sub(ready + in_flight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// For so long 250 of 256 tasks, or as many as said, are inside calls; of each millisecond the
    /// node works `busy` thousandths when accepts are paced, and all of it when they are free. Says
    /// for how many of the milliseconds they were.
    fn free(share: &mut Share, from: i64, ms: i64, outside: u32, busy: u64) -> i64 {
        // The shortest call is far shorter than the others.
        free_of(share, from, ms, outside, busy, Ended { count: 10, shortest: Duration::from_millis(1) })
    }

    fn free_of(share: &mut Share, from: i64, ms: i64, outside: u32, busy: u64, ended: Ended) -> i64 {
        let mut worked = Duration::from_secs(from.unsigned_abs());
        (from..from + ms)
            .filter(|now| {
                let free = share.upstream_is_bottleneck();
                worked += Duration::from_micros(if free { 1_000 } else { busy });
                let ended = [ended, Ended::default()];
                let sample = Sample { ready: 0, in_flight: 256, outside, ended, busy: worked };
                share.sample(Timestamp(*now), sample);
                free
            })
            .count()
            .try_into()
            .unwrap()
    }

    #[test]
    fn an_upstream_whose_calls_are_all_long_is_the_bottleneck_however_busy_we_are_with_others() {
        // 256 in flight of 200 ms each end at 1.28 a millisecond; 300 ms are more than enough for one.
        let ended = Ended { count: 1, shortest: Duration::from_millis(200) };
        let mut share = Share::new(Timestamp(0));
        assert!(free_of(&mut share, 0, 10_000, 250, 1_000, ended) > 9_500);
        assert_eq!(share.at_once, AT_ONCE_MAX);
        let mut share = Share::new(Timestamp(0));
        assert!(free_of(&mut share, 0, 10_000, 250, 1_000, Ended::default()) > 9_500, "none ends at all");
    }

    #[test]
    fn a_slow_upstream_is_the_bottleneck_though_accepting_takes_all_the_time_there_is() {
        let mut share = Share::new(Timestamp(0));
        assert!(free(&mut share, 0, 60_000, 250, 300) > 56_000);
    }

    #[test]
    fn tasks_that_wait_for_us_inside_their_calls_make_us_the_bottleneck() {
        let mut share = Share::new(Timestamp(0));
        assert_eq!(free(&mut share, 0, 60_000, 250, 900), 0);
    }

    #[test]
    fn tasks_that_wait_elsewhere_make_us_the_bottleneck() {
        let mut share = Share::new(Timestamp(0));
        assert_eq!(free(&mut share, 0, 10_000, 100, 100), 0);
        assert_eq!(free(&mut share, 10_000, 10_000, 0, 100), 0);
    }

    #[test]
    fn an_upstream_that_becomes_quick_is_noticed_at_once() {
        let mut share = Share::new(Timestamp(0));
        assert!(free(&mut share, 0, 30_000, 250, 300) > 26_000);
        assert!(free(&mut share, 30_000, 30_000, 100, 900) <= 110);
    }

    const SITUATION: Situation = Situation {
        upstream_is_bottleneck: false,
        in_flight: 100,
        ready: 0,
        capacity: 512,
        at_once: 256,
        backlog: false,
        settled: 0,
    };

    #[test]
    fn a_slow_upstream_never_closes_the_door() {
        let situation = Situation { upstream_is_bottleneck: true, ready: 512, backlog: true, ..SITUATION };
        assert_eq!(accepts_allowed(situation), usize::MAX);
    }

    #[test]
    fn stopped_workers_never_close_the_door() {
        assert_eq!(accepts_allowed(Situation { in_flight: 0, ready: 512, ..SITUATION }), usize::MAX);
    }

    #[test]
    fn a_burst_at_a_node_at_rest_goes_no_further_than_memory() {
        let situation = Situation { in_flight: 0, at_once: 8_192, ..SITUATION };
        assert_eq!(accepts_allowed(situation), 512);
    }

    /// For so many windows so many hundredths of the tasks there may be are there, half of them ready, so many
    /// hundredths of those in flight inside calls, and the node works `busy` hundredths of the time.
    fn held(share: &mut Share, windows: i64, used: u32, outside: u32, busy: u64) {
        for _ in 0..windows {
            let now = Timestamp(share.last.0 + 100);
            let busy = share.busy_before + Duration::from_millis(busy);
            let half = share.at_once * used / 200;
            let outside = half * outside / 100;
            let ended = [Ended { count: 1, shortest: Duration::from_micros(1) }; 2];
            share.sample(now, Sample { ready: half, in_flight: half, outside, ended, busy });
        }
    }

    #[test]
    fn a_node_without_time_left_is_held_to_fewer_tasks_at_once_and_one_with_time_to_more() {
        let mut share = Share::new(Timestamp(0));
        held(&mut share, 100, 100, 40, 99);
        assert_eq!(share.at_once, AT_ONCE_MIN);
        held(&mut share, 100, 100, 40, 30);
        assert_eq!(share.at_once, AT_ONCE_MAX);
    }

    #[test]
    fn more_come_in_small_steps_where_tasks_wait_inside_and_in_large_ones_where_they_wait_outside() {
        let mut share = Share::new(Timestamp(0));
        held(&mut share, 1, 100, 40, 30);
        assert_eq!(share.at_once, AT_ONCE_AT_FIRST * 9 / 8);
        let mut share = Share::new(Timestamp(0));
        held(&mut share, 1, 100, 90, 30);
        assert_eq!(share.at_once, AT_ONCE_AT_FIRST * 2);
    }

    #[test]
    fn a_light_load_does_not_raise_what_a_later_burst_may_bring_at_once() {
        let mut share = Share::new(Timestamp(0));
        held(&mut share, 100, 40, 40, 30);
        held(&mut share, 100, 40, 90, 30);
        assert_eq!(share.at_once, AT_ONCE_AT_FIRST);
    }

    #[test]
    fn what_nobody_uses_goes_first_when_there_is_no_time_left() {
        let mut share = Share::new(Timestamp(0));
        share.at_once = 4_096;
        held(&mut share, 3, 10, 40, 99);
        assert_eq!(share.at_once, 4_096 * 7 * 7 * 7 / (16 * 16 * 16));
    }

    proptest! {
        #[test]
        fn with_a_backlog_of_our_own_fewer_come_in_than_go_out(settled in 2usize..2000, ready in 0usize..512) {
            let allowed = accepts_allowed(Situation { backlog: true, settled, ready, ..SITUATION });
            prop_assert!(allowed < settled && allowed >= 1);
        }

        #[test]
        fn paced_accepts_never_exceed_what_is_enough(in_flight in 1usize..2000, ready in 0usize..600) {
            let allowed = accepts_allowed(Situation { in_flight, ready, ..SITUATION });
            prop_assert!(allowed == 0 || allowed + in_flight + ready <= 256);
        }
    }
}
