//! I/O of the servers and clients of mesh-ingress: buffers that idle connections do not hold, connections, a
//! timer that is cheap to move, and bodies that pass through the kernel.
//!
//! # Why
//!
//! A proxy spends its time between two sockets. hyper keeps a buffer, a task and a timer for each
//! connection; here a connection owns them only while there is something in them, and what the
//! connections of a thread need one after the other is the same memory.
//!
//! | type | is |
//! |---|---|
//! | [`ReadBuf`] | bytes that have been read; its capacity follows the traffic |
//! | [`WriteBuf`] | a queue of heads, frames and pieces of bodies, written with one system call |
//! | [`Conn`] | a TCP socket, or any other stream |
//! | [`TryWrite`] | small writes that do not ask the runtime first |
//! | [`LazyTimer`] | a timer whose deadline mostly moves away |
//! | [`splice`] | bodies that pass from socket to socket in the kernel |
//! | [`upgrade`] | hand-over of a connection that has switched to another protocol |
//! | [`coop`] | what a pending poll means under tokio's cooperative budget |
//!
//! ```
//! use std::future::poll_fn;
//! use mesh_ingress_io::{MAX_READ, ReadBuf, WriteBuf};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let (mut client, mut server) = tokio::io::duplex(1024);
//! let mut out = WriteBuf::default();
//! out.begin().extend_from_slice(b"ping");
//! poll_fn(|cx| out.poll_write(&mut client, cx)).await?;
//!
//! let mut buf = ReadBuf::new(MAX_READ);
//! assert_eq!(poll_fn(|cx| buf.poll_fill(&mut server, cx)).await?, 4);
//! assert_eq!(&buf.bytes()[..], b"ping");
//! # std::io::Result::Ok(())
//! # }).unwrap();
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod conn;
pub mod coop;
mod lazy_timer;
mod read_buf;
mod spare;
pub mod splice;
mod try_write;
pub mod upgrade;
mod write_buf;

pub use self::conn::{Conn, Stream};
pub use self::lazy_timer::LazyTimer;
pub use self::read_buf::ReadBuf;
pub use self::try_write::TryWrite;
pub use self::write_buf::{Flushed, WriteBuf};

/// The most that is read at once from a connection, and so the most that waits in memory of one body:
/// 416 KiB, what one read of a large body on loopback brings.
pub const MAX_READ: usize = 416 * 1024;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
