//! The real-parts suite: the gateway among the real software it is meant for — Debian's dnsmasq,
//! nginx and haproxy, curl, h2load and wrk, and Envoy as an origin and set up as an Istio sidecar
//! behind a real iptables redirect.
//!
//! Needs root, network namespaces and the programs `.ci/install-real-parts` installs; where they
//! are missing the tests fail and say so. Every test runs in network namespaces of its own, so tests
//! neither meet each other nor the host.
//!
//! ```text
//! .ci/install-real-parts
//! cargo test -p mesh-ingress-gateway --features real-parts --test real_parts
//! ```
// A lab that cannot be set up is a failed test, which is what a panic makes of it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod lab;
mod mesh;

mod bad_input;
mod dns_and_nginx;
mod dns_recovery;
mod matrix;
mod mesh_awareness;
mod mesh_contract;
mod mesh_modes;
mod mesh_outages;
mod mesh_verdict;
mod resolver;
mod streaming;
