//! Everything that happens to one world from outside, as data: made from a seed, shrunk when it breaks a
//! promise, and written down in a test's source when it is worth keeping.

use super::chance::Dice;
use crate::outcome::Idempotency;

/// A world to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// Of the latencies and the jitter; the rest is written out.
    pub seed: u64,
    pub house: House,
    pub calls: Vec<Call>,
    /// In the order of their instants.
    pub events: Vec<Event>,
}

/// What is configured. Milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct House {
    pub retry_delays: Vec<u64>,
    pub webhook_delays: Vec<u64>,
    pub jitter: f64,
    pub deadline: u64,
    /// The upstreams, each with a lane of its own.
    pub apis: Vec<Api>,
    pub webhook_concurrency: usize,
    pub per_host: usize,
    pub ready: usize,
    pub max_queued: u64,
    /// A janitor works, and this is what it keeps.
    pub keeps: Option<Keeps>,
    pub troubles: Vec<Trouble>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Api {
    pub idempotency: Idempotency,
    pub concurrency: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Keeps {
    pub results: u64,
    pub tasks: u64,
    pub max_bytes: u64,
    pub at_least: u64,
}

/// Somebody is out of order from one instant of the world to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trouble {
    pub who: Who,
    /// An upstream that does not hang cannot be reached; receivers always hang.
    pub hangs: bool,
    pub from: i64,
    pub until: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Who {
    Api(u8),
    /// Of receivers.
    Host(u8),
}

impl House {
    pub(super) fn api(&self, call: &Call) -> Api {
        self.apis[usize::from(call.api)]
    }

    pub(super) fn trouble(&self, who: Who, at: i64) -> Option<&Trouble> {
        let is_now = |trouble: &&Trouble| (trouble.from..trouble.until).contains(&at);
        self.troubles.iter().filter(|trouble| trouble.who == who).find(is_now)
    }
}

/// A call, and all that will ever answer it. The last answer repeats.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub number: u32,
    pub at: i64,
    /// Which upstream it is for.
    pub api: u8,
    pub post: bool,
    /// Calls with the same key are the same call sent again.
    pub key: Option<u8>,
    /// Of the receiver, which shares it with others; `None` without a webhook URI.
    pub host: Option<u8>,
    /// Its body has three chunks.
    pub long: bool,
    /// Somebody waits for its end.
    pub watched: bool,
    pub upstream: Vec<Fate>,
    pub receiver: Vec<Receipt>,
}

/// What the upstream does with one attempt, after so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fate {
    pub after: u64,
    pub what: Does,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Does {
    /// Nobody listens: not a byte leaves.
    Unreachable,
    Times,
    Breaks,
    Answers(u16),
    /// The same with `Retry-After`, in seconds.
    Asks(u16, u32),
    /// An answer of three chunks.
    Long(u16),
    TooLarge(u16),
    /// The answer's body ends before its end, after a whole chunk.
    BreaksOff(u16),
    Panics,
}

