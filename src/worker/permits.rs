//! How many delivery attempts run at once: in all, and to one receiver host.
//!
//! A receiver that hangs may hold its own places and no more, and several that hang together leave places
//! for whoever has none, so the others' deliveries go on. Several names of one zone count as one there:
//! names cost nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Timestamp;

/// A delivery that finds no place at its host stays away this long at first, give or take a half …
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// … and this long at most.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// So many are turned away for each one let in before the pause grows.
const TURNED_AWAY_EACH: u64 = 10;

/// The places.
pub struct DeliveryPermits {
    all: Arc<Semaphore>,
    total: usize,
    per_host: usize,
    taken: Arc<Mutex<Taken>>,
}

/// Hosts and zones without attempts leave it, so it never holds more than attempts in flight.
#[derive(Default)]
struct Taken {
    hosts: HashMap<String, Holder>,
    zones: HashMap<String, Holder>,
}

/// What happened at one host, or at one zone, since the pause was last judged.
struct Holder {
    taken: usize,
    pause: Duration,
    judged_at: Timestamp,
    let_in: u64,
    turned_away: u64,
}

impl Holder {
    fn new(now: Timestamp) -> Self {
        Self { taken: 0, pause: PAUSE_MIN, judged_at: now, let_in: 0, turned_away: 0 }
    }

    /// Judges once a pause: a burst at a quick receiver must not be taken for one that hangs.
    fn judge(&mut self, now: Timestamp) {
        if self.judged_at.until(now) < self.pause {
            return;
        }
        self.pause = next_pause(self.pause, self.let_in, self.turned_away);
        (self.judged_at, self.let_in, self.turned_away) = (now, 0, 0);
    }

    fn let_in(&mut self, now: Timestamp) {
        self.judge(now);
        self.taken += 1;
        self.let_in += 1;
    }

    /// Says for how long to stay away.
    fn turn_away(&mut self, now: Timestamp) -> Duration {
        self.judge(now);
        self.turned_away += 1;
        self.pause
    }
}

/// Twice as long while most ask in vain, half as long while few do.
fn next_pause(pause: Duration, let_in: u64, turned_away: u64) -> Duration {
    let pause = if turned_away > TURNED_AWAY_EACH * let_in {
        pause * 2
    } else if turned_away * 2 < TURNED_AWAY_EACH * let_in {
        pause / 2
    } else {
        pause
    };
    pause.clamp(PAUSE_MIN, PAUSE_MAX)
}

/// How many places one zone may hold while `free` of all `total` are left, the one asked for included:
/// half of what is free, so that each further one that hangs takes less, but always one. Who allows one
/// host every place wants no sharing.
fn share(total: usize, per_host: usize, free: usize) -> usize {
    if per_host >= total { total } else { (free / 2).max(1) }
}

impl DeliveryPermits {
    pub(super) fn new(total: usize, per_host: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(total)), total, per_host, taken: Arc::default() }
    }

    /// Waits for a place of the total.
    pub(super) async fn any_host(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.all).acquire_owned().await.expect("never closed")
    }

    /// A place of the total, if one is free now.
    pub(super) fn try_any_host(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).try_acquire_owned().ok()
    }

    /// A place at this host for who holds one of the total, if one is free now; else how long to stay
    /// away. All that wait for a receiver that hangs must not keep the store busy by asking over and over.
    pub(super) fn try_host(
        &self,
        host: String,
        zone: String,
        now: Timestamp,
    ) -> Result<HostPermit, Duration> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Taken { hosts, zones } = &mut *taken;
        let in_zone = zones.get(&zone).map_or(0, |zone| zone.taken);
        let free = self.all.available_permits() + 1;
        // Who has no place in its zone is turned away there: its names must not get a short pause each.
        if in_zone >= share(self.total, self.per_host, free) {
            let zone = zones.get_mut(&zone).expect("a zone without attempts has a place");
            return Err(zone.turn_away(now));
        }
        let at = holder(hosts, &host, now);
        if at.taken >= self.per_host {
            return Err(at.turn_away(now));
        }
        at.let_in(now);
        holder(zones, &zone, now).let_in(now);
        Ok(HostPermit { taken: Arc::clone(&self.taken), host, zone })
    }
}

