//! The world's upstream and receivers: they do what the plan says, and hold every call and every webhook
//! against what may be sent at that instant.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::Instant;

use super::chance;
use super::life::{Kept, Life, does_nothing};
use super::people::{self, LONG_BODY, SHORT_BODY};
use super::plan::{Does, Fate, Hears, House, Receipt, Who};
use super::world::{Shared, World, sleep};
use crate::guard::WebhookUri;
use crate::outcome::NoAnswer;
use crate::seal::CHUNK_BYTES;
use crate::store::{Errand, LaneId};
use crate::upstream::{Answer, Attempt, Call};
use crate::webhook::{DeliveryFailure, DeliveryOutcome, Message};
use crate::worker::Outside;

/// The largest result that is kept.
pub(super) const MAX_RESULT: usize = 4 * CHUNK_BYTES;

const PATIENCE: Duration = Duration::from_secs(5);

/// The answer's body: what is left of it, and whether its end is missing.
pub(super) struct Pieces {
    left: VecDeque<Bytes>,
    breaks: bool,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        match self.left.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.breaks => Poll::Ready(Some(Err("broke off"))),
            None => Poll::Ready(None),
        }
    }
}

/// Counts something as in flight until dropped.
struct InFlight<F: FnMut(&mut World)> {
    shared: Shared,
    over: F,
}

impl<F: FnMut(&mut World)> Drop for InFlight<F> {
    fn drop(&mut self) {
        (self.over)(&mut self.shared.lock());
    }
}

impl Outside for Shared {
    type Body = Pieces;

    async fn attempt(&self, lane: LaneId, call: Call<'_>) -> Attempt<Pieces> {
        let number = people::number_in(call.path_and_query);
        let mut fate = self.lock().called(number, lane);
        self.check();
        let over = |world: &mut World| world.hung_up(lane);
        let _in_flight = InFlight { shared: self.clone(), over };
        if fate.what == Does::Panics {
            resume_unwind(Box::new("as planned"));
        }
        if fate.what != Does::Unreachable {
            let body = call.body.collect().await.map(http_body_util::Collected::to_bytes);
            let expected = if self.lock().life(number).expect("it is called").call.long {
                LONG_BODY
            } else {
                SHORT_BODY
            };
            match body {
                Ok(body) if body.len() == expected => {}
                Ok(_) => self.broken(&format!("call {number} left with another body")),
                // A part of it could not be read; what left has left.
                Err(_) => fate = self.lock().broke_off(number, fate),
            }
        }
        sleep(fate.after).await;
        let attempt = match fate.what {
            Does::Unreachable => Attempt::NotSent,
            Does::Times => {
                tokio::time::sleep(PATIENCE).await;
                Attempt::NoAnswer(NoAnswer::Timeout)
            }
            Does::Breaks | Does::Panics => Attempt::NoAnswer(NoAnswer::Broken),
            Does::Answers(status) => answer(status, None, 1, 20, false),
            Does::Asks(status, seconds) => answer(status, Some(seconds), 1, 20, false),
            Does::Long(status) => answer(status, None, 5, CHUNK_BYTES / 2, false),
            Does::TooLarge(status) => answer(status, None, 5, CHUNK_BYTES, false),
            Does::BreaksOff(status) => answer(status, None, 3, CHUNK_BYTES, true),
        };
        let mut world = self.lock();
        let life = world.life(number).expect("it was called");
        life.ended.push((fate, chance::steady()));
        attempt
    }

    // An errand may be dropped, so every life must end well without one: here none has any.
    fn prepare(&self, _: &Arc<Message>) -> Option<Errand> {
        None
    }

