//! Listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}{}", hint(.source))]
#[non_exhaustive]
pub struct BindError {
    /// The address.
    pub addr: SocketAddr,
    /// The system's error.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (is another process listening there?)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrNotAvailable => " (the address is not one of this machine)",
        _ => "",
    }
}

/// Binds one socket a worker to an address. With more than one the kernel spreads connections over them
/// (`SO_REUSEPORT`), so that workers share no accept queue.
pub(crate) fn bind(addr: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, BindError> {
    let failed = |source| BindError { addr, source };
    // With port 0 the first socket chooses the port for the others.
    let first = bound(addr, false).map_err(failed)?;
    let chosen = first.local_addr().map_err(failed)?;
    if workers == 1 {
        return Ok(vec![listening(first).map_err(failed)?]);
    }
    let chosen = chosen.as_socket().unwrap_or(addr);
    // A socket with SO_REUSEPORT would share the port with a process that is already there, and take half
    // of its traffic. The first socket has shown that the port is free. It does not listen, so that no
    // client connects to it.
    drop(first);
    (0..workers)
        .map(|_| bound(chosen, true).and_then(listening).map_err(failed))
        .collect()
}

fn listening(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bound(addr: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the kernel to forget old connections.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    // Accepted sockets inherit it: one system call less for each connection.
    socket.set_tcp_nodelay(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_told_with_a_hint() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let taken = bind(addr, 1).unwrap();
        let taken = taken[0].local_addr().unwrap();
        let error = bind(taken, 2).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        let said = format!("cannot listen on {taken} (is another process listening there?)");
        assert_eq!(error.to_string(), said);
    }
}
