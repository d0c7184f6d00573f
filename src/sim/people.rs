//! Clients: they call, wait, and cancel, as the gateway does for them.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use prometheus_client::metrics::counter::Counter;

use super::chance::{self, Dice};
use super::life::{Kept, Told};
use super::plan::Call;
use super::world::{Shared, ring};
use crate::clock::Clock;
use crate::guard::Receiver;
use crate::header_block;
use crate::id::TaskId;
use crate::seal::{CHUNK_BYTES, Column, Place, Sealed};
use crate::secret::Secret;
use crate::store::{
    Accepted, Cancelled, Carried, Cutoffs, Found, LaneId, NewTask, Repeatable, Settled, Store, StoreError,
    TaskFacts,
};
use crate::task::{FinalStatus, Progress};
use crate::watch::Watches;
use crate::worker::Workshop;

const WHO: &str = "jane";

pub(super) const SHORT_BODY: usize = 10;
pub(super) const LONG_BODY: usize = 2 * CHUNK_BYTES + 10;

/// The call that an upstream's path names.
pub(super) fn number_in(path: &str) -> u32 {
    path.trim_start_matches('/').parse().expect("paths are numbers here")
}

/// The name of an upstream.
pub(super) fn name_of(api: u8) -> String {
    format!("api{api}")
}

impl Call {
    /// Receivers share hosts, and hosts share zones.
    pub(super) fn webhook_uri(&self) -> Option<String> {
        let host = self.host?;
        Some(format!("https://r{host}.z{}.example/{}", zone_of(host), self.number))
    }
}

/// The host that a webhook URI names.
pub(super) fn host_in(uri: &str) -> u8 {
    let host = uri.strip_prefix("https://r").and_then(|rest| rest.split('.').next());
    host.and_then(|number| number.parse().ok()).expect("hosts are numbers here")
}

/// Where whoever is behind a host may have others.
pub(super) fn zone_of(host: u8) -> u8 {
    host % 2
}

/// What clients have of the node.
#[derive(Clone)]
pub(super) struct Front {
    pub shared: Shared,
    pub store: Store,
    pub clock: Clock,
    pub watches: Arc<Watches>,
}

impl Front {
    pub(super) fn of(workshop: &Workshop<Shared>) -> Self {
        Self {
            shared: workshop.outside.clone(),
            store: workshop.store.clone(),
            clock: workshop.clock,
            watches: Arc::clone(&workshop.watches),
        }
    }

    /// Makes the call of `index` and waits for its 202.
    pub(super) async fn call(self, index: usize) {
        let (call, deadline, id) = {
            let mut world = self.shared.lock();
            let mut dice = Dice::of(world.plan.seed, 2 + u64::try_from(index).expect("few"));
            let id = self.store.ids().next(self.clock.steady(), dice.next());
            world.by_seq.insert(id.seq(), index);
            let deadline = world.plan.house.deadline;
            let life = &mut world.lives[index];
            (life.id, life.told) = (Some(id), Told::Asked);
            (life.call.clone(), deadline, id)
        };
        let watched = call.watched;
        let accepted = self.store.accept(self.task(id, &call, deadline)).await;
        let told = match accepted {
            Ok(Accepted::New) => Told::Accepted,
            Ok(Accepted::Before(id)) => Told::Before(id),
            Ok(Accepted::OtherCall) => unreachable!("a key has one call here"),
            Err(why) => {
                let bound = self.shared.lock().plan.house.keeps.map_or(0, |keeps| keeps.max_bytes);
                if matches!(why, StoreError::NoRoom) && bound == 0 {
                    self.shared.broken("there is no room in a store without a bound");
                }
                Told::Refused
            }
        };
        self.answered(index, id, told);
        self.shared.changed.notify_one();
        if watched && told == Told::Accepted {
            self.wait_for(id, call.api).await;
        }
    }

    fn answered(&self, index: usize, id: TaskId, told: Told) {
        let mut world = self.shared.lock();
        world.lives[index].told = told;
        if let Told::Before(id) = told
            && !world.lives.iter().any(|life| life.id == Some(id) && !matches!(life.told, Told::Refused))
        {
            world.breaks(&format!("call {index} repeats a call that was never made"));
        }
        world.audit_these(|life| life.id == Some(id));
    }