    async fn deliver(&self, uri: &WebhookUri, message: &Message) -> DeliveryOutcome {
        let host = people::host_in(uri.expose());
        let (number, receipt) = self.lock().rung(uri.expose(), message);
        self.check();
        let over = |world: &mut World| {
            world.ringing -= 1;
            *world.ringing_at.entry(host).or_default() -= 1;
            *world.ringing_in.entry(people::zone_of(host)).or_default() -= 1;
        };
        let _in_flight = InFlight { shared: self.clone(), over };
        let failed = |why| DeliveryOutcome::Failed { why };
        sleep(receipt.after).await;
        let outcome = match receipt.what {
            Hears::Well => DeliveryOutcome::Delivered { status: 204 },
            Hears::Status(status) => failed(DeliveryFailure::HttpStatus(status)),
            Hears::Times => failed(DeliveryFailure::Timeout),
            Hears::Denied => failed(DeliveryFailure::AddressDenied("private")),
            Hears::Panics => failed(DeliveryFailure::Broken),
        };
        if let Some(life) = self.lock().life(number) {
            life.heard.push((receipt, chance::steady()));
        }
        if receipt.what == Hears::Panics {
            resume_unwind(Box::new("as planned"));
        }
        outcome
    }
}

impl Shared {
    fn check(&self) {
        if self.lock().broken.is_some() {
            self.dead.notify_one();
        }
    }
}

fn answer(
    status: u16,
    retry_after: Option<u32>,
    pieces: usize,
    bytes: usize,
    breaks: bool,
) -> Attempt<Pieces> {
    let mut head = Response::builder().status(status);
    if let Some(seconds) = retry_after {
        head = head.header("retry-after", seconds);
    }
    let (head, ()) = head.body(()).expect("a status and a number").into_parts();
    let body = Pieces { left: (0..pieces).map(|_| Bytes::from(vec![b'x'; bytes])).collect(), breaks };
    Attempt::Answered(Answer::new(head, body, PATIENCE, Instant::now() + PATIENCE))
}

impl World {
    /// An attempt begins.
    fn called(&mut self, number: u32, lane: LaneId) -> Fate {
        let house = self.plan.house.clone();
        let places = &mut self.places[lane.0];
        places.calling += 1;
        let calling = places.calling;
        if calling >= house.apis[lane.0].concurrency {
            places.free_since = None;
        }
        self.audit_these(|life| life.call.number == number);
        let life = self.life(number).expect("nobody else has tasks here");
        let mut fate = life.fate(life.tried);
        if let Some(trouble) = house.trouble(Who::Api(life.call.api), chance::age()) {
            fate.what = if trouble.hangs { Does::Times } else { Does::Unreachable };
        }
        let wrong = if usize::from(life.call.api) != lane.0 {
            Some(format!("is sent to upstream {}", lane.0))
        } else if calling > house.apis[lane.0].concurrency {
            Some(format!("is in flight with {calling} in all"))
        } else {
            may_be_called(life, &house)
        };
        life.tried += 1;
        if fate.what != Does::Unreachable {
            life.sent.push(fate);
        }
        if let Some(wrong) = wrong {
            let kept = life.kept.clone();
            self.breaks(&format!("call {number} {wrong}: {kept:?}"));
        }
        fate
    }

    /// An attempt is over.
    fn hung_up(&mut self, lane: LaneId) {
        let places = &mut self.places[lane.0];
        places.calling -= 1;
        places.free_since.get_or_insert_with(chance::steady);
    }

    /// The node could not go on sending.
    fn broke_off(&mut self, number: u32, fate: Fate) -> Fate {
        let fate = Fate { what: Does::Breaks, ..fate };
        let life = self.life(number).expect("it was called");
        *life.sent.last_mut().expect("it was sent") = fate;
        fate
    }

