//! Sockets that close the moment their server is dropped.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// How often to look for a port that is free for both UDP and TCP before giving up.
const PORT_TRIES: usize = 64;

/// A socket shared by a server and its task, closed by the server.
///
/// Aborting a task drops what it holds at some later time; a test that stops a server and starts
/// another on the same port must not depend on when. So the task only ever borrows the socket.
#[derive(Debug)]
pub(crate) struct Closable<S>(Arc<Mutex<Option<S>>>);

impl<S> Closable<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self(Arc::new(Mutex::new(Some(socket))))
    }

    /// Closes the socket now. What a task waits for on it never comes: the task is aborted anyway.
    pub(crate) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Clone for Closable<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Closable<TcpListener> {
    /// The next connection. Errors of a single connection (`ECONNABORTED`) are
    /// passed over; never ready once the listener is closed.
    pub(crate) async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            let accepted = poll_fn(|cx| match &*self.lock() {
                Some(listener) => listener.poll_accept(cx),
                None => Poll::Pending,
            })
            .await;
            match accepted {
                Ok(accepted) => return accepted,
                // Out of descriptors, say: let others run, one of them may close some.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

impl Closable<UdpSocket> {
    pub(crate) async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut buffer = ReadBuf::new(buffer);
        let peer = poll_fn(|cx| match &*self.lock() {
            Some(socket) => socket.poll_recv_from(cx, &mut buffer),
            None => Poll::Pending,
        })
        .await?;
        Ok((buffer.filled().len(), peer))
    }

    /// For one sender at a time: a socket remembers one waiting writer.
    pub(crate) async fn send_to(&self, datagram: &[u8], peer: SocketAddr) -> io::Result<usize> {
        poll_fn(|cx| match &*self.lock() {
            Some(socket) => socket.poll_send_to(cx, datagram, peer),
            None => Poll::Pending,
        })
        .await
    }
}

/// Binds UDP and TCP to one port; port 0 finds one that is free for both.
pub(crate) async fn bind_udp_and_tcp(addr: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if addr.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let udp = UdpSocket::bind(addr).await?;
        tries -= 1;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}
