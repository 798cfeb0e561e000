//! Octets in, octets out: the gateway between a client and an origin that write whatever they like.
//!
//! The names say where a rule comes from: the section of an RFC, or the advisory about somebody
//! who did not keep to it. Most cases are a line in a table, and a test each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests, too

mod bodies;
mod connections;
mod fields;
mod floods;
mod frames;
#[allow(dead_code)] // the other user of it uses all
#[path = "../serve/gateway.rs"]
mod gateway;
mod heads;
mod http2;
mod http2_bodies;
mod http2_ends;
mod http2_flow;
mod http2_origins;
mod identity;
mod large;
mod methods;
mod parser;
mod reply;
mod responses;
mod targets;
mod trailers;
mod upgrades;
mod world;
