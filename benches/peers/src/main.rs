//! One of the peers or floors the harness compares with: `bench-peers KIND LISTEN ORIGIN [OPTION…]`.
//!
//! Options: `workers=N`, `h2` (clients speak HTTP/2), `h2-origin` (the origin does).

mod axum_reverse_proxy;
mod embedded;
mod floor_bytes;
mod floor_hyper;
mod legacy_client;
mod pingora;
mod rewrite;

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};

type BoxError = Box<dyn Error + Send + Sync>;

/// What every peer is told.
#[derive(Clone, Copy, Debug)]
struct Settings {
    listen: SocketAddr,
    origin: SocketAddr,
    workers: usize,
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
        h2: false,
        h2_origin: false,
    };
    for option in args {
        match option.as_str() {
            "h2" => settings.h2 = true,
            "h2-origin" => settings.h2_origin = true,
            _ => match option.strip_prefix("workers=") {
                Some(workers) => settings.workers = workers.parse()?,
                None => return Err(format!("unknown option {option}").into()),
            },
        }
    }
    match kind.as_str() {
        "floor-bytes" => on_each_worker(settings, floor_bytes::run),
        "floor-hyper" => on_each_worker(settings, floor_hyper::run),
        "legacy-client" => on_each_worker(settings, legacy_client::run),
        "axum-reverse-proxy" => on_each_worker(settings, axum_reverse_proxy::run),
        "embedded" => embedded::run(settings),
        "pingora" => pingora::run(settings),
        _ => Err(format!("unknown kind {kind}").into()),
    }
}

/// A thread a worker, each with a socket of its own, as the gateway does it.
fn on_each_worker(
    settings: Settings,
    run: fn(Settings, TcpListener) -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    let sockets = (0..settings.workers)
        .map(|_| listener(settings.listen))
        .collect::<Result<Vec<_>, _>>()?;
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
