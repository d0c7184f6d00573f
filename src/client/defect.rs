//! A defect on purpose, for the test that nothing secret is in a panic. Not in a release.

use std::sync::LazyLock;

use http::{HeaderMap, Request, Uri};

use super::Body;

/// Names the path of requests whose sending panics.
const VARIABLE: &str = "RINGBACK_PANIC_AT";

static PATH: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(VARIABLE).ok());

/// Panics as code would that takes a hostile value for a good one: the message holds all of the head.
pub(super) fn act_as_if(request: &Request<Body>) {
    judge(request).expect("as if by a defect");
}

fn judge(request: &Request<Body>) -> Result<(), (&Uri, &HeaderMap)> {
    let is_named = PATH.as_deref() == Some(request.uri().path());
    if is_named { Err((request.uri(), request.headers())) } else { Ok(()) }
}
