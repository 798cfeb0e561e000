//! The sockets of the server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::answer::{Reply, reply};
use super::{Shared, Transport};
use crate::socket::Closable;

pub(super) async fn udp(socket: Closable<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    // Delayed answers wait beside the loop and are sent by it: one socket, one sender.
    let mut delayed: JoinSet<(Vec<u8>, SocketAddr)> = JoinSet::new();
    loop {
        let (answer, peer) = tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // An error is about a datagram sent before (ICMP), not about the next one.
                let Ok((length, peer)) = received else { continue };
                let query = buffer.get(..length).unwrap_or_default();
                match reply(&shared, query, Transport::Udp) {
                    Reply::Now(answer) => (answer, peer),
                    Reply::After(wait, answer) => {
                        delayed.spawn(async move {
                            tokio::time::sleep(wait).await;
                            (answer, peer)
                        });
                        continue;
                    }
                    Reply::Never => continue,
                }
            }
            Some(Ok(due)) = delayed.join_next() => due,
        };
        // A client that has gone is not the server's trouble.
        let _ = socket.send_to(&answer, peer).await;
    }
}

pub(super) async fn tcp(listener: Closable<TcpListener>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await;
        connections.spawn(connection(stream, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

/// Queries one after another, each with two bytes of length before it (RFC 1035 §4.2.2), until the
/// client closes.
async fn connection(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await?;
        let answer = match reply(&shared, &query, Transport::Tcp) {
            Reply::Now(answer) => answer,
            Reply::After(wait, answer) => {
                tokio::time::sleep(wait).await;
                answer
            }
            Reply::Never => continue,
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        stream.write_all(&framed).await?;
    }
}
