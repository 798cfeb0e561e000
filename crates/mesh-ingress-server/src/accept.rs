//! Accepting connections.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_ingress_core::Downstream;
use mesh_ingress_io::Conn;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::connection::{self, Timeouts};
use crate::drain::DrainWatcher;
use crate::report::Report;
use crate::service::HttpService;

/// What the connections of one worker share.
#[derive(Debug)]
struct Shared {
    timeouts: Timeouts,
    drain: DrainWatcher,
    /// Never sent on: the other end sees when the last connection has ended.
    _open: mpsc::Sender<Infallible>,
}

/// Serves what connects to the listeners until a drain begins. Resolves when the last connection has
/// ended, tunnels included.
pub(crate) async fn run<S, M>(
    listeners: Vec<TcpListener>,
    make: M,
    timeouts: Timeouts,
    drain: DrainWatcher,
) -> io::Result<()>
where
    S: HttpService,
    M: FnMut(&Downstream) -> S + Clone + Send + 'static,
{
    let (open, mut ended) = mpsc::channel(1);
    let shared = Arc::new(Shared {
        timeouts,
        drain,
        _open: open,
    });
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.spawn(accept(listener, make.clone(), Arc::clone(&shared)));
    }
    drop((make, shared));
    while accepting.join_next().await.is_some() {}
    while ended.recv().await.is_some() {}
    Ok(())
}

/// Serves what connects until a drain begins, and then what had connected before.
async fn accept<S, M>(listener: tokio::net::TcpListener, mut make: M, shared: Arc<Shared>)
where
    S: HttpService,
    M: FnMut(&Downstream) -> S,
{
    let addr = listener.local_addr().ok();
    let mut serve = |(stream, peer): (TcpStream, SocketAddr)| {
        let client = downstream(&stream, peer, addr);
        let service = make(&client);
        let shared = Arc::clone(&shared);
        tokio::spawn(serve_accepted(stream, client, service, shared));
    };
    let mut warned: Option<Instant> = None;
    let mut draining = pin!(shared.drain.draining());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut draining => break,
        };
        match accepted {
            Ok(accepted) => serve(accepted),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if warned.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                    warned = Some(Instant::now());
                    tracing::warn!("cannot accept connections for a moment: {error}");
                }
                // Out of descriptors or memory. Another accept at once would spin until some connection
                // ends. Clients wait in the backlog meanwhile.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // The kernel has completed these handshakes, and closing the socket would reset the connections. The
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

async fn serve_accepted<S: HttpService>(
    stream: TcpStream,
    client: Downstream,
    service: S,
    shared: Arc<Shared>,
) {
    let (conn, guard) = (Conn::from(stream), Arc::clone(&shared));
    let served = connection::serve(conn, client, service, shared.timeouts, &shared.drain, guard);
    if let Err(error) = served.await {
        tracing::debug!("client connection: {}", Report(&*error));
    }
}

fn downstream(stream: &TcpStream, peer: SocketAddr, listener: Option<SocketAddr>) -> Downstream {
    let mut client = Downstream::new(peer);
    let Some(listener) = listener else {
        return client;
    };
    client = client.listener_port(listener.port());
    // A system call less where the listener's address is the one the client connected to.
    let local = match listener.ip().is_unspecified() {
        true => stream.local_addr().ok(),
        false => Some(listener),
    };
    match local {
        Some(local) => client.local(local),
        None => client,
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
