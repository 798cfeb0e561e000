//! HTTP/1.1 towards clients.
//!
//! hyper's server does the same work, behind a connection that hides its octets, its timers and its
//! socket. Here they are in sight: what a client sends is read strictly before anything is made of
//! it, a request's body is read by the task that sends it on, a connection that is idle keeps little
//! more than its socket, and a small request costs fewer instructions.

mod body;
mod connection;
mod patience;
mod wire;

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use mesh_ingress::MeshConnection;
use mesh_ingress_io::upgrade::Upgraded;
use mesh_ingress_io::{Conn, ReadBuf};

use self::connection::{Connection, Rested};
use self::patience::Patience;
pub(crate) use self::wire::{BUFFER, LIMITS};
use self::wire::{Shared, Wire};
use crate::phase::{Notice, Served, drive, elapsed};

/// Serves a connection on which HTTP/1 was begun to be spoken, to its end. Without a `head_timeout`
/// a client may take forever for the head of a request, and between requests.
pub(crate) async fn serve(
    stream: Conn,
    begun: ReadBuf,
    mesh: MeshConnection,
    mut notice: Pin<&mut Notice<'_, impl Future<Output = ()>>>,
    head_timeout: Option<Duration>,
) -> Served {
    let mut wire = Shared::new(Wire::new(stream, begun));
    loop {
        // In a box of its own: of the many connections that have nothing to do most of the time,
        // little more than the socket is to be kept then.
        let rested = {
            let connection = Connection::new(&mut wire, &mesh, notice.stop(), head_timeout);
            let mut connection = Box::pin(connection);
            let shutdown = Connection::graceful_shutdown;
            drive(connection.as_mut(), notice.as_mut(), shutdown).await
        };
        match rested {
            None | Some(Rested::Ended) => return Served::Ended,
            Some(Rested::Failed(error)) => return Served::Failed(error),
            Some(Rested::Switched(switch)) => {
                // Nobody else has it: the request is complete.
                let Some(wire) = wire.into_inner() else {
                    tracing::debug!("client connection: not switched, it is still read from");
                    return Served::Ended;
                };
                return match wire.switched() {
                    Ok((stream, early)) => {
                        switch.send(Upgraded::new(stream, early));
                        Served::Ended
                    }
                    Err(refused) => Served::Failed(refused.into()),
                };
            }
            Some(Rested::Idle) => wire.lock().rest(),
        }
        tokio::select! {
            biased;
            _ = poll_fn(|cx| wire.lock().stream.poll_read_ready(cx)) => {}
            () = elapsed(Patience::left(head_timeout)) => return Served::Ended,
            () = notice.as_mut().given() => return Served::Ended,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