    fn task(&self, id: TaskId, call: &Call, deadline: u64) -> NewTask {
        let key = ring().task_key(id);
        let method = if call.post { Method::POST } else { Method::GET };
        let path = format!("/{}", call.number);
        let mut headers = HeaderMap::new();
        if call.key.is_some() {
            headers.insert("idempotency-key", HeaderValue::from_static("key"));
        }
        let whole = |column, value: &[u8]| key.seal(column, Place::WHOLE, value);
        let sealed_headers = whole(Column::RequestHeaders, &header_block::write(&headers));
        let body = Bytes::from(vec![b'b'; if call.long { LONG_BODY } else { SHORT_BODY }]);
        let pieces: Vec<_> = body.chunks(CHUNK_BYTES).collect();
        let sealed_body: Vec<Sealed> = (0..)
            .zip(&pieces)
            .map(|(index, piece)| {
                let last = usize::try_from(index).is_ok_and(|index| index + 1 == pieces.len());
                key.seal(Column::RequestBody, Place::chunk(index, last), piece)
            })
            .collect();
        let webhook_uri = call.webhook_uri();
        let sealed_uri = webhook_uri.as_ref().map(|uri| whole(Column::WebhookUri, uri.as_bytes()));
        let (accepted_at, now) = (self.clock.wall(), self.clock.steady());
        let who: Arc<str> = Arc::from(WHO);
        let facts = TaskFacts {
            id,
            credentials_id: Arc::clone(&who),
            method: method.clone(),
            path: path.clone(),
            query: None,
            receiver: webhook_uri.map(|uri| Receiver::Stored(Secret::new(uri))),
            accepted_at,
        };
        // As the gateway does: large bodies are read back.
        let carried = (!call.long).then(|| Box::new(Carried { task: facts, headers, body, key: Some(key) }));
        NewTask {
            id,
            lane: LaneId(call.api.into()),
            credentials_id: who,
            method,
            path,
            query: None,
            webhook_uri: sealed_uri,
            headers: sealed_headers,
            body: sealed_body,
            accepted_at,
            now,
            deadline: now.after(std::time::Duration::from_millis(deadline)),
            // A key is one upstream's.
            repeatable: call.key.map(|key| {
                let key = [key * 16 + call.api; 32];
                Box::new(Repeatable { key, call: key })
            }),
            carried,
            buffered: None,
            accepted: Counter::default(),
        }
    }

    async fn find(&self, id: TaskId, api: u8) -> Option<Option<Found>> {
        self.store.find(Some(id), &name_of(api), WHO).await.ok()
    }

    /// As `Prefer: wait` does.
    async fn wait_for(&self, id: TaskId, api: u8) {
        let Some(mut waiter) = self.watches.wait_for(id.seq()) else { return };
        self.shared.lock().waiting += 1;
        if matches!(self.find(id, api).await, Some(Some(Found::Waiting(_)))) {
            while !waiter.next().await.is_final() {}
            if matches!(self.find(id, api).await, Some(Some(Found::Waiting(_)))) {
                self.shared.broken(&format!("{id} was told to be final before a reader could see it"));
            }
        }
        self.shared.lock().waiting -= 1;
        self.shared.changed.notify_one();
    }

    /// As `DELETE` on a result does.
    pub(super) async fn cancel(self, number: u32) {
        let id = {
            let mut world = self.shared.lock();
            let Some(life) = world.life(number).filter(|life| life.told == Told::Accepted) else { return };
            life.cancel_asked = true;
            life.id.expect("accepted")
        };
        let Ok(cancelled) = self.store.cancel(id.seq(), self.clock.steady()).await else { return };
        if cancelled == Cancelled::Task {
            self.watches.tell(id.seq(), Progress::ended(FinalStatus::Failed, 0));
        }
        let mut world = self.shared.lock();
        world.audit_these(|life| life.id == Some(id));
        let life = world.life(number).expect("it was there");
        let cancelled_now = cancelled == Cancelled::Task;
        let was = life.kept.clone();
        let as_told = match &was {
            Kept::Final(end) if cancelled_now => end.failure.as_deref() == Some("cancelled"),
            Kept::Final(_) | Kept::Expired => !cancelled_now,
            Kept::Nothing => life.gone,
            Kept::Waiting(_) => false,
        };
        life.cancelled |= cancelled_now;
        if !as_told {
            world.breaks(&format!(
                "call {number} was cancelled, which was answered with {cancelled:?}: {was:?}"
            ));
        }
    }

    /// Gives back what somebody else holds.
    pub(super) async fn take_lease(self, number: u32) {
        let (seq, kept) = {
            let mut world = self.shared.lock();
            world.audit_these(|life| life.call.number == number);
            let Some(life) = world.life(number) else { return };
            let Some(id) = life.id else { return };
            life.taken += 1;
            (id.seq(), life.kept.clone())
        };
        let now = self.clock.steady();
        let lease = |lease| crate::lease::LeaseToken::from_stored(lease);
        let settled = match kept {
            Kept::Waiting(waiting) => match lease(waiting.lease) {
                Some(lease) => self.store.release_task(seq, lease, now).await,
                None => return,
            },
            Kept::Final(end) => match end.delivery.and_then(|delivery| lease(delivery.lease)) {
                Some(lease) => self.store.release_delivery(seq, lease, now).await,
                None => return,
            },
            Kept::Nothing | Kept::Expired => return,
        };
        drop::<Result<Settled, StoreError>>(settled);
    }

    /// Removes results and tasks that are older than `age`.
    pub(super) async fn purge(self, age: i64) {
        let before = crate::clock::Timestamp(chance::steady() - age);
        {
            let mut world = self.shared.lock();
            for life in world.lives.iter_mut().filter(|life| life.id.is_some()) {
                life.purged_before = life.purged_before.max(before.0);
            }
        }
        let cutoffs = Cutoffs { results: before, tasks: before, keys: crate::clock::Timestamp(0) };
        drop(self.store.purge(cutoffs, 500).await);
    }
}
