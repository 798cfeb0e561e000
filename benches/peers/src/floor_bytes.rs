//! The floor of all: an upstream connection for each client's, and bytes copied between them as
//! they come. Knows no HTTP. What a proxy costs beyond this is what it does with the messages.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpListener;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::{BoxError, Settings};

const LISTENER: Token = Token(usize::MAX - 1);
const BUFFER: usize = 64 * 1024;

/// One direction's end.
struct Side {
    stream: TcpStream,
    /// Bytes that this side has not taken yet.
    waiting: VecDeque<u8>,
}

struct Relay {
    sides: [Side; 2],
}

pub(crate) fn run(settings: Settings, listener: TcpListener) -> Result<(), BoxError> {
    let mut poll = Poll::new()?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut relays: Vec<Option<Relay>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let slot = free.pop().unwrap_or_else(|| {
                        relays.push(None);
                        relays.len() - 1
                    });
                    relays[slot] = open(&poll, slot, client, &settings).ok();
                }
                continue;
            }
            let (slot, side) = (event.token().0 / 2, event.token().0 % 2);
            let Some(relay) = relays.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            let alive = (!event.is_writable() || relay.flush(side, &mut buffer))
                && (!event.is_readable() || relay.copy(side, event.is_read_closed(), &mut buffer));
            if !alive {
                relays[slot] = None;
                free.push(slot);
            }
        }
    }
}

fn open(poll: &Poll, slot: usize, client: TcpStream, settings: &Settings) -> io::Result<Relay> {
    client.set_nodelay(true)?;
    let origin = TcpStream::connect(settings.origin)?;
    let _ = origin.set_nodelay(true);
    let mut sides = [client, origin].map(|stream| Side {
        stream,
        waiting: VecDeque::new(),
    });
    for (number, side) in sides.iter_mut().enumerate() {
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut side.stream, Token(slot * 2 + number), interest)?;
    }
    Ok(Relay { sides })
}

impl Relay {
    /// Moves what has come from `side`; false when it has ended.
    fn copy(&mut self, side: usize, closed: bool, buffer: &mut [u8]) -> bool {
        loop {
            // Read on when what was read has been taken: the other side's event comes back here.
            if !self.sides[1 - side].waiting.is_empty() {
                return true;
            }
            let read = match self.sides[side].stream.read(buffer) {
                Ok(0) => return false,
                Ok(read) => read,
                Err(error) => return is_later(&error),
            };
            let other = &mut self.sides[1 - side];
            let written = match other.stream.write(&buffer[..read]) {
                Ok(written) => written,
                Err(error) if is_later(&error) => 0,
                Err(_) => return false,
            };
            other.waiting.extend(&buffer[written..read]);
            // Less than asked for: there is no more now, and an edge when there is.
            if read < buffer.len() && !closed {
                return true;
            }
        }
    }

    /// Writes what waits for `side`, then reads on from the other.
    fn flush(&mut self, side: usize, buffer: &mut [u8]) -> bool {
        let own = &mut self.sides[side];
        if own.waiting.is_empty() {
            return true;
        }
        while !own.waiting.is_empty() {
            match own.stream.write(own.waiting.as_slices().0) {
                Ok(written) => drop(own.waiting.drain(..written)),
                Err(error) => return is_later(&error),
            }
        }
        self.copy(1 - side, true, buffer)
    }
}

/// Not an end: not yet connected counts, too.
fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected | io::ErrorKind::Interrupted
    )
}
