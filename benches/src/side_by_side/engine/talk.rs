//! The requests that the load sends.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::BoxError;

use super::super::lab::{ANSWER_TIMEOUT, PUBLIC_HOST};
use super::answer::length;

/// An echo's payload with the head of its frame and its mask.
pub(super) const MESSAGE: [u8; 70] = {
    let mut message = [b'm'; 70];
    message[0] = 0x81;
    message[1] = 0x80 | 64;
    message
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Talk {
    /// GET of a path.
    Get(&'static str),
    /// POST of this many bytes.
    Post(usize),
    /// GET of 1 KiB, of one host after the other.
    Hosts(Vec<String>),
    /// GET of 1 KiB, each on a connection of its own, which the server closes.
    Fresh,
    /// WebSocket messages, and their echo.
    Echo,
}

impl Talk {
    /// The requests, in turn.
    pub(super) fn requests(&self) -> Vec<Vec<u8>> {
        let head = |start: &str, host: &str, rest: &str| {
            format!("{start} HTTP/1.1\r\nHost: {host}\r\n{rest}\r\n").into_bytes()
        };
        match self {
            Self::Get(path) => vec![head(&format!("GET {path}"), PUBLIC_HOST, "")],
            Self::Post(bytes) => {
                let length = format!("Content-Length: {bytes}\r\n");
                let mut request = head("POST /post", PUBLIC_HOST, &length);
                request.resize(request.len() + bytes, b'x');
                vec![request]
            }
            Self::Hosts(hosts) => hosts.iter().map(|host| head("GET /1k", host, "")).collect(),
            Self::Fresh => vec![head("GET /1k", PUBLIC_HOST, "Connection: close\r\n")],
            Self::Echo => vec![MESSAGE.to_vec()],
        }
    }
}

/// An upgraded connection.
pub(crate) fn upgrade(to: SocketAddr) -> Result<TcpStream, BoxError> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {PUBLIC_HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    match head.starts_with(b"HTTP/1.1 101") {
        true => Ok(stream),
        false => Err(format!("no upgrade: {}", String::from_utf8_lossy(&head)).into()),
    }
}

/// Connections that have been answered once and now do nothing.
pub(crate) fn idle(to: SocketAddr, count: usize) -> Result<Vec<TcpStream>, BoxError> {
    let request = format!("GET /1k HTTP/1.1\r\nHost: {PUBLIC_HOST}\r\n\r\n");
    let mut answer = Vec::with_capacity(4096);
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect_timeout(&to, ANSWER_TIMEOUT)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            stream.write_all(request.as_bytes())?;
            answer.clear();
            let mut buffer = [0; 4096];
            while length(&answer)?.is_none_or(|length| answer.len() < length) {
                match stream.read(&mut buffer)? {
                    0 => return Err("closed in the middle of an answer".into()),
                    read => answer.extend(buffer.iter().take(read)),
                }
            }
            Ok(stream)
        })
        .collect()
}
