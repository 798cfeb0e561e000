//! HTTP/1.1 codec (RFC 9112) of both roles: heads and bodies as bytes, towards clients and towards
//! upstreams. It does no I/O and has no task and no policy: it turns bytes into messages and back, and its
//! caller decides when.
//!
//! | | reading | writing |
//! |---|---|---|
//! | requests | [`request::parse`] | [`request::write`] |
//! | responses | [`response::parse`] | [`response::write`] |
//! | bodies and trailers | [`Decoder`] | [`Framing`] |
//!
//! * **Few instructions**: fields share the bytes they were read from, and header maps are reused.
//! * **Strict**: httparse knows the grammar. What it accepts and others read differently (bare LF, padded
//!   chunk sizes, endless extensions) is refused here, or before by a
//!   [`RequestGuard`](mesh_ingress_headers::guard::RequestGuard).
//! * **Bounded** by [`Limits`]. A head, or the line of a chunk, is parsed from its beginning each time, so
//!   a caller that reads in small pieces calls again when a line end has come.
//!
//! ```
//! use bytes::BytesMut;
//! use http::HeaderMap;
//! use mesh_ingress_http1::{Decoder, Limits, request};
//!
//! let limits = Limits { bytes: 64 * 1024, fields: 100 };
//! let mut bytes = BytesMut::from(
//!     "POST /cart HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 5\r\n\r\nhello",
//! );
//! let head = request::parse(&mut bytes, limits, &mut HeaderMap::new())?.unwrap();
//! assert_eq!(head.request.uri(), "/cart");
//! assert_eq!(head.body, Decoder::Length(5));
//! assert_eq!(bytes, "hello");
//! # Ok::<(), mesh_ingress_http1::Malformed>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod decoder;
mod fields;
mod framing;
mod malformed;
pub mod request;
pub mod response;

pub use self::decoder::{Chunk, Decoder};
pub use self::fields::Limits;
pub use self::framing::Framing;
pub use self::malformed::Malformed;

/// The examples of the README are tests, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