/// The holder of this name; a name is copied only where it is new.
fn holder<'h>(holders: &'h mut HashMap<String, Holder>, name: &str, now: Timestamp) -> &'h mut Holder {
    if !holders.contains_key(name) {
        holders.insert(name.to_owned(), Holder::new(now));
    }
    holders.get_mut(name).expect("it is there")
}

/// A place at one host, given back when dropped.
pub(super) struct HostPermit {
    taken: Arc<Mutex<Taken>>,
    host: String,
    zone: String,
}

impl Drop for HostPermit {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Taken { hosts, zones } = &mut *taken;
        if let Some(at) = hosts.get_mut(&self.host) {
            at.taken -= 1;
            if at.taken == 0 {
                hosts.remove(&self.host);
            }
        }
        if let Some(at) = zones.get_mut(&self.zone) {
            at.taken -= 1;
            if at.taken == 0 {
                zones.remove(&self.zone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    /// Places as one delivery after the other takes them: of the total first, then at the host.
    #[derive(Default)]
    struct Held(HashMap<usize, Vec<(OwnedSemaphorePermit, HostPermit)>>);

    impl Held {
        fn ask(&mut self, permits: &DeliveryPermits, host: usize) -> bool {
            self.ask_in(permits, host, host)
        }

        fn ask_in(&mut self, permits: &DeliveryPermits, zone: usize, host: usize) -> bool {
            let Some(any) = permits.try_any_host() else { return false };
            let (host, zone_name) = (format!("{host}:443"), zone.to_string());
            let Ok(place) = permits.try_host(host, zone_name, Timestamp(0)) else { return false };
            self.0.entry(zone).or_default().push((any, place));
            true
        }

        fn at(&self, host: usize) -> usize {
            self.0.get(&host).map_or(0, Vec::len)
        }
    }

    proptest! {
        #[test]
        fn a_host_that_holds_nothing_finds_a_place_while_any_is_free(
            total in 2..60_usize,
            per_host in 1..60_usize,
            asks in prop::collection::vec((0..6_usize, any::<bool>()), 0..300),
        ) {
            prop_assume!(per_host < total);
            let permits = DeliveryPermits::new(total, per_host);
            let mut held = Held::default();
            for (host, gives_back) in asks {
                if gives_back {
                    held.0.get_mut(&host).and_then(Vec::pop);
                    continue;
                }
                let (free, before) = (permits.all.available_permits(), held.at(host));
                let let_in = held.ask(&permits, host);
                prop_assert!(let_in || free == 0 || before > 0, "a newcomer is turned away from {free}");
                prop_assert!(!let_in || held.at(host) <= per_host);
                // Beyond its first place a host leaves at least as many as it holds.
                prop_assert!(!let_in || before == 0 || permits.all.available_permits() >= held.at(host));
            }
        }

        #[test]
        fn eight_hosts_that_hang_leave_places_for_a_ninth(
            asks in prop::collection::vec(0..8_usize, 0..4_000),
        ) {
            let permits = DeliveryPermits::new(256, 64);
            let mut held = Held::default();
            for host in asks.into_iter().chain((0..8).flat_map(|host| [host; 256])) {
                held.ask(&permits, host);
            }
            prop_assert!(permits.all.available_permits() >= 8, "{}", permits.all.available_permits());
            prop_assert!((0..8).all(|host| held.at(host) >= 4));
            prop_assert!(held.ask(&permits, 8));
        }
    }

    #[test]
    fn names_that_cost_nothing_gain_no_places() {
        let permits = DeliveryPermits::new(256, 64);
        let mut held = Held::default();
        let let_in = (0..1_000).filter(|name| held.ask_in(&permits, 0, *name)).count();
        // A third: then they hold half of what is left.
        assert_eq!(let_in, 85);
        assert!(held.ask(&permits, 1_000));
        assert_eq!(permits.taken.lock().unwrap().hosts.len(), 86);
    }

    #[test]
    fn who_allows_one_host_every_place_lets_it_have_them() {
        let permits = DeliveryPermits::new(10, 10);
        let mut held = Held::default();
        assert!((0..10).all(|_| held.ask(&permits, 0)));
    }

    #[test]
    fn a_host_that_holds_all_its_places_leaves_the_others_theirs() {
        let permits = DeliveryPermits::new(10, 2);
        let at = |host: &str| permits.try_host(String::from(host), String::from(host), Timestamp(0));
        let held = [at("slow:443"), at("slow:443")];
        assert!(held.iter().all(Result::is_ok));
        assert!(at("slow:443").is_err());
        assert!(at("quick:443").is_ok());
        drop(held);
        assert!(at("slow:443").is_ok());
        let taken = permits.taken.lock().unwrap();
        assert!(taken.hosts.is_empty() && taken.zones.is_empty());
    }

    #[derive(Default)]
    struct Asked {
        let_in: u64,
        turned_away: u64,
        last_let_in: i64,
    }

    /// `waiting` deliveries, all due at once, ask one host for a place and hold it for `hold` ms. Counts
    /// what happens between `from` and `to` ms.
    fn ask(waiting: i64, hold: i64, from: i64, to: i64) -> Asked {
        ask_names(1, waiting, hold, from, to)
    }

    /// The same at so many hosts of one zone.
    fn ask_names(names: i64, waiting: i64, hold: i64, from: i64, to: i64) -> Asked {
        let permits = DeliveryPermits::new(1_000, 64);
        let mut due: BinaryHeap<_> = (0..waiting).map(|number| Reverse((0, number))).collect();
        let mut taken = VecDeque::new();
        let mut asked = Asked::default();
        while let Some(Reverse((now, number))) = due.pop().filter(|Reverse((now, _))| *now < to) {
            while taken.front().is_some_and(|(until, _)| *until <= now) {
                taken.pop_front();
            }
            let counted = u64::from(now >= from);
            match permits.try_host(format!("{}:443", number % names), String::from("zone"), Timestamp(now)) {
                Ok(place) => {
                    taken.push_back((now + hold, place));
                    asked.let_in += counted;
                    asked.last_let_in = now;
                }
                Err(pause) => {
                    asked.turned_away += counted;
                    // Spread as by chance: half to one and a half of the pause.
                    let chance = 500 + number * 7919 % 1_000;
                    let pause = i64::try_from(pause.as_millis()).unwrap();
                    due.push(Reverse((now + pause * chance / 1_000, number)));
                }
            }
        }
        asked
    }

    #[test]
    fn a_host_that_hangs_is_asked_ever_less_by_all_that_wait_for_it() {
        let few = ask(3_000, 10_000, 240_000, 300_000);
        assert!(few.turned_away <= 30 * few.let_in, "{} for {}", few.turned_away, few.let_in);
        let many = ask(30_000, 10_000, 240_000, 300_000);
        // Each once a minute, give or take a half.
        assert!(many.turned_away <= 60_000, "{}", many.turned_away);
        let names = ask_names(10_000, 30_000, 10_000, 240_000, 300_000);
        assert!(names.turned_away <= 60_000, "{}", names.turned_away);
        assert!(names.let_in >= 64 * 3, "{}", names.let_in);
        assert!(few.let_in >= 64 * 3 && many.let_in >= 64 * 3, "{} {}", few.let_in, many.let_in);
    }

    #[test]
    fn a_burst_at_a_quick_host_is_soon_over() {
        let asked = ask(2_000, 5, 0, 60_000);
        assert_eq!(asked.let_in, 2_000);
        assert!(asked.last_let_in < 5_000, "{}", asked.last_let_in);
    }
}
