//! HTTP/1.1 towards clients.
//!
//! hyper's server hides its bytes, timers and socket behind a connection. Here they are in sight: what a
//! client sends is read strictly before anything is made of it, the body of a request is read by the task
//! that sends it on, an idle connection keeps little more than its socket, and a small request costs fewer
//! instructions.

mod body;
mod connection;
mod header_timeout;
mod transport;

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use mesh_ingress_core::BoxError;
use mesh_ingress_io::upgrade::Upgraded;
use mesh_ingress_io::{Conn, ReadBuf};

pub(crate) use self::body::Http1Body;
use self::connection::{Connection, ConnectionEnd};
use self::header_timeout::HeaderReadTimeout;
use self::transport::{SharedTransport, Transport};
use crate::client::Client;
use crate::connection::elapsed;
use crate::drain::{DrainNotice, drive};
use crate::service::HttpService;

/// Serves an HTTP/1 connection to its end. `read_buf` holds what has been read of it. Without a
/// `header_timeout` a client may take for ever for the head of a request, and between requests. `guard` goes
/// along with a connection that switches to another protocol.
pub(crate) async fn serve<S: HttpService>(
    conn: Conn,
    read_buf: ReadBuf,
    mut client: Client,
    mut service: S,
    mut notice: Pin<&mut DrainNotice<'_, impl Future<Output = ()>>>,
    header_timeout: Option<Duration>,
    guard: impl Clone + Send + 'static,
) -> Result<(), BoxError> {
    let mut transport = SharedTransport::new(Transport::new(conn, read_buf));
    loop {
        // Boxed, because a connection that is idle keeps none of it.
        let end = {
            let drain = notice.watcher();
            let connection = Connection::new(
                &mut transport,
                &mut client,
                &mut service,
                drain,
                header_timeout,
            );
            let mut connection = Box::pin(connection);
            let shutdown = Connection::graceful_shutdown;
            drive(connection.as_mut(), notice.as_mut(), shutdown).await
        };
        match end {
            None | Some(ConnectionEnd::Closed) => return Ok(()),
            Some(ConnectionEnd::Failed(error)) => return Err(error),
            Some(ConnectionEnd::Upgraded(upgrade)) => {
                let Some(transport) = transport.into_inner() else {
                    tracing::debug!("client connection: not upgraded, its request is still read");
                    return Ok(());
                };
                let (conn, early) = transport.into_upgraded()?;
                upgrade.send(Upgraded::new(conn, early).with_guard(guard.clone()));
                return Ok(());
            }
            Some(ConnectionEnd::Idle) => {
                transport.lock().shrink();
                client.shrink();
            }
        }
        let timeout = Box::pin(elapsed(HeaderReadTimeout::left_when_idle(header_timeout)));
        tokio::select! {
            biased;
            _ = poll_fn(|cx| transport.lock().conn.poll_read_ready(cx)) => {}
            () = timeout => return Ok(()),
            () = notice.as_mut().given() => return Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
