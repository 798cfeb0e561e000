//! HTTP/2 towards clients.
//!
//! hyper and h2 do the same work with a task for each stream, a lock for the connection, and queues
//! between them. Here one task reads frames, polls the answers, and writes what they bring in one
//! go: a small request costs half of the instructions, and what a client may cost is in sight.

mod beat;
mod connection;
mod flood;
mod frames;
mod idle;
mod pulse;
mod requests;
mod signals;
mod stream;
mod streams;
mod tunnel;
mod upload;

use std::error::Error;
use std::pin::Pin;
use std::time::Duration;

use mesh_ingress::MeshConnection;
use mesh_ingress_http2::Reason;
use mesh_ingress_io::{Conn, ReadBuf};

use self::connection::Connection;
use crate::phase::{Notice, Served, drive};

/// Streams a client may have open.
const MAX_STREAMS: usize = 250;
/// What a client may send of one body before somebody reads it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same, of all its bodies.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves a connection on which HTTP/2 was begun to be spoken, to its end. Without an `idle_timeout`
/// a client may stay for as long as it likes, whether it asks for something or not.
pub(crate) async fn serve(
    stream: Conn,
    begun: ReadBuf,
    mesh: MeshConnection,
    notice: Pin<&mut Notice<'_, impl Future<Output = ()>>>,
    idle_timeout: Option<Duration>,
) -> Served {
    let connection = Connection::new(stream, begun, mesh, idle_timeout);
    let mut connection = Box::pin(connection);
    let shutdown = |connection: Pin<&mut Connection>| connection.get_mut().graceful_shutdown();
    match drive(connection.as_mut(), notice, shutdown).await {
        Some(Err(error)) => Served::Failed(error),
        Some(Ok(())) | None => Served::Ended,
    }
}

/// How a stream is reset whose response has broken: as the upstream has done it, if it speaks HTTP/2,
/// because gRPC tells its callers apart by that.
fn reason_of(error: &(dyn Error + 'static)) -> Reason {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    let told = causes.find_map(|error| error.downcast_ref::<h2::Error>()?.reason());
    told.map_or(Reason::INTERNAL_ERROR, |reason| {
        Reason::from(u32::from(reason))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
