//! A codec of HTTP/2 (RFC 9113, RFC 7541) for servers: reads and writes frames and field sections. It
//! has no task, no socket and no policy: it turns bytes into messages and back, and its caller owns
//! the connection.
//!
//! | | reading | writing |
//! |---|---|---|
//! | frames | [`frame::FrameHeader`] | [`frame`] |
//! | requests and their trailers | [`request`] | – |
//! | responses and their trailers | – | [`response::Writer`] |
//! | fields | [`hpack::Decoder`] | with the response |
//!
//! * **Few instructions**: a field in the dynamic table is parsed once, when it is inserted, and shares
//!   its bytes with every request that refers to it. The encoder uses the static table only, and
//!   Huffman codes where they are shorter.
//! * **Little memory**: a connection holds its client's dynamic table, at most 4 KiB.
//! * **Strict**: malformed requests (RFC 9113 §8.1.1) are told apart from connection errors, each with
//!   a reason in words.
//!
//! ```
//! use http::HeaderMap;
//! use mesh_ingress_http2::{hpack, request};
//!
//! let mut decoder = hpack::Decoder::new(4096);
//! // `GET http://www.example.com/` (RFC 7541 §C.4.1)
//! let section = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
//! let head = request::read(section, &mut decoder, 64 * 1024, &mut HeaderMap::new())??;
//! assert_eq!(head.request.uri(), "http://www.example.com/");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod frame;
pub mod hpack;
mod reason;
pub mod request;
pub mod response;

pub use self::reason::Reason;

/// Runs the examples of the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