    /// A delivery attempt begins.
    fn rung(&mut self, uri: &str, message: &Message) -> (u32, Receipt) {
        let (host, zone) = (people::host_in(uri), people::zone_of(people::host_in(uri)));
        self.ringing += 1;
        *self.ringing_at.entry(host).or_default() += 1;
        *self.ringing_in.entry(zone).or_default() += 1;
        let index = *self.by_seq.get(&message.id.seq()).expect("nobody else has tasks here");
        let number = self.lives[index].call.number;
        self.audit_these(|life| life.call.number == number);
        let house = self.plan.house.clone();
        let too_many = self.ringing > house.webhook_concurrency
            || self.ringing_at[&host] > house.per_host
            || self.ringing_in[&zone] > share_of_a_zone(&house);
        let life = &mut self.lives[index];
        let mut receipt = life.receipt(life.rung);
        if house.trouble(Who::Host(host), chance::age()).is_some() {
            receipt = Receipt { after: 10_000, what: Hears::Times };
        }
        let wrong = if too_many {
            Some("more deliveries than places")
        } else if life.call.webhook_uri().as_deref() != Some(uri) {
            Some("rings at somebody else's receiver")
        } else {
            may_be_rung(life, message)
        };
        life.rung += 1;
        if let Some(wrong) = wrong {
            let said = String::from_utf8_lossy(&message.body).into_owned();
            let kept = life.kept.clone();
            self.breaks(&format!("the webhook of call {number}: {wrong}: {kept:?}, {said}"));
        }
        (number, receipt)
    }
}

/// How many deliveries may be in flight in one zone, as the program promises: when each came, it found
/// at least as many places free as its zone held with it.
fn share_of_a_zone(house: &House) -> usize {
    let total = house.webhook_concurrency;
    if house.per_host >= total { total } else { total.div_ceil(3).max(1) }
}

/// What is wrong with an attempt that begins now.
fn may_be_called(life: &Life, house: &House) -> Option<String> {
    let done = |what: &Does| match what {
        // Of an answer that is too long the status came first.
        Does::Answers(status) | Does::Asks(status, _) | Does::Long(status) | Does::TooLarge(status) => {
            !does_nothing(*status)
        }
        Does::Unreachable => false,
        Does::Times | Does::Breaks | Does::BreaksOff(_) | Does::Panics => true,
    };
    if !life.repeatable(house) && life.sent.iter().any(|fate| done(&fate.what)) {
        return Some(String::from("is sent again although it may be done"));
    }
    if life.cancelled {
        return Some(String::from("is sent although it was cancelled"));
    }
    // Whoever lost its lease cannot know; the store does.
    if life.taken > 0 {
        return None;
    }
    let Kept::Waiting(kept) = &life.kept else { return Some(String::from("is sent and does not wait")) };
    let tried = kept.attempts + life.tried_in_vain;
    if life.tried != tried {
        return Some(format!("was tried {} times, not {tried}", life.tried));
    }
    let begun = if life.repeatable(house) { 0 } else { kept.attempts + 1 };
    if kept.started != begun {
        return Some(String::from("is sent before that is written down, or needlessly is"));
    }
    let now = chance::steady();
    (kept.lease == 0 || now < kept.due_at || now >= kept.deadline)
        .then(|| format!("is sent at the wrong time, {now}"))
}

/// What is wrong with a delivery attempt that begins now.
fn may_be_rung(life: &mut Life, message: &Message) -> Option<&'static str> {
    let Kept::Final(kept) = &life.kept else { return Some("rings before there is a result") };
    let said: Value = serde_json::from_slice(&message.body).expect("a webhook is JSON");
    let text = |field: &str| said[field].as_str().map(str::to_owned);
    let results = format!("https://node.example/a{}/results/{}", life.call.api, message.id);
    if text("results_uri") != Some(results) {
        return Some("tells where another task's results are");
    }
    let story = (text("status").unwrap_or_default(), text("error"));
    let status = if kept.failure.is_none() { "Succeeded" } else { "Failed" };
    if story.0 != status || story.1 != kept.failure {
        return Some("does not say what the result says");
    }
    if *life.story.get_or_insert_with(|| story.clone()) != story {
        return Some("tells two stories");
    }
    if life.taken > 0 {
        return None;
    }
    let Some(delivery) = &kept.delivery else { return Some("is not owed") };
    if life.rung != delivery.tries + life.rung_in_vain {
        return Some("counts its tries wrong");
    }
    (delivery.lease == 0 || chance::steady() < delivery.due_at).then_some("rings at the wrong time")
}
