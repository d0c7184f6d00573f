//! The data calls the bank has seen, so that a test can count them: `GET /calls`.

use serde::Serialize;

use crate::journal::Journal;

const CALLS_MAX: usize = 10_000;
const BYTES_MAX: usize = 16 << 20;

/// One call. Its token is never kept.
#[derive(Clone, Serialize)]
pub(crate) struct Call {
    /// `None`: the call carried no token of this bank that is still valid.
    pub(crate) user: Option<String>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    /// When it arrived.
    pub(crate) time: String,
    /// `None`: not answered yet, or the caller did not wait.
    pub(crate) status: Option<u16>,
}

impl Call {
    pub(crate) fn bytes(&self) -> usize {
        let texts = [&self.method, &self.path, &self.time].into_iter().chain(&self.user).chain(&self.query);
        texts.map(String::len).sum::<usize>() + size_of::<Self>()
    }
}

pub(crate) fn journal() -> Journal<Call> {
    Journal::new(CALLS_MAX, BYTES_MAX)
}
