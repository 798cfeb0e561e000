//! A client that parses responses strictly.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

/// The bound of every wait, far longer than anything takes.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to the gateway.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// Read, but not yet parsed.
    unused: Vec<u8>,
}

/// A response, as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Status line and fields, each with its CRLF.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The trailers with their CRLFs, if it came in chunks.
    pub(crate) trailers: Option<String>,
}

impl Reply {
    /// The values of a field, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        field_values(&self.head, name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Whether it says `Connection: close`.
    pub(crate) fn closes(&self) -> bool {
        self.values("connection").contains(&"close")
    }
}

/// The values of a field of a head, in order.
pub(crate) fn field_values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.trim()).collect()
}

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    let what = tokio::time::timeout(WAIT_TIMEOUT, what).await;
    what.unwrap_or_else(|_| panic!("it does not happen"))
}

impl Client {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            unused: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Sends as much as the other end takes, and reads meanwhile, so that two ends that both write do
    /// not wait for each other.
    pub(crate) async fn send_and_read(&mut self, mut bytes: &[u8]) {
        let both = Interest::READABLE | Interest::WRITABLE;
        while !bytes.is_empty() {
            let ready = soon(self.stream.ready(both)).await.unwrap();
            if ready.is_readable() {
                match self.stream.try_read_buf(&mut self.unused) {
                    Ok(1..) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // The end of the connection, or an error.
                    Ok(0) | Err(_) => return,
                }
            }
            match self.stream.try_write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Reads more; false at the end of the connection or an error.
    async fn read(&mut self) -> bool {
        soon(self.stream.read_buf(&mut self.unused))
            .await
            .is_ok_and(|length| length > 0)
    }

    /// Bytes up to and with these.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unused.windows(end.len()).position(|part| part == end) {
                return self.unused.drain(..at + end.len()).collect();
            }
            let read = String::from_utf8_lossy(&self.unused).into_owned();
            assert!(self.read().await, "it ends with {read:?}");
        }
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.unused.len() < length {
            let read = self.unused.len();
            assert!(self.read().await, "it ends after {read} of {length}");
        }
        self.unused.drain(..length).collect()
    }

    /// This many bytes, unless the connection ends before.
    pub(crate) async fn exactly_or_end(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unused.len() < length {
            if !self.read().await {
                return None;
            }
        }
        Some(self.unused.drain(..length).collect())
    }

    /// All that comes until the connection ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.read().await {}
        std::mem::take(&mut self.unused)
    }

    /// The same after closing the sending half.
    pub(crate) async fn rest_after_fin(&mut self) -> Vec<u8> {
        // Fails if the gateway has closed already.
        let _ = self.stream.shutdown().await;
        self.rest().await
    }

    /// The head of a response, an interim one included.
    pub(crate) async fn head(&mut self) -> (u16, String) {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).unwrap();
        let head = head.strip_suffix("\r\n").unwrap().to_owned();
        assert!(
            !head.replace("\r\n", "").contains(['\r', '\n', '\0']),
            "{head:?}"
        );
        let version = head.get(..9).unwrap();
        assert!(["HTTP/1.1 ", "HTTP/1.0 "].contains(&version), "{head}");
        (head[9..12].parse().unwrap(), head)
    }

    /// The response to a request with a method.
    pub(crate) async fn reply_to(&mut self, method: &str) -> Reply {
        let (status, head) = self.head().await;
        let mut reply = Reply {
            status,
            head,
            body: Vec::new(),
            trailers: None,
        };
        let codings = reply.values("transfer-encoding");
        let lengths = reply.values("content-length");
        assert!(codings.is_empty() || lengths.is_empty(), "{}", reply.head);
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        if bodiless {
            return reply;
        }
        match (&codings[..], &lengths[..]) {
            (["chunked"], []) => loop {
                let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                if size == 0 {
                    let mut trailers = String::new();
                    loop {
                        let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
                        if line == "\r\n" {
                            reply.trailers = Some(trailers);
                            return reply;
                        }
                        trailers += &line;
                    }
                }
                reply.body.extend(self.exactly(size).await);
                assert_eq!(self.exactly(2).await, b"\r\n");
            },
            ([], [length]) => reply.body = self.exactly(length.parse().unwrap()).await,
            ([], []) => reply.body = self.rest().await,
            _ => panic!("no good framing: {}", reply.head),
        }
        reply
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    /// The connection ends, and nothing more comes.
    pub(crate) async fn ends(&mut self) {
        let rest = self.rest().await;
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}
