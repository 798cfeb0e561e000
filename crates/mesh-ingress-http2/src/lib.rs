//! HTTP/2 (RFC 9113, RFC 7541) on the wire, for whoever owns the connection: how frames and fields
//! are read and written towards clients. No task, no socket and no policy: what is here turns bytes
//! into messages and back, and who calls it decides when.
//!
//! | | reading | writing |
//! |---|---|---|
//! | frames | [`frame::Head`] | [`frame`] |
//! | requests and their trailers | [`request`] | – |
//! | responses and their trailers | – | [`response::Writer`] |
//! | fields | [`hpack::Decoder`] | with the response |
//!
//! * **Few instructions**: a field in the table is read once, when it comes, and shares its bytes
//!   with every request that refers to it. What goes out refers to the static table only, and is
//!   squeezed where that makes it shorter.
//! * **Little memory**: a connection holds what its client put into the table, 4 KiB at most.
//! * **Strict**: what RFC 9113 calls malformed is told apart from what breaks the connection, with
//!   the reason in words.
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

/// The examples of the README are tests, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
