//! A small load of our own, for what wrk and h2load cannot do: a fixed rate with honest latencies, a
//! connection a request, WebSockets, an exact number of requests. One thread, one epoll.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::Timespec;

use crate::BoxError;

use super::lab::{PATIENCE, PUBLIC_HOST};

/// An echo's payload with the head of its frame and its mask.
const MESSAGE: [u8; 70] = {
    let mut message = [b'm'; 70];
    message[0] = 0x81;
    message[1] = 0x80 | 64;
    message
};

/// What is sent, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// So many requests: each connection sends when it has been answered.
    Count(u64),
    /// At this rate, whatever the answers do. A latency begins when its request was due, not when a
    /// connection was free for it: slow answers are not left out (no coordinated omission).
    Open { rate: u32, duration: Duration },
    /// As fast as the answers come, each request on a connection of its own, which the server closes.
    Fresh(Duration),
    /// WebSocket messages: each connection sends when it has its echo.
    Echo(Duration),
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) completed: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds, sorted.
    pub(crate) latencies: Vec<u64>,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// When what is under way was sent, or due.
    since: Option<Instant>,
}

struct Load {
    to: SocketAddr,
    pace: Pace,
    request: Vec<u8>,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    latencies: Vec<u64>,
    started: u64,
}

/// Puts a load on a proxy: GETs of 1 KiB, or echoes.
pub(crate) fn run(to: SocketAddr, connections: usize, pace: Pace) -> Result<Outcome, BoxError> {
    // Sleeping to the microsecond; the default allows 50 more.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let close = if matches!(pace, Pace::Fresh(_)) {
        "Connection: close\r\n"
    } else {
        ""
    };
    let request = match pace {
        Pace::Echo(_) => MESSAGE.to_vec(),
        _ => format!("GET /1k HTTP/1.1\r\nHost: {PUBLIC_HOST}\r\n{close}\r\n").into_bytes(),
    };
    let mut load = Load {
        to,
        pace,
        request,
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        connections: Vec::new(),
        latencies: Vec::new(),
        started: 0,
    };
    for number in 0..connections {
        let connection = load.connect(number)?;
        load.connections.push(connection);
    }
    load.run()
}

/// An upgraded connection.
pub(crate) fn upgrade(to: SocketAddr) -> Result<TcpStream, BoxError> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
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
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
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

