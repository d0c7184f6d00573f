//! A defect on purpose, for the test that nothing secret is in a panic. Not in a release.

use std::sync::LazyLock;

use http::Request;

use super::Body;

/// Names the path of requests whose sending panics.
const VARIABLE: &str = "RINGBACK_PANIC_AT";

static PATH: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(VARIABLE).ok());

/// Panics as code would that takes a hostile value for a good one: the message holds all of the head.
pub(super) fn act_as_if(request: &Request<Body>) {
    if PATH.as_deref() == Some(request.uri().path()) {
        let refused: Result<(), _> = Err((request.uri(), request.headers()));
        refused.expect("as if by a defect");
    }
}
