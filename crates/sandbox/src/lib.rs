//! A mock open-banking bank and a webhook inbox, to try Ringback against without a real bank.
//!
//! Both are servers that own nothing but what they are given: a bound socket, a future that says when
//! to stop and, for the bank, a directory for its key. They know nothing of Ringback and listen where
//! the caller says; neither ever connects to anything.
//!
//! # The bank
//! * `GET /data/v1/…`: the Data API, version 1, without batch.
//! * `POST /connect/token` ([`TOKEN_PATH`]): `authorization_code` with the mock user's name as `code`,
//!   or `refresh_token`; form or JSON. `scope` narrows, `expires_in` (seconds) shortens.
//! * [`JWKS_PATH`], `/.well-known/jwks.json`, `/.well-known/openid-configuration`: how to verify tokens.
//! * `GET /calls`: the last 10,000 data calls, oldest first, as `[{"user", "method", "path", "query",
//!   "time", "status"}]`; `status` is `null` while a call is unanswered, and stays so if the caller left.
//!
//! The user's name decides how the bank behaves: `error.<code>` always fails with that code, `flaky`
//! fails each distinct request twice, `slow` takes 8 seconds, `limited` refuses each distinct request
//! once with 429, `broken` cuts every answer in mid-body. Every other name works.
//!
//! # The inbox
//! Takes any request on any path, except its own pages: `GET /` for people and `GET /deliveries` for
//! programs. The query of a webhook URI gives orders: `fail=2` refuses the first two tries of each
//! webhook with 503, `status=410` answers that, `delay=2s` (or `500ms`, or plain seconds) waits first.

mod bank;
mod inbox;
mod journal;
mod server;
mod tally;

pub use bank::{AUDIENCE, Bank, BankError, ISSUER, JWKS_PATH, TOKEN_PATH};
pub use inbox::Inbox;
