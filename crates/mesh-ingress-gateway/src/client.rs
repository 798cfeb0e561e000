//! One client connection: which HTTP it speaks, and serving it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mesh_ingress::MeshConnection;
use mesh_ingress_http2::frame::PREFACE;
use mesh_ingress_io::{Conn, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::phase::{Phase, Served, Stop, elapsed};
use crate::{http1, http2};

/// How long clients may take. `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For the head of a request of HTTP/1, and between requests; and to say which HTTP it speaks.
    pub(crate) head: Option<Duration>,
    /// Between requests of HTTP/2.
    pub(crate) http2_idle: Option<Duration>,
}

/// What all client connections of a worker share.
#[derive(Debug)]
pub(crate) struct Clients {
    timeouts: Timeouts,
    stop: Stop,
    /// Never sent on: the other end sees when the last connection is gone.
    _open: mpsc::Sender<Infallible>,
}

/// Tells when the last connection has ended.
#[derive(Debug)]
pub(crate) struct Drained(mpsc::Receiver<Infallible>);

impl Drained {
    pub(crate) async fn wait(mut self) {
        while self.0.recv().await.is_some() {}
    }
}

impl Clients {
    pub(crate) fn new(phase: watch::Receiver<Phase>, timeouts: Timeouts) -> (Arc<Self>, Drained) {
        let (open, drained) = mpsc::channel(1);
        let clients = Self {
            timeouts,
            stop: Stop::new(phase),
            _open: open,
        };
        (Arc::new(clients), Drained(drained))
    }

    /// Serves a connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, mut stream: TcpStream, mesh: MeshConnection) {
        let mut notice = pin!(self.stop.notice());
        let begun = tokio::select! {
            biased;
            begun = begin(&mut stream) => begun,
            () = elapsed(self.timeouts.head) => return,
            () = notice.as_mut().given() => return,
        };
        // A client that says nothing, or leaves, is owed nothing.
        let Ok(Some(begun)) = begun else {
            return;
        };
        let served = if begun.bytes().starts_with(PREFACE) {
            http2::serve(
                Conn::from(stream),
                begun,
                mesh,
                notice,
                self.timeouts.http2_idle,
            )
            .await
        } else {
            http1::serve(Conn::from(stream), begun, mesh, notice, self.timeouts.head).await
        };
        if let Served::Failed(error) = served {
            tracing::debug!("client connection: {}", crate::Chain(&*error));
        }
    }
}

/// The first octets of a connection: at least enough to tell the protocol. `None` if there are none.
async fn begin(stream: &mut TcpStream) -> io::Result<Option<ReadBuf>> {
    let mut begun = ReadBuf::new(http1::BUFFER);
    loop {
        // No room is made for a client that says nothing.
        stream.readable().await?;
        if poll_fn(|cx| begun.poll_fill(stream, cx)).await? == 0 {
            return Ok((!begun.bytes().is_empty()).then_some(begun));
        }
        let compared = begun.bytes().len().min(PREFACE.len());
        if compared == PREFACE.len() || begun.bytes()[..compared] != PREFACE[..compared] {
            return Ok(Some(begun));
        }
    }
}
