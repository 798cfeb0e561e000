//! Accepting connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_ingress_core::Downstream;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::connection::{self, ConnectionContext, Opening, Session, Timeouts};
use crate::drain::DrainWatcher;
use crate::report::Report;
use crate::service::HttpService;

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
    let context = Arc::new(ConnectionContext {
        timeouts,
        drain,
        _open: Some(open),
    });
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.spawn(accept(listener, make.clone(), Arc::clone(&context)));
    }
    drop((make, context));
    while accepting.join_next().await.is_some() {}
    while ended.recv().await.is_some() {}
    Ok(())
}

/// Serves what connects until a drain begins, and then what had connected before.
async fn accept<S, M>(
    listener: tokio::net::TcpListener,
    mut make: M,
    context: Arc<ConnectionContext>,
) where
    S: HttpService,
    M: FnMut(&Downstream) -> S,
{
    let addr = listener.local_addr().ok();
    let mut serve = |(stream, peer): (TcpStream, SocketAddr)| {
        let client = downstream(&stream, peer, addr);
        let session = Session {
            service: make(&client),
            client: Client::new(client),
            context: Arc::clone(&context),
        };
        tokio::spawn(serve_accepted(stream, Box::new(session)));
    };
    let mut warned: Option<Instant> = None;
    let mut draining = pin!(context.drain.draining());
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

#[allow(clippy::manual_async_fn)] // See `connection::serve`.
fn serve_accepted<S: HttpService>(
    stream: TcpStream,
    session: Box<Session<S>>,
) -> impl Future<Output = ()> + Send {
    let opening = Opening::new(stream);
    async move {
        if let Err(error) = connection::serve(opening, session).await {
            tracing::debug!("client connection: {}", Report(&*error));
        }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::{RequestBody, drain};

    /// The future of a connection is most of what an idle one takes.
    #[tokio::test]
    async fn the_future_of_a_connection_is_small() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stream = TcpStream::connect(addr).await.unwrap();
        let (_trigger, drain) = drain::channel();
        let context = ConnectionContext {
            timeouts: Timeouts::default(),
            drain,
            _open: None,
        };
        let session = Session {
            client: Client::new(Downstream::new(addr)),
            service: tower::service_fn(async |_: http::Request<RequestBody>| {
                Ok::<_, Infallible>(http::Response::new(String::new()))
            }),
            context: Arc::new(context),
        };
        let served = serve_accepted(stream, Box::new(session));
        let size = size_of_val(&served);
        assert!(size <= 384, "{size} bytes");
    }
}
