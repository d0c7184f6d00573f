//! A call without `async` goes through as if nobody stood in between.

mod bodies;
mod connections;
mod headers;
mod protocols;
