//! The gateway over real sockets: raw clients before it, scripted upstreams behind it.

mod bounded;
mod framed;
mod frames;
mod guarded;
mod http2;
mod late_heads;
mod odd_upstreams;
mod proxied;
mod raw_http2;
mod refused;
mod served;
mod strict;
mod support;
