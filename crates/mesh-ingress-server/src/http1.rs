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
use std::sync::Arc;

use mesh_ingress_core::BoxError;
use mesh_ingress_io::upgrade::Upgraded;
use mesh_ingress_io::{Conn, MAX_READ, ReadBuf};

pub(crate) use self::body::Http1Body;
use self::connection::{Connection, ConnectionEnd};
use self::header_timeout::HeaderReadTimeout;
use self::transport::SharedTransport;
pub(crate) use self::transport::Transport;
use crate::connection::{Session, Timeout};
use crate::drain::{DrainNotice, drive};
use crate::service::HttpService;

/// Serves an HTTP/1 connection to its end.
#[allow(clippy::manual_async_fn)] // See `connection::serve`.
pub(crate) fn serve<S: HttpService>(
    transport: Box<Transport>,
    mut session: Box<Session<S>>,
    mut notice: Pin<&mut DrainNotice<'_>>,
) -> impl Future<Output = Result<(), BoxError>> + Send {
    async move {
        let mut transport = SharedTransport::new(transport);
        loop {
            let header_timeout = session.context.timeouts.request_header;
            // Boxed, because a connection that is idle keeps none of it.
            let end = {
                let Session {
                    client, service, ..
                } = &mut *session;
                let drain = notice.watcher();
                let connection =
                    Connection::new(&mut transport, client, service, drain, header_timeout);
                let mut connection = Box::pin(connection);
                let shutdown = Connection::graceful_shutdown;
                drive(connection.as_mut(), notice.as_mut(), shutdown).await
            };
            match end {
                None | Some(ConnectionEnd::Closed) => return Ok(()),
                Some(ConnectionEnd::Failed(error)) => return Err(error),
                Some(ConnectionEnd::Upgraded(upgrade)) => {
                    let Some(transport) = transport.into_inner() else {
                        tracing::debug!("connection not upgraded: its request is still read");
                        return Ok(());
                    };
                    let (conn, early) = transport.into_upgraded()?;
                    let guard = Arc::clone(&session.context);
                    upgrade.send(Upgraded::new(conn, early).with_guard(guard));
                    return Ok(());
                }
                Some(ConnectionEnd::Idle) => session.client.shrink(),
            }
            let mut idle = Idle::new(transport);
            let timeout = Timeout::new(HeaderReadTimeout::left_when_idle(header_timeout));
            tokio::select! {
                biased;
                _ = poll_fn(|cx| idle.with_conn(|conn| conn.poll_read_ready(cx))) => {}
                () = timeout => return Ok(()),
                () = notice.as_mut().given() => return Ok(()),
            }
            transport = idle.into_transport();
        }
    }
}

/// A connection without a request.
enum Idle {
    /// Nothing but the socket is left.
    Conn(Conn),
    /// Something has been read, or is still used by others.
    Transport(SharedTransport),
}

impl Idle {
    fn new(transport: SharedTransport) -> Self {
        match transport.into_conn() {
            Ok(conn) => Self::Conn(conn),
            Err(mut transport) => {
                transport.lock().shrink();
                Self::Transport(transport)
            }
        }
    }

    fn with_conn<T>(&mut self, f: impl FnOnce(&mut Conn) -> T) -> T {
        match self {
            Self::Conn(conn) => f(conn),
            Self::Transport(transport) => f(&mut transport.lock().conn),
        }
    }

    fn into_transport(self) -> SharedTransport {
        match self {
            Self::Conn(conn) => {
                let transport = Transport::new(conn, ReadBuf::new(MAX_READ));
                SharedTransport::new(Box::new(transport))
            }
            Self::Transport(transport) => transport,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
