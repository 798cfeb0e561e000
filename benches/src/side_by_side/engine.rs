//! A load of our own: turns as short as one likes on connections that stay, a fixed rate with honest
//! latencies, a connection a request, WebSockets, an exact number of requests. One thread, one epoll.
//!
//! Generators that are programs start anew for each turn and run for seconds. What disturbs a machine
//! lasts as long, and hits one proxy of a round and not the next; within turns of a tenth of a second
//! it hits all of them.

mod answer;
mod talk;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::BoxError;

use super::lab::ANSWER_TIMEOUT;
use answer::Answer;
pub(crate) use answer::length;
pub(crate) use talk::{Talk, idle, upgrade};

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// So many requests: each connection sends when it has been answered.
    Count(u64),
    /// For so long: each connection sends when it has been answered.
    Closed(Duration),
    /// At this rate a second, whatever the answers do. A latency begins when its request was due, not
    /// when a connection was free for it: slow answers are not left out (no coordinated omission).
    Open { rate: u32, duration: Duration },
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) completed: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds, sorted.
    pub(crate) latencies: Vec<u64>,
}

struct Connection {
    stream: TcpStream,
    answer: Answer,
    /// When what is under way was sent, or due.
    since: Option<Instant>,
    /// Which request that is, and how much of it has been sent.
    request: usize,
    sent: usize,
}

/// The connections to one proxy.
pub(crate) struct Client {
    to: SocketAddr,
    talk: Talk,
    requests: Vec<Vec<u8>>,
    next: usize,
    epoll: OwnedFd,
    /// None where the next request is to open one.
    connections: Vec<Option<Connection>>,
    busy: usize,
    latencies: Vec<u64>,
    buffer: Vec<u8>,
}

/// One run on connections of its own.
pub(crate) fn run(
    to: SocketAddr,
    talk: Talk,
    connections: usize,
    pace: Pace,
) -> Result<Outcome, BoxError> {
    Client::open(to, talk, connections)?.run(pace)
}

const NONE: &str = "no such connection";

fn connection(
    connections: &mut [Option<Connection>],
    number: usize,
) -> Result<&mut Connection, BoxError> {
    let connection = connections.get_mut(number).and_then(Option::as_mut);
    connection.ok_or_else(|| NONE.into())
}

