//! What a client connection and the calls on it tell each other, past the HTTP library between them.
//!
//! Calls are numbered from 1 in the order of their heads, so both sides mean the same call. Only
//! HTTP/1.1 needs any of it: over HTTP/2 calls have frames of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use http::{HeaderMap, StatusCode};

use crate::gateway::refusal::{Form, Refusal};

/// Informational responses waiting to be written; more are dropped, they are only hints.
const MAX_INFORMATIONAL: usize = 16 * 1024;

/// One connection's notes.
#[derive(Default)]
pub struct Wire {
    notes: Mutex<Notes>,
    /// The task that drives the connection.
    driver: AtomicWaker,
    reset: AtomicBool,
}

#[derive(Default)]
struct Notes {
    refused: Option<(u64, Refusal, Form)>,
    /// The connection reads nothing more until it knows what became of a call.
    held: bool,
    answered: Option<Answered>,
    informational: Option<Waiting>,
}

#[derive(Clone, Copy)]
struct Answered {
    call: u64,
    tunnel: bool,
}

struct Waiting {
    call: u64,
    bytes: Vec<u8>,
}

/// Where the informational responses of one call go.
pub struct Informational {
    wire: Arc<Wire>,
    call: u64,
}

impl Informational {
    #[must_use]
    pub fn new(wire: Arc<Wire>, call: u64) -> Self {
        Self { wire, call }
    }

    /// Sends one before the final response, unless that is on its way already.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        self.wire.inform(self.call, status, headers);
    }
}

/// What became of a call that the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Waiting,
    /// Answered; the connection stays HTTP.
    Http,
    /// Answered with 101; the rest is a tunnel.
    Tunnel,
}

impl Wire {
    /// For the call: how it has to be answered, where its head was not fit to be read.
    #[must_use]
    pub fn refusal(&self, call: u64) -> Option<(Refusal, Form)> {
        let notes = self.notes();
        let refused = notes.refused.as_ref().filter(|(refused, ..)| *refused == call);
        refused.map(|(_, refusal, form)| (refusal.clone(), *form))
    }

    fn inform(&self, call: u64, status: StatusCode, headers: &HeaderMap) {
        let mut bytes =
            format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default())
                .into_bytes();
        for (name, value) in headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        let mut notes = self.notes();
        if notes.answered.is_some_and(|answered| answered.call >= call) {
            return;
        }
        let waiting = notes.informational.get_or_insert_with(|| Waiting { call, bytes: Vec::new() });
        if waiting.bytes.len() + bytes.len() <= MAX_INFORMATIONAL {
            waiting.call = call;
            waiting.bytes.append(&mut bytes);
        }
        drop(notes);
        self.driver.wake();
    }

    /// For the call: its final response is about to be handed to the HTTP library.
    pub fn answered(&self, call: u64, tunnel: bool) {
        let mut notes = self.notes();
        notes.answered = Some(Answered { call, tunnel });
        // Only then: the driver is what runs the call, and would run once more for nothing.
        let held = std::mem::take(&mut notes.held);
        drop(notes);
        if held {
            self.driver.wake();
        }
    }

    /// For the call: the end of the connection must not look like the end of a body.
    pub fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    pub(super) fn refuse(&self, call: u64, refusal: Refusal, form: Form) {
        self.notes().refused = Some((call, refusal, form));
    }

    /// What became of `call`; wakes the driver when that changes.
    pub(super) fn verdict(&self, call: u64, driver: &Waker) -> Verdict {
        self.driver.register(driver);
        let mut notes = self.notes();
        match notes.answered {
            Some(answered) if answered.call >= call && answered.tunnel => Verdict::Tunnel,
            Some(answered) if answered.call >= call => Verdict::Http,
            _ => {
                notes.held = true;
                Verdict::Waiting
            }
        }
    }

    /// Bytes to write now, at the beginning of something the HTTP library writes; wakes the driver
    /// when there are some later.
    pub(super) fn take_informational(&self, driver: &Waker) -> Vec<u8> {
        self.driver.register(driver);
        self.notes().informational.take().map(|waiting| waiting.bytes).unwrap_or_default()
    }

    /// Something written just ended. What waits for a call that was answered meanwhile comes too late.
    pub(super) fn drop_late_informational(&self) {
        let mut notes = self.notes();
        let answered = notes.answered.map_or(0, |answered| answered.call);
        if notes.informational.as_ref().is_some_and(|waiting| waiting.call <= answered) {
            notes.informational = None;
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