/// What the receiver does with one delivery attempt, after so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Receipt {
    pub after: u64,
    pub what: Hears,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Hears {
    Well,
    Status(u16),
    Times,
    Denied,
    Panics,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Event {
    pub at: i64,
    pub what: Happens,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Happens {
    /// `kill -9`; the next start finds the wall clock moved by so much.
    Crash(i64),
    /// The same, right after the next commit and before anybody hears of it.
    CrashAtCommit,
    /// SIGTERM, and a new start.
    Drain,
    /// The wall clock jumps.
    Jump(i64),
    /// Nothing can be written for so long.
    Full(u64),
    /// For so long half of what is read cannot be.
    Blind(u64),
    /// The caller of this call cancels it, or erases its result.
    Cancel(u32),
    /// Somebody gives back the lease of this call's task or delivery, although its holder still works.
    TakeLease(u32),
    /// Retention: of results, then tasks, of this age.
    Purge(i64),
}

impl Plan {
    pub(super) fn from_seed(seed: u64) -> Self {
        let mut dice = Dice::of(seed, 1);
        let span = dice.of_these(&[50, 500, 5_000, 60_000]);
        let house = house(span, &mut dice);
        let count = dice.between(8, 64);
        let mut calls: Vec<_> = (0..count).map(|number| call(number, span, &house, &mut dice)).collect();
        calls.sort_by_key(|call| call.at);
        let events = dice.below(8);
        let mut events: Vec<_> = (0..events).map(|_| event(&calls, span, &mut dice)).collect();
        events.sort_by_key(|event| event.at);
        Self { seed, house, calls, events }
    }
}

/// Receivers' hosts; `HOSTS / 2` of them are in one zone.
pub(super) const HOSTS: u32 = 6;

fn house(span: u32, dice: &mut Dice) -> House {
    let delay = |dice: &mut Dice| dice.of_these(&[1, 20, 200, 1_000, 30_000]);
    let retries = dice.below(5);
    let webhook_retries = dice.below(8);
    let deadline = dice.of_these(&[40, 2_000, 60_000, 3_000_000, 200_000_000]);
    let apis: Vec<_> = (0..dice.of_these(&[1, 1, 2, 3])).map(|_| api(dice)).collect();
    // Where tasks wait for days, a janitor that looks every second would take all of the time.
    let keeps = (deadline <= 60_000 && dice.percent(30)).then(|| keeps(dice));
    let troubles = dice.of_these(&[0, 0, 1, 2]);
    let troubles = (0..troubles).map(|_| trouble(apis.len(), span, dice)).collect();
    House {
        retry_delays: (0..retries).map(|_| delay(dice)).collect(),
        webhook_delays: (0..webhook_retries).map(|_| delay(dice)).collect(),
        jitter: dice.of_these(&[0.0, 0.25, 1.0]),
        deadline,
        apis,
        webhook_concurrency: dice.of_these(&[1, 4, 32]),
        per_host: dice.of_these(&[1, 2, 16]),
        ready: dice.of_these(&[1, 2, 8, 64]),
        max_queued: dice.of_these(&[5, 1_000, 1_000]),
        keeps,
        troubles,
    }
}

fn api(dice: &mut Dice) -> Api {
    use Idempotency::{Always, Key, None};
    Api { idempotency: dice.of_these(&[None, None, Key, Always]), concurrency: dice.of_these(&[1, 2, 8, 32]) }
}

fn keeps(dice: &mut Dice) -> Keeps {
    let results = dice.of_these(&[2_000, 20_000, 100_000]);
    Keeps {
        results,
        tasks: results * dice.of_these(&[1, 3]),
        // The long bodies are what fills it.
        max_bytes: dice.of_these(&[0, 300_000, 1_000_000]),
        at_least: dice.of_these(&[0, 1_000, 1_000_000]),
    }
}

fn trouble(apis: usize, span: u32, dice: &mut Dice) -> Trouble {
    let one_of = |count: u32, dice: &mut Dice| u8::try_from(dice.below(count)).expect("few");
    let apis = u32::try_from(apis).expect("few");
    let who = if dice.percent(50) { Who::Api(one_of(apis, dice)) } else { Who::Host(one_of(HOSTS, dice)) };
    let from = i64::from(dice.below(span));
    let hangs = matches!(who, Who::Host(_)) || dice.percent(50);
    Trouble { who, hangs, from, until: from + dice.of_these(&[100, 5_000, 100_000, i64::MAX / 2]) }
}

fn call(number: u32, span: u32, house: &House, dice: &mut Dice) -> Call {
    let fates = dice.between(1, 4);
    let receipts = dice.between(1, 4);
    Call {
        number,
        at: i64::from(dice.below(span)),
        api: u8::try_from(dice.below(u32::try_from(house.apis.len()).expect("few"))).expect("few"),
        post: dice.percent(50),
        key: dice.percent(15).then(|| u8::try_from(dice.below(4)).expect("below four")),
        host: dice.percent(80).then(|| u8::try_from(dice.below(HOSTS)).expect("few")),
        long: dice.percent(3),
        watched: dice.percent(20),
        upstream: (0..fates).map(|_| fate(dice)).collect(),
        receiver: (0..receipts).map(|_| receipt(dice)).collect(),
    }
}

/// Mostly quick, so that much happens together; sometimes long, so that something happens meanwhile.
fn after(dice: &mut Dice) -> u64 {
    u64::from(if dice.percent(70) { dice.below(5) } else { dice.below(2_000) })
}

fn fate(dice: &mut Dice) -> Fate {
    let error = dice.of_these(&[400, 404, 408, 425, 429, 500, 501, 502, 503, 504, 522]);
    let what = match dice.below(100) {
        0..45 => Does::Answers(200),
        45..65 => Does::Answers(error),
        65..72 => Does::Asks(error, dice.of_these(&[0, 1, 30, 100_000])),
        72..80 => Does::Unreachable,
        80..86 => Does::Times,
        86..91 => Does::Breaks,
        91..93 => Does::Long(dice.of_these(&[200, 500])),
        93..95 => Does::TooLarge(dice.of_these(&[200, 503])),
        95..97 => Does::BreaksOff(200),
        97..99 => Does::Answers(302),
        _ => Does::Panics,
    };
    Fate { after: after(dice), what }
}

fn receipt(dice: &mut Dice) -> Receipt {
    let what = match dice.below(100) {
        0..60 => Hears::Well,
        60..85 => Hears::Status(dice.of_these(&[301, 404, 500, 503])),
        85..94 => Hears::Times,
        94..99 => Hears::Denied,
        _ => Hears::Panics,
    };
    Receipt { after: after(dice), what }
}

fn event(calls: &[Call], span: u32, dice: &mut Dice) -> Event {
    let count = u32::try_from(calls.len()).expect("few");
    let hours = |dice: &mut Dice| (i64::from(dice.below(13)) - 6) * 3_600_000;
    // Some after the last call, when only retries are left.
    let at = i64::from(dice.below(span * 2));
    let what = match dice.below(100) {
        0..15 => Happens::Crash(if dice.percent(20) { hours(dice) } else { 0 }),
        15..30 => Happens::CrashAtCommit,
        30..38 => Happens::Drain,
        38..48 => Happens::Jump(hours(dice)),
        48..55 => Happens::Full(dice.of_these(&[1, 50, 1_000])),
        55..62 => Happens::Blind(dice.of_these(&[1, 50, 1_000])),
        62..80 => Happens::Cancel(dice.below(count)),
        80..93 => Happens::TakeLease(dice.below(count)),
        _ => Happens::Purge(dice.of_these(&[0, 1_000])),
    };
    // Long bodies are read while they are sent: something is to happen then.
    let long = calls.iter().find(|call| call.long && matches!(what, Happens::Blind(_)));
    Event { at: long.map_or(at, |call| call.at), what }
}