impl Client {
    /// Connects. Where each request has a connection of its own, that is done when it is sent.
    pub(crate) fn open(to: SocketAddr, talk: Talk, connections: usize) -> Result<Self, BoxError> {
        // Sleeping to the microsecond; the default allows 50 more.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let mut client = Self {
            to,
            requests: talk.requests(),
            talk,
            next: 0,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            busy: 0,
            latencies: Vec::new(),
            buffer: vec![0; 256 * 1024],
        };
        for number in 0..connections {
            let connection = match client.talk {
                Talk::Fresh => None,
                _ => Some(client.connect(number)?),
            };
            client.connections.push(connection);
        }
        Ok(client)
    }

    /// Sends, and waits for all answers.
    pub(crate) fn run(&mut self, pace: Pace) -> Result<Outcome, BoxError> {
        self.latencies.clear();
        let begin = Instant::now();
        match pace {
            Pace::Count(count) => self.closed(None, count)?,
            Pace::Closed(duration) => self.closed(Some(begin + duration), u64::MAX)?,
            Pace::Open { rate, duration } => self.open_loop(rate, begin, begin + duration)?,
        }
        let elapsed = begin.elapsed();
        self.latencies.sort_unstable();
        Ok(Outcome {
            completed: self.latencies.len() as u64,
            elapsed,
            latencies: self.latencies.clone(),
        })
    }

    fn closed(&mut self, end: Option<Instant>, mut left: u64) -> Result<(), BoxError> {
        for number in 0..self.connections.len() {
            if left > 0 {
                left -= 1;
                self.send(number, Instant::now())?;
            }
        }
        let mut answered = Vec::new();
        while self.busy > 0 {
            let now = self.wait(ANSWER_TIMEOUT, &mut answered)?;
            let over = end.is_some_and(|end| now >= end);
            for number in answered.drain(..) {
                if left > 0 && !over {
                    left -= 1;
                    self.send(number, Instant::now())?;
                }
            }
        }
        Ok(())
    }

    fn open_loop(&mut self, rate: u32, begin: Instant, end: Instant) -> Result<(), BoxError> {
        let interval = Duration::from_secs(1) / rate.max(1);
        let mut free: VecDeque<usize> = (0..self.connections.len()).collect();
        let mut waiting: VecDeque<Instant> = VecDeque::new();
        let mut answered = Vec::new();
        let mut due = begin;
        loop {
            let now = Instant::now();
            while due <= now && due < end {
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
            // Requests that were due are awaited.
            if now >= end && self.busy == 0 && waiting.is_empty() {
                return Ok(());
            }
            if now >= end + ANSWER_TIMEOUT {
                return Err("far behind the rate it was to serve".into());
            }
            let until = if due < end {
                due
            } else if now < end {
                end
            } else {
                now + ANSWER_TIMEOUT
            };
            self.wait(until.saturating_duration_since(now), &mut answered)?;
            free.extend(answered.drain(..));
        }
    }

    /// Waits for answers, at most so long; an error if that is for ever and there is none.
    fn wait(&mut self, most: Duration, answered: &mut Vec<usize>) -> Result<Instant, BoxError> {
        let mut events = Vec::with_capacity(1024);
        let timeout = Timespec::try_from(most)?;
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            // A debugger, for example, has come or gone.
            Err(Errno::INTR) => return Ok(Instant::now()),
            waited => waited?,
        };
        if events.is_empty() && most >= ANSWER_TIMEOUT {
            return Err(format!("no answer for {ANSWER_TIMEOUT:?}").into());
        }
        for event in &events {
            let (number, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(EventFlags::OUT) {
                self.write(number)?;
            }
            if flags != EventFlags::OUT && self.receive(number)? {
                answered.push(number);
            }
        }
        Ok(Instant::now())
    }

    fn connect(&self, number: usize) -> Result<Connection, BoxError> {
        let stream = match &self.talk {
            Talk::Echo => upgrade(self.to)?,
            _ => TcpStream::connect_timeout(&self.to, ANSWER_TIMEOUT)?,
        };
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let data = EventData::new_u64(number as u64);
        epoll::add(&self.epoll, &stream, data, EventFlags::IN)?;
        Ok(Connection {
            stream,
            answer: Answer::default(),
            since: None,
            request: 0,
            sent: 0,
        })
    }

    fn send(&mut self, number: usize, since: Instant) -> Result<(), BoxError> {
        if self.talk == Talk::Fresh {
            let fresh = self.connect(number)?;
            *self.connections.get_mut(number).ok_or(NONE)? = Some(fresh);
        }
        let request = self.next;
        self.next = (request + 1) % self.requests.len().max(1);
        let connection = connection(&mut self.connections, number)?;
        connection.since = Some(since);
        connection.request = request;
        connection.sent = 0;
        self.busy += 1;
        self.write(number)
    }

    fn write(&mut self, number: usize) -> Result<(), BoxError> {
        let connection = connection(&mut self.connections, number)?;
        let request = self.requests.get(connection.request).ok_or("no request")?;
        let waited = connection.sent > 0;
        while let Some(rest) = request.get(connection.sent..).filter(|r| !r.is_empty()) {
            match connection.stream.write(rest) {
                Ok(written) => connection.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let flags = EventFlags::IN | EventFlags::OUT;
                    let data = EventData::new_u64(number as u64);
                    return Ok(epoll::modify(&self.epoll, &connection.stream, data, flags)?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if waited {
            let data = EventData::new_u64(number as u64);
            epoll::modify(&self.epoll, &connection.stream, data, EventFlags::IN)?;
        }
        Ok(())
    }

    /// Whether an exchange has become complete.
    fn receive(&mut self, number: usize) -> Result<bool, BoxError> {
        let connection = connection(&mut self.connections, number)?;
        let read = match connection.stream.read(&mut self.buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Some(since) = connection.since else {
            return Err("the proxy closed a connection that was idle, or talks unasked".into());
        };
        let bytes = self.buffer.get(..read).unwrap_or_default();
        let complete = connection.answer.take(bytes, &self.talk)?;
        let fresh = self.talk == Talk::Fresh;
        if read == 0 && !(complete && fresh) {
            return Err("the proxy closed a connection in the middle of an exchange".into());
        }
        // One that is to be closed is done when it is closed.
        if !complete || (fresh && read > 0) {
            return Ok(false);
        }
        connection.answer = Answer::default();
        connection.since = None;
        if fresh {
            *self.connections.get_mut(number).ok_or(NONE)? = None;
        }
        self.busy -= 1;
        self.latencies.push(since.elapsed().as_nanos() as u64);
        Ok(true)
    }
}
