//! The steps of a script, and following them.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Closed;
use crate::Gate;

/// One thing a [`RawOrigin`](crate::RawOrigin) does on a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Reads up to and with the next empty line, which ends an HTTP/1 head.
    ReadHead,
    /// Reads this many bytes. Those that came along with a head count.
    ReadBody(usize),
    /// Reads up to and with these bytes, such as `0\r\n\r\n`.
    ReadUntil(Bytes),
    /// Reads until the client has closed its side.
    ReadToEnd,
    /// Sends bytes and waits until the kernel has them.
    Send(Bytes),
    /// Closes the sending side only (FIN).
    CloseWrite,
    /// Closes the connection. If there is something unread the kernel makes a reset of it.
    Close,
    /// Resets the connection (RST): both sides, at once.
    Reset,
    /// Waits until the gate is open, and reads nothing meanwhile.
    Hold(Gate),
}

impl Step {
    /// [`Send`](Self::Send) of anything that is bytes.
    #[must_use]
    pub fn send(bytes: impl Into<Bytes>) -> Self {
        Self::Send(bytes.into())
    }
}

/// Reads for the steps, and remembers what no step has asked for yet.
struct Reader<R> {
    stream: TcpStream,
    unused: Vec<u8>,
    received: R,
}

/// Follows a script to its end, and reads on until the client closes.
pub(super) async fn run(stream: TcpStream, script: &[Step], received: impl FnMut(&[u8])) -> Closed {
    let mut reader = Reader {
        stream,
        unused: Vec::new(),
        received,
    };
    match reader.follow(script).await {
        Ok(closed) => closed,
        // In the middle of a step: a script that expects more than comes.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Closed::ByClient,
        Err(error) => Closed::Broken(error.kind()),
    }
}

impl<R: FnMut(&[u8])> Reader<R> {
    async fn follow(&mut self, script: &[Step]) -> io::Result<Closed> {
        for step in script {
            if let Some(closed) = self.take(step).await? {
                return Ok(closed);
            }
        }
        self.read_to_end().await?;
        Ok(Closed::ByClient)
    }

    async fn take(&mut self, step: &Step) -> io::Result<Option<Closed>> {
        match step {
            Step::ReadHead => self.read_until(b"\r\n\r\n").await?,
            Step::ReadBody(length) => {
                while self.unused.len() < *length {
                    self.read().await?;
                }
                self.unused.drain(..*length);
            }
            Step::ReadUntil(end) => self.read_until(end).await?,
            Step::ReadToEnd => self.read_to_end().await?,
            Step::Send(bytes) => {
                self.stream.write_all(bytes).await?;
                self.stream.flush().await?;
            }
            Step::CloseWrite => self.stream.shutdown().await?,
            Step::Close => return Ok(Some(Closed::ByScript)),
            Step::Reset => {
                SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
                return Ok(Some(Closed::ByScript));
            }
            Step::Hold(gate) => gate.opened().await,
        }
        Ok(None)
    }

    async fn read_until(&mut self, end: &[u8]) -> io::Result<()> {
        if end.is_empty() {
            return Ok(());
        }
        loop {
            if let Some(at) = self.unused.windows(end.len()).position(|w| w == end) {
                self.unused.drain(..at + end.len());
                return Ok(());
            }
            self.read().await?;
        }
    }

    async fn read_to_end(&mut self) -> io::Result<()> {
        self.unused.clear();
        loop {
            match self.read().await {
                Ok(()) => self.unused.clear(),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads something; the end of the stream is an error.
    async fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        let length = self.stream.read(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.received)(bytes);
        self.unused.extend_from_slice(bytes);
        Ok(())
    }
}
