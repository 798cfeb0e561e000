//! An origin whose connections the test serves itself, byte by byte.
#![allow(dead_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Stops when dropped.
pub(crate) struct Pod {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

/// Counts connections, of one pod or of several, as the kernel has them.
///
/// On a new connection, it asks the kernel which of the others their client still holds open: a
/// closed one does not count any more, even if its server has not noticed yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    taken: Mutex<Vec<Weak<TcpStream>>>,
    most: AtomicUsize,
}

impl Meter {
    fn take(&self, stream: &Arc<TcpStream>) {
        let mut taken = self.0.taken.lock().unwrap();
        taken.retain(|stream| stream.strong_count() > 0);
        taken.push(Arc::downgrade(stream));
        let streams: Vec<_> = taken.iter().filter_map(Weak::upgrade).collect();
        let mut polled: Vec<_> = streams
            .iter()
            .map(|stream| PollFd::new(&**stream, PollFlags::RDHUP))
            .collect();
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut polled, Some(&at_once)).unwrap();
        let open = polled.iter().filter(|polled| polled.revents().is_empty());
        self.0.most.fetch_max(open.count(), Ordering::SeqCst);
    }

    /// The most connections that were open at the same time.
    pub(crate) fn most(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }
}

/// A connection to a pod.
pub(crate) struct Connection {
    stream: Arc<TcpStream>,
    read: BytesMut,
    /// The number of connections before it.
    pub(crate) number: usize,
    _open: Open,
}

struct Open(watch::Sender<usize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// The head of a request.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) text: String,
}

impl Pod {
    /// Serves each connection with `serve`.
    pub(crate) async fn start<F>(serve: impl Fn(Connection) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::metered(Vec::new(), serve).await
    }

    /// The same, with a counter.
    pub(crate) async fn metered<F>(
        meters: Vec<Meter>,
        serve: impl Fn(Connection) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (opened, open) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let accepted = Arc::clone(&accepted);
            async move {
                let mut connections = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let stream = Arc::new(stream);
                    for meter in &meters {
                        meter.take(&stream);
                    }
                    opened.send_modify(|open| *open += 1);
                    connections.spawn(serve(Connection {
                        stream,
                        read: BytesMut::new(),
                        number: accepted.fetch_add(1, Ordering::SeqCst),
                        _open: Open(opened.clone()),
                    }));
                    while connections.try_join_next().is_some() {}
                }
            }
        });
        Self {
            addr,
            accepted,
            open,
            _tasks: tasks,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The number of accepted connections.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The number of connections that are still being served.
    pub(crate) fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Waits until `open` connections are left.
    pub(crate) async fn wait_for_open(&self, open: usize) {
        let mut changes = self.open.clone();
        changes.wait_for(|now| *now == open).await.unwrap();
    }
}

impl Connection {
    /// The head of the next request; `None` at the end of the connection.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        let mut seen = 0;
        loop {
            let from = seen.min(self.read.len());
            let end = self.read[from..].windows(4).position(|w| w == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.read.split_to(from + end + 4);
                let text = String::from_utf8(head.into()).unwrap();
                return Some(Head { text });
            }
            seen = self.read.len().saturating_sub(3);
            self.more().await?;
        }
    }

    /// Reads the body of a request; `None` if it is cut off.
    pub(crate) async fn body(&mut self, head: &Head) -> Option<Bytes> {
        if let Some(length) = head.field("content-length") {
            return self.bytes(length.parse().unwrap()).await;
        }
        let mut body = BytesMut::new();
        if head.field("transfer-encoding").is_some() {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                body.extend(self.bytes(size).await?);
                self.bytes(2).await?;
                if size == 0 {
                    break;
                }
            }
        }
        Some(body.freeze())
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                return String::from_utf8(line.into()).ok();
            }
            self.more().await?;
        }
    }

    async fn bytes(&mut self, count: usize) -> Option<Bytes> {
        while self.read.len() < count {
            self.more().await?;
        }
        Some(self.read.split_to(count).freeze())
    }

    /// Reads more bytes; `None` at the end of the connection.
    pub(crate) async fn more(&mut self) -> Option<()> {
        let mut stream = Shared(Arc::clone(&self.stream));
        let read = stream.read_buf(&mut self.read).await;
        read.ok().filter(|read| *read > 0).map(|_| ())
    }

    /// Sends bytes; `None` if that fails.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Option<()> {
        let mut stream = Shared(Arc::clone(&self.stream));
        stream.write_all(bytes.as_ref()).await.ok()
    }

    /// Reads until the client closes the connection.
    pub(crate) async fn ended(mut self) {
        while self.more().await.is_some() {
            self.read.clear();
        }
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        let _ = SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO));
    }
}

impl Head {
    pub(crate) fn method(&self) -> &str {
        self.text.split(' ').next().unwrap()
    }

    pub(crate) fn path(&self) -> &str {
        self.text.split(' ').nth(1).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// For HTTP servers that need to own the stream.
impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.has_remaining() {
            let length = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut Shared(Arc::clone(&self.stream))).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut Shared(Arc::clone(&self.stream))).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}

struct Shared(Arc<TcpStream>);

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(length) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
