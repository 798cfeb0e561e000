//! HTTP/1.1 (RFC 9112) on the wire, for whoever owns the connection: how heads and bodies are read
//! and written, towards clients and towards upstreams. No task, no channel and no policy: what is
//! here turns octets into messages and back, and who calls it decides when.
//!
//! | | reading | writing |
//! |---|---|---|
//! | requests | [`request::take`] | [`request::write`] |
//! | responses | [`response::take`] | [`response::write`] |
//! | bodies and trailers | [`Decoder`] | [`Framing`] |
//! | octets | [`Inbox`] | [`Outbox`], [`Direct`] |
//!
//! * **Few instructions**: fields share the octets they were read from, a head and the body behind
//!   it go out in one system call, and maps are used again.
//! * **Little memory**: an [`Inbox`] reads to memory of its thread, and a connection has a buffer
//!   only while there is something in it. What is read, and sent on, stays in the processor's cache.
//! * **Strict**: httparse knows the grammar; what it lets pass and others read differently (bare
//!   LF, padded chunk sizes, endless extensions) is refused here, or before, by a
//!   [`RequestGuard`](mesh_ingress_headers::guard::RequestGuard).
//! * **Bounded** by [`Limits`]. A head, or the line of a chunk, is read from its beginning each time:
//!   who gets it in small pieces asks again when a line end has come.
//!
//! ```
//! use bytes::BytesMut;
//! use http::HeaderMap;
//! use mesh_ingress_http1::{Decoder, Limits, request};
//!
//! let limits = Limits { octets: 64 * 1024, fields: 100 };
//! let mut octets = BytesMut::from(
//!     "POST /cart HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 5\r\n\r\nhello",
//! );
//! let head = request::take(&mut octets, limits, &mut HeaderMap::new())?.unwrap();
//! assert_eq!(head.request.uri(), "/cart");
//! assert_eq!(head.body, Decoder::Length(5));
//! assert_eq!(octets, "hello");
//! # Ok::<(), mesh_ingress_http1::Malformed>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod decoder;
mod direct;
mod fields;
mod framing;
mod inbox;
mod malformed;
mod outbox;
pub mod request;
pub mod response;

pub use self::decoder::{Chunk, Decoder};
pub use self::direct::Direct;
pub use self::fields::Limits;
pub use self::framing::Framing;
pub use self::inbox::Inbox;
pub use self::malformed::Malformed;
pub use self::outbox::Outbox;

/// The examples of the README are tests, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
