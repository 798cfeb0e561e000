//! The gateway on the wire, between a client and an origin that may send any bytes.
//!
//! A test's name starts with the source of its rule: the section of an RFC, or the advisory about
//! software that broke it. Most cases are a line in a table, and a test each.
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
mod http2_streams;
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
