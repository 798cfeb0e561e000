//! One worker: a thread, its listeners, its connections.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_ingress::{Downstream, MeshIngress};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::client;
use crate::phase::Phase;

pub(crate) struct Worker {
    pub(crate) mesh: MeshIngress,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) timeouts: client::Timeouts,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Dropped when nothing is under way here any more.
    pub(crate) busy: mpsc::Sender<Infallible>,
}

impl Worker {
    /// Serves until told to stop, then finishes what is under way.
    pub(crate) async fn run(self) -> io::Result<()> {
        let Self {
            mesh,
            listeners,
            timeouts,
            mut phase,
            busy,
        } = self;
        let (clients, drained) = client::Clients::new(phase.clone(), timeouts);
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let serving = phase.clone();
            accepting.spawn(accept(listener, mesh.clone(), clients.clone(), serving));
        }
        // Ends when the sender is gone, too: nobody is left to tell.
        let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
        while accepting.join_next().await.is_some() {}
        drop(clients);
        let forwarder = mesh.forwarder();
        let ended = phase.wait_for(|phase| *phase == Phase::Ended);
        let finished = async {
            drained.wait().await;
            forwarder.tunnels_closed().await;
            drop(busy);
            // Other workers may use connections that this one opened and its runtime drives.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = finished => {}
            _ = ended => forwarder.close_tunnels(),
        }
        Ok(())
    }
}

/// Serves what connects until told to stop, and then what had connected before.
async fn accept(
    listener: tokio::net::TcpListener,
    mesh: MeshIngress,
    clients: Arc<client::Clients>,
    mut phase: watch::Receiver<Phase>,
) {
    let port = listener.local_addr().map(|addr| addr.port()).ok();
    let serve = |(stream, peer)| {
        let mut downstream = Downstream::new(peer);
        if let Some(port) = port {
            downstream = downstream.listener_port(port);
        }
        let connection = mesh.for_connection(&downstream);
        tokio::spawn(Arc::clone(&clients).serve(stream, connection));
    };
    let mut warned: Option<Instant> = None;
    let mut stopped = pin!(phase.wait_for(|phase| *phase != Phase::Serving));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        match accepted {
            Ok(accepted) => serve(accepted),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if warned.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                    warned = Some(Instant::now());
                    tracing::warn!("cannot accept connections for a moment: {error}");
                }
                // Out of file descriptors or memory. Asking again at once would spin until some
                // connection ends; clients wait in the backlog meanwhile.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // The kernel has told these that they are connected: closing the socket would reset them. The
    // socket itself is asked: the runtime knows only of those that came before it last looked.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    loop {
        let accepted = listener.accept().and_then(|(stream, peer)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, peer))
        });
        match accepted {
            Ok(accepted) => serve(accepted),
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => return,
        }
    }
}

/// The connection was gone before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
