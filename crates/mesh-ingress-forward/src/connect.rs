//! Opening the transport.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mesh_ingress_core::{Error, ErrorKind};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::error::Failure;
use crate::pool::Pool;
use crate::stream::Stream;
use crate::tls::Handshake;

/// How long one address may take before the next is tried beside it (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// What takes its time while a connection is being opened.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Dial,
    Tls,
    Http,
}

tokio::task_local! {
    static STAGE: Cell<Stage>;
}

fn enter(stage: Stage) {
    // Outside of `within` nobody wants to know.
    let _ = STAGE.try_with(|current| current.set(stage));
}

/// What took too long once the connection itself was there.
#[derive(Debug, thiserror::Error)]
enum Overdue {
    #[error(
        "{addr} took the connection and did not finish the TLS handshake within {timeout:?}: does this port speak TLS, or is it overloaded?"
    )]
    Tls { addr: SocketAddr, timeout: Duration },
    #[error(
        "{addr} took the connection and did not begin to speak HTTP/2 within {timeout:?}: does this port speak it?"
    )]
    Http { addr: SocketAddr, timeout: Duration },
}

/// Runs `connecting` within the connect timeout.
pub(crate) async fn within<T>(
    timeout: Option<Duration>,
    addr: SocketAddr,
    connecting: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(timeout) = timeout else {
        return connecting.await;
    };
    let mut connecting = pin!(STAGE.scope(Cell::new(Stage::Dial), connecting));
    if let Ok(connected) = tokio::time::timeout(timeout, connecting.as_mut()).await {
        return connected;
    }
    let overdue = match connecting.take_value().map(Cell::into_inner) {
        Some(Stage::Tls) => Overdue::Tls { addr, timeout },
        Some(Stage::Http) => Overdue::Http { addr, timeout },
        Some(Stage::Dial) | None => {
            return Err(Failure::ConnectTimeout { addr, timeout }.into_error());
        }
    };
    // No request has been sent yet.
    Err(Error::new(ErrorKind::ConnectionTimeout, overdue).retryable())
}

/// How long to wait before a refused connection is tried again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LAST: Duration = Duration::from_millis(200);

/// Connects to the first of the upstream's addresses that answers, and speaks TLS with it if that
/// is asked for.
///
/// The protocol to speak is that of the upstream: HTTP/1.1, HTTP/2, or what
/// [`Stream::negotiated`] says of the outcome.
pub(crate) async fn open(pool: &Pool) -> Result<Stream, Error> {
    // What cannot succeed is not begun.
    let handshake = pool.upstream.tls_options();
    let handshake = handshake.map(|tls| Handshake::new(pool, tls)).transpose()?;
    let tcp = tcp(pool).await?;
    let stream = match handshake {
        None => Stream::Plain(tcp),
        Some(handshake) => {
            enter(Stage::Tls);
            handshake.run(tcp).await?
        }
    };
    enter(Stage::Http);
    Ok(stream)
}

/// Connects. Where nothing listens it goes on trying for as long as the settings allow.
async fn tcp(pool: &Pool) -> Result<TcpStream, Error> {
    let until = pool
        .settings
        .connect_retry
        .map(|retry| Instant::now() + retry);
    let mut pause = RETRY_FIRST;
    loop {
        let connected = match pool.upstream.addresses() {
            [only] => dial(*only).await,
            several => race(several).await,
        };
        let refused = |error: &Error| error.kind() == ErrorKind::ConnectionRefused;
        if !connected.as_ref().is_err_and(refused)
            || until.is_none_or(|until| Instant::now() + pause > until)
        {
            return connected;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_LAST);
    }
}

async fn dial(addr: SocketAddr) -> Result<TcpStream, Error> {
    let connected = async {
        let stream = TcpStream::connect(addr).await?;
        // A head and a small body are one write each; Nagle would hold the second back.
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connected
        .await
        .map_err(|source: io::Error| Failure::Connect { addr, source }.into_error())
}

/// "Happy eyeballs": the addresses in order, each given a head start over the next (RFC 8305).
async fn race(addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
    let mut waiting = addresses.iter().copied();
    let mut dialing = FuturesUnordered::new();
    dialing.extend(waiting.next().map(dial));
    let mut failed = None;
    loop {
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            done = dialing.next() => match done {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    // The first failure is of the preferred address: the one worth reporting.
                    failed.get_or_insert(error);
                    dialing.extend(waiting.next().map(dial));
                }
                None => break,
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if more => {
                dialing.extend(waiting.next().map(dial));
            }
        }
    }
    Err(failed.unwrap_or_else(|| Failure::NoUpstream.into_error()))
}
