//! HTTP/2 towards clients.
//!
//! hyper and h2 do the same work with a task for each stream, a lock for the connection, and queues between
//! them. Here one task reads frames, polls the responses, and writes what they bring in one system call: a
//! small request costs half of the instructions, and what a client may cost is in sight.

mod body;
mod connection;
mod frames;
mod idle_timeout;
mod keep_alive;
mod periodic;
mod ready_queue;
mod requests;
mod reset_budget;
mod send;
mod stream;
mod streams;
mod tunnel;

use std::error::Error;
use std::pin::Pin;

use mesh_ingress_core::BoxError;
use mesh_ingress_http2::Reason;
use mesh_ingress_io::{Conn, ReadBuf};

pub(crate) use self::body::Http2Body;
use self::connection::Connection;
use crate::connection::Session;
use crate::drain::{DrainNotice, drive};
use crate::service::HttpService;

/// Streams that a client may have open.
const MAX_STREAMS: usize = 250;
/// Flow-control window of each request body.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Flow-control window of all request bodies of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves an HTTP/2 connection to its end. `read_buf` holds what has been read of it, from the preface on.
#[allow(clippy::manual_async_fn)] // See `connection::serve`.
pub(crate) fn serve<S: HttpService>(
    conn: Conn,
    read_buf: ReadBuf,
    session: Box<Session<S>>,
    notice: Pin<&mut DrainNotice<'_>>,
) -> impl Future<Output = Result<(), BoxError>> + Send {
    let mut connection = Box::pin(Connection::new(conn, read_buf, session));
    async move {
        let shutdown =
            |connection: Pin<&mut Connection<S>>| connection.get_mut().graceful_shutdown();
        let served = drive(connection.as_mut(), notice, shutdown).await;
        served.unwrap_or(Ok(()))
    }
}

/// The reason with which to reset a stream whose response broke off: the upstream's own, if it speaks
/// HTTP/2, because gRPC derives the status from it.
fn reset_reason(error: &(dyn Error + 'static)) -> Reason {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    let reason = causes.find_map(|error| error.downcast_ref::<h2::Error>()?.reason());
    reason.map_or(Reason::INTERNAL_ERROR, |reason| {
        Reason::from(u32::from(reason))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
