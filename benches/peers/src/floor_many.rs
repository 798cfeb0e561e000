//! The floor with a thousand origins: bytes copied as they come, each message of a client over the
//! next of a thousand connections to as many addresses. Knows no HTTP, no names and no routes: what it
//! costs beyond a connection for each client is what so many sockets cost the kernel.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::{BoxError, Settings};

const LISTENER: Token = Token(usize::MAX - 1);
/// Clients are below, origins are above.
const ORIGINS: usize = 1 << 20;
const BUFFER: usize = 64 * 1024;

/// A socket, and where its bytes go.
struct End {
    stream: TcpStream,
    other: Option<usize>,
}

#[derive(Default)]
struct Relays {
    clients: Vec<Option<End>>,
    origins: Vec<Option<End>>,
    next: usize,
}

pub(crate) fn run(settings: Settings, listener: TcpListener) -> Result<(), BoxError> {
    let mut poll = Poll::new()?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut relays = Relays::default();
    relays.origins.resize_with(settings.origins, || None);
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match event.token() {
                LISTENER => {
                    while let Ok((stream, _)) = listener.accept() {
                        relays.accept(&poll, stream)?;
                    }
                }
                _ if !event.is_readable() => {}
                Token(number) if number < ORIGINS => {
                    relays.ask(&poll, number, &settings, &mut buffer)?;
                }
                Token(number) => relays.answer(number - ORIGINS, &mut buffer)?,
            }
        }
    }
}

impl Relays {
    fn accept(&mut self, poll: &Poll, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let free = self.clients.iter().position(Option::is_none);
        let number = free.unwrap_or(self.clients.len());
        register(poll, &mut stream, number)?;
        let client = End {
            stream,
            other: None,
        };
        if number == self.clients.len() {
            self.clients.push(None);
        }
        self.clients[number] = Some(client);
        Ok(())
    }

    /// The bytes of a client go to the next origin.
    fn ask(
        &mut self,
        poll: &Poll,
        number: usize,
        settings: &Settings,
        buffer: &mut [u8],
    ) -> Result<(), BoxError> {
        let Some(client) = self.clients.get_mut(number).and_then(Option::as_mut) else {
            return Ok(());
        };
        let read = match client.stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Ok(0) | Err(_) => {
                self.clients[number] = None;
                return Ok(());
            }
            Ok(read) => read,
        };
        let origin = self.next % self.origins.len();
        self.next += 1;
        client.other = Some(origin);
        let place = &mut self.origins[origin];
        if place.is_none() {
            let address = address_of(origin, settings.origin.port());
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            register(poll, &mut stream, ORIGINS + origin)?;
            let other = None;
            *place = Some(End { stream, other });
        }
        if let Some(origin) = place {
            origin.other = Some(number);
            all(origin.stream.write(&buffer[..read])?, read)?;
        }
        Ok(())
    }

    /// The bytes of an origin go to the client that used it last.
    fn answer(&mut self, number: usize, buffer: &mut [u8]) -> Result<(), BoxError> {
        let Some(origin) = self.origins[number].as_mut() else {
            return Ok(());
        };
        let read = match origin.stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Ok(0) | Err(_) => {
                self.origins[number] = None;
                return Ok(());
            }
            Ok(read) => read,
        };
        let client = origin.other.and_then(|client| self.clients.get_mut(client));
        if let Some(client) = client.and_then(Option::as_mut) {
            all(client.stream.write(&buffer[..read])?, read)?;
        }
        Ok(())
    }
}

fn register(poll: &Poll, stream: &mut TcpStream, number: usize) -> io::Result<()> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(stream, Token(number), interest)
}

/// Messages are small, and each client has one under way: they fit.
fn all(written: usize, of: usize) -> Result<(), BoxError> {
    match written == of {
        true => Ok(()),
        false => Err("a message did not fit into a socket's buffer".into()),
    }
}

/// Where the harness has the origin of one of many Services.
fn address_of(number: usize, port: u16) -> SocketAddr {
    let (high, low) = (number / 250, number % 250);
    let address = Ipv4Addr::new(127, 1, high as u8, low as u8 + 1);
    SocketAddr::new(IpAddr::V4(address), port)
}
