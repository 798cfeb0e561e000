//! Connected UDP sockets: they report ICMP errors, so that a port without listener fails at once.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hickory_net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

type BoxFuture<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

/// The Tokio runtime, except that UDP sockets are connected to the one name server they are for.
///
/// An unconnected socket never learns of the ICMP message that says "port unreachable": a name
/// server that is not there would be a timeout. And it would take datagrams from anybody.
#[derive(Clone)]
pub(super) struct ConnectedUdp {
    tokio: TokioRuntimeProvider,
    server: SocketAddr,
}

pub(super) struct Socket {
    socket: UdpSocket,
    /// The peer's address as hickory knows it, which it compares with that of answers.
    peer: SocketAddr,
}

impl ConnectedUdp {
    pub(super) fn to(server: SocketAddr) -> Self {
        Self {
            tokio: TokioRuntimeProvider::default(),
            server,
        }
    }
}

impl RuntimeProvider for ConnectedUdp {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Socket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> TokioHandle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        _server: SocketAddr,
        bind_addr: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> BoxFuture<Self::Tcp> {
        // Ours and not the argument, which has lost the scope of a link-local address.
        self.tokio.connect_tcp(self.server, bind_addr, timeout)
    }

    fn bind_udp(&self, local: SocketAddr, peer: SocketAddr) -> BoxFuture<Socket> {
        let server = self.server;
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(Socket { socket, peer })
        })
    }
}

impl DnsUdpSocket for Socket {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buf = ReadBuf::new(buf);
        ready!(self.socket.poll_recv(cx, &mut buf))?;
        Poll::Ready(Ok((buf.filled().len(), self.peer)))
    }

    /// The desugared form of `async fn recv_from`. Unlike polling, Tokio's `recv` wakes up when
    /// there is nothing to read but an error.
    fn recv_from<'a, 'b, 'f>(
        &'a self,
        buf: &'b mut [u8],
    ) -> Pin<Box<dyn Future<Output = io::Result<(usize, SocketAddr)>> + Send + 'f>>
    where
        Self: 'f,
        'a: 'f,
        'b: 'f,
    {
        Box::pin(async move { Ok((self.socket.recv(buf).await?, self.peer)) })
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        _target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        // Naming the target is an error on some systems once the socket is connected.
        self.socket.poll_send(cx, buf)
    }
}