impl Load {
    fn run(mut self) -> Result<Outcome, BoxError> {
        let begin = Instant::now();
        let end = match self.pace {
            Pace::Fresh(time) | Pace::Echo(time) => Some(begin + time),
            Pace::Open { duration, .. } => Some(begin + duration),
            Pace::Count(_) => None,
        };
        let mut free: VecDeque<usize> = VecDeque::new();
        let mut waiting: VecDeque<Instant> = VecDeque::new();
        let mut due = begin;
        let interval = match self.pace {
            Pace::Open { rate, .. } => {
                free.extend(0..self.connections.len());
                Some(Duration::from_secs(1) / rate.max(1))
            }
            _ => {
                for number in 0..self.connections.len() {
                    self.start_next(number)?;
                }
                None
            }
        };
        let mut events = Vec::with_capacity(1024);
        loop {
            let now = Instant::now();
            if let Some(interval) = interval {
                while due <= now && end.is_some_and(|end| due < end) {
                    waiting.push_back(due);
                    due += interval;
                }
                while let (Some(since), Some(number)) =
                    (waiting.front().copied(), free.front().copied())
                {
                    waiting.pop_front();
                    free.pop_front();
                    self.send(number, since)?;
                }
            }
            let over = end.is_some_and(|end| now >= end);
            let busy = self
                .connections
                .iter()
                .any(|connection| connection.since.is_some());
            match self.pace {
                Pace::Count(_) if !busy => break,
                // What was due is waited for.
                Pace::Open { .. } if over && !busy && waiting.is_empty() => break,
                Pace::Fresh(_) | Pace::Echo(_) if over => break,
                _ => {}
            }
            let until = match (interval, end) {
                (Some(_), Some(end)) if due < end => due,
                (_, Some(end)) if !over => end,
                _ => now + PATIENCE,
            };
            if end.is_some_and(|end| now >= end + PATIENCE) {
                return Err("far behind the rate it was to serve".into());
            }
            let timeout = Timespec::try_from(until.saturating_duration_since(now))?;
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout))?;
            if events.is_empty() && now + PATIENCE <= until {
                return Err(format!("no answer for {PATIENCE:?}").into());
            }
            for event in &events {
                let number = event.data.u64() as usize;
                if self.receive(number)? {
                    match interval {
                        Some(_) => free.push_back(number),
                        None => self.start_next(number)?,
                    }
                }
            }
        }
        let elapsed = begin.elapsed();
        self.latencies.sort_unstable();
        Ok(Outcome {
            completed: self.latencies.len() as u64,
            elapsed,
            latencies: self.latencies,
        })
    }

    fn connect(&self, number: usize) -> Result<Connection, BoxError> {
        let stream = match self.pace {
            Pace::Echo(_) => upgrade(self.to)?,
            _ => TcpStream::connect_timeout(&self.to, PATIENCE)?,
        };
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let data = EventData::new_u64(number as u64);
        let edges = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &stream, data, edges)?;
        Ok(Connection {
            stream,
            received: Vec::with_capacity(4096),
            since: None,
        })
    }

    /// The next request of a connection, if there is to be one.
    fn start_next(&mut self, number: usize) -> Result<(), BoxError> {
        if let Pace::Count(count) = self.pace {
            if self.started == count {
                return Ok(());
            }
            self.started += 1;
        }
        let now = Instant::now();
        if matches!(self.pace, Pace::Fresh(_)) {
            let fresh = self.connect(number)?;
            if let Some(connection) = self.connections.get_mut(number) {
                *connection = fresh;
            }
        }
        self.send(number, now)
    }

    fn send(&mut self, number: usize, since: Instant) -> Result<(), BoxError> {
        let connection = self
            .connections
            .get_mut(number)
            .ok_or("no such connection")?;
        connection.since = Some(since);
        // Small, and nothing else is under way: it fits into the socket's buffer.
        connection.stream.write_all(&self.request)?;
        Ok(())
    }

    /// Whether an exchange has become complete.
    fn receive(&mut self, number: usize) -> Result<bool, BoxError> {
        let connection = self
            .connections
            .get_mut(number)
            .ok_or("no such connection")?;
        let mut buffer = [0; 16 * 1024];
        let mut ended = false;
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(read) => connection.received.extend(buffer.iter().take(read)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let Some(since) = connection.since else {
            return match ended {
                true => Err("the proxy closed a connection that was idle".into()),
                false => Ok(false),
            };
        };
        let complete = match self.pace {
            Pace::Echo(_) => connection.received.len() >= MESSAGE.len(),
            _ => {
                let length = length(&connection.received)?;
                length.is_some_and(|length| connection.received.len() >= length)
            }
        };
        let fresh = matches!(self.pace, Pace::Fresh(_));
        if ended && !(complete && fresh) {
            return Err("the proxy closed a connection in the middle of an exchange".into());
        }
        // One that is to be closed is done when it is closed.
        if !complete || (fresh && !ended) {
            return Ok(false);
        }
        connection.received.clear();
        connection.since = None;
        self.latencies.push(since.elapsed().as_nanos() as u64);
        Ok(true)
    }
}

/// The octets of an answer, once its head is there.
pub(crate) fn length(received: &[u8]) -> Result<Option<usize>, BoxError> {
    let Some(head) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(received.get(..head).unwrap_or_default());
    if !text.starts_with("HTTP/1.1 200") {
        return Err(format!("not a 200: {text}").into());
    }
    let body = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>())
    });
    match body {
        Some(body) => Ok(Some(head + 4 + body?)),
        None => Err(format!("an answer without a length: {text}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn lengths() {
        assert_eq!(length(b"HTTP/1.1 200 OK\r\ncontent-le").unwrap(), None);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab";
        assert_eq!(length(answer).unwrap(), Some(answer.len() + 3));
        assert!(length(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").is_err());
    }
}
