//! Whom the work talks to: upstreams and receivers.
//!
//! The only way out of the worker, so that a test can put a simulated world in its place. Decides
//! nothing and keeps nothing.

use std::sync::Arc;

use crate::client::Received;
use crate::guard::WebhookUri;
use crate::store::{Errand, LaneId};
use crate::upstream::{Arriving, Attempt, Call, Upstream};
use crate::webhook::{DeliveryOutcome, Message, WebhookSender};

/// Upstreams and receivers as the worker sees them.
pub trait Outside: Send + Sync + 'static {
    /// The body of an upstream's answer.
    type Body: Arriving;

    /// One exchange with the upstream of this lane.
    fn attempt(&self, lane: LaneId, call: Call<'_>) -> impl Future<Output = Attempt<Self::Body>> + Send;

    /// What can be done for a delivery attempt before its turn has come, if anything.
    fn prepare(&self, message: &Arc<Message>) -> Option<Errand>;

    /// One delivery attempt.
    fn deliver(&self, uri: &WebhookUri, message: &Message) -> impl Future<Output = DeliveryOutcome> + Send;
}

/// The network.
pub struct Network {
    /// By lane.
    pub upstreams: Vec<Arc<Upstream>>,
    pub sender: WebhookSender,
}

impl Outside for Network {
    type Body = Received;

    fn attempt(&self, lane: LaneId, call: Call<'_>) -> impl Future<Output = Attempt> + Send {
        self.upstreams[lane.0].attempt(call)
    }

    fn prepare(&self, message: &Arc<Message>) -> Option<Errand> {
        Some(Box::new(self.sender.sign_early(message)))
    }

    fn deliver(&self, uri: &WebhookUri, message: &Message) -> impl Future<Output = DeliveryOutcome> + Send {
        self.sender.deliver(uri, message)
    }
}
