//! One of the peers or floors the harness compares with: `bench-peers KIND LISTEN ORIGIN [OPTION…]`.
//!
//! Options: `workers=N`, `h2` (clients speak HTTP/2), `h2-origin` (the origin does), `origins=N` (to so
//! many addresses in turn, instead of one).

mod axum_reverse_proxy;
mod embedded_hyper;
mod floor_bytes;
mod floor_hyper;
mod floor_many;
mod legacy_client;
mod pingora;
mod rewrite;

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};

type BoxError = Box<dyn Error + Send + Sync>;

/// The settings of every peer.
#[derive(Clone, Copy, Debug)]
struct Settings {
    listen: SocketAddr,
    origin: SocketAddr,
    workers: usize,
    /// How many addresses the origin has; 1 is the one above.
    origins: usize,
    /// Clients speak HTTP/2 without TLS.
    h2: bool,
    /// The origin speaks HTTP/2 without TLS.
    h2_origin: bool,
}

fn main() -> Result<(), BoxError> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("usage: KIND LISTEN ORIGIN [OPTION…]");
    let kind = next()?;
    let mut settings = Settings {
        listen: next()?.parse()?,
        origin: next()?.parse()?,
        workers: 1,
        origins: 1,
        h2: false,
        h2_origin: false,
    };
    for option in args {
        match option.as_str() {
            "h2" => settings.h2 = true,
            "h2-origin" => settings.h2_origin = true,
            _ => match option.split_once('=') {
                Some(("workers", workers)) => settings.workers = workers.parse()?,
                Some(("origins", origins)) => settings.origins = origins.parse()?,
                _ => return Err(format!("unknown option {option}").into()),
            },
        }
    }
    match kind.as_str() {
        "floor-bytes" if settings.origins > 1 => on_each_worker(settings, floor_many::run),
        "floor-bytes" => on_each_worker(settings, floor_bytes::run),
        "floor-hyper" => on_each_worker(settings, floor_hyper::run),
        "legacy-client" => on_each_worker(settings, legacy_client::run),
        "axum-reverse-proxy" => on_each_worker(settings, axum_reverse_proxy::run),
        "embedded-hyper" => embedded_hyper::run(settings),
        "pingora" => pingora::run(settings),
        _ => Err(format!("unknown kind {kind}").into()),
    }
}

/// A thread a worker, each with a socket of its own, as the gateway does it; one has the only thread.
fn on_each_worker(
    settings: Settings,
    run: fn(Settings, TcpListener) -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    let sockets = (0..settings.workers)
        .map(|_| listener(settings.listen))
        .collect::<Result<Vec<_>, _>>()?;
    if settings.workers == 1 {
        return sockets
            .into_iter()
            .try_for_each(|socket| run(settings, socket));
    }
    let threads: Vec<_> = sockets
        .into_iter()
        .map(|socket| thread::spawn(move || run(settings, socket)))
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a worker panicked")??;
    }
    Ok(())
}

fn listener(addr: SocketAddr) -> Result<TcpListener, BoxError> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn current_thread() -> Result<tokio::runtime::Runtime, BoxError> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
