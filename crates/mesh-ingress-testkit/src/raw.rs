//! An origin that does what a script says, byte for byte.

mod script;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::script::Step;
use crate::socket::Closable;

/// A TCP server that follows a script on each connection and records every byte it receives: for
/// upstreams that break the protocol, stall, or vanish.
///
/// The first connection follows the first script, the second the second; further ones repeat the
/// last. After its last step a connection is read (and recorded) until the client closes it, then
/// closed. It stops when dropped: connections are cut and the port is free at once.
///
/// ```
/// use mesh_ingress_testkit::{RawOrigin, Step};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// // Promises ten bytes, sends five and resets the connection.
/// let origin = RawOrigin::start([vec![
///     Step::ReadHead,
///     Step::send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"),
///     Step::Reset,
/// ]])
/// .await?;
///
/// let mut client = tokio::net::TcpStream::connect(origin.addr()).await?;
/// client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await?;
/// assert!(client.read_to_end(&mut Vec::new()).await.is_err());
/// assert!(origin.received(0).starts_with(b"GET / HTTP/1.1\r\n"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RawOrigin {
    addr: SocketAddr,
    listener: Closable<TcpListener>,
    records: Records,
    _tasks: JoinSet<()>,
}

/// How a connection of a [`RawOrigin`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Closed {
    /// The script closed or reset it.
    ByScript,
    /// The client closed it: after what it sent, nothing more was to come.
    ByClient,
    /// The connection broke: a reset by the client, say.
    Broken(io::ErrorKind),
}

/// The bytes received on each connection.
#[derive(Clone, Debug)]
pub(crate) struct Records(Arc<watch::Sender<Vec<Record>>>);

#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) received: Vec<u8>,
    pub(crate) closed: Option<Closed>,
}

impl RawOrigin {
    /// Starts on a free port of `127.0.0.1`.
    ///
    /// # Errors
    /// As [`start_on`](Self::start_on).
    pub async fn start(scripts: impl IntoIterator<Item = Vec<Step>>) -> io::Result<Self> {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), scripts).await
    }

    /// Starts on an address. Without any script, connections are only read.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start_on(
        addr: SocketAddr,
        scripts: impl IntoIterator<Item = Vec<Step>>,
    ) -> io::Result<Self> {
        let scripts: Vec<Arc<[Step]>> = scripts.into_iter().map(Arc::from).collect();
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let listener = Closable::new(listener);
        let records = Records(Arc::new(watch::Sender::new(Vec::new())));
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (listener, records) = (listener.clone(), records.clone());
            async move {
                let mut connections = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await;
                    let _ = stream.set_nodelay(true);
                    let index = records.begin();
                    let script = scripts.get(index).or(scripts.last()).cloned();
                    let records = records.clone();
                    connections.spawn(async move {
                        let script = script.as_deref().unwrap_or_default();
                        let closed = script::run(stream, script, |bytes| {
                            records.receive(index, bytes);
                        });
                        records.end(index, closed.await);
                    });
                    while connections.try_join_next().is_some() {}
                }
            }
        });
        Ok(Self {
            addr,
            listener,
            records,
            _tasks: tasks,
        })
    }

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections have been accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.records.0.borrow().len()
    }

    /// All bytes that the steps so far have read from a connection, counted from 0; empty if there
    /// is none.
    #[must_use]
    pub fn received(&self, connection: usize) -> Vec<u8> {
        let records = self.records.0.borrow();
        let record = records.get(connection);
        record
            .map(|record| record.received.clone())
            .unwrap_or_default()
    }

    /// How a connection ended; `None` while it is open, or before there is one.
    #[must_use]
    pub fn closed(&self, connection: usize) -> Option<Closed> {
        self.records.0.borrow().get(connection)?.closed
    }

    /// Waits until at least `count` connections have been accepted.
    pub async fn wait_for_connections(&self, count: usize) {
        self.records.wait(|records| records.len() >= count).await;
    }

    /// Waits until something holds of the bytes received on a connection.
    pub async fn wait_for_received(&self, connection: usize, reached: impl Fn(&[u8]) -> bool) {
        self.records
            .wait(|records| {
                let record = records.get(connection);
                record.is_some_and(|record| reached(&record.received))
            })
            .await;
    }

    /// Waits until a connection has ended, and tells how.
    pub async fn wait_for_closed(&self, connection: usize) -> Closed {
        loop {
            self.records
                .wait(|records| records.get(connection).is_some_and(|r| r.closed.is_some()))
                .await;
            if let Some(closed) = self.closed(connection) {
                return closed;
            }
        }
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.listener.close();
    }
}

impl Records {
    fn begin(&self) -> usize {
        let mut index = 0;
        self.0.send_modify(|records| {
            index = records.len();
            records.push(Record::default());
        });
        index
    }

    fn receive(&self, index: usize, bytes: &[u8]) {
        self.change(index, |record| record.received.extend_from_slice(bytes));
    }

    fn end(&self, index: usize, closed: Closed) {
        self.change(index, |record| record.closed = Some(closed));
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut Record)) {
        self.0.send_modify(|records| {
            if let Some(record) = records.get_mut(index) {
                change(record);
            }
        });
    }

    async fn wait(&self, reached: impl Fn(&[Record]) -> bool) {
        let mut changes = self.0.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = changes.wait_for(|records| reached(records)).await;
    }
}
