//! A gateway process, and clients of it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress::Body;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-ingress"));
    command
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A running `mesh-ingress serve`; it is killed when dropped.
pub(crate) struct Gateway {
    pub(crate) addr: SocketAddr,
    child: Child,
    /// Drained by a task, because a full pipe would block the gateway.
    log: mpsc::UnboundedReceiver<String>,
}

impl Gateway {
    /// Starts it on a free port and waits until it serves.
    pub(crate) async fn start(options: &[String]) -> Self {
        let mut command = binary();
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(options);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = sender.send(line);
            }
        });
        let mut gateway = Self {
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
            child,
            log,
        };
        let line = gateway.wait_for_line("serving on ").await;
        let (_, addr) = line.split_once("serving on ").unwrap();
        gateway.addr = addr.split_whitespace().next().unwrap().parse().unwrap();
        gateway
    }

    /// Reads its log up to a line with this text.
    pub(crate) async fn wait_for_line(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while let Some(line) = self.log.recv().await {
            if line.contains(text) {
                return line;
            }
            seen += &line;
            seen.push('\n');
        }
        panic!("it ended without saying {text:?}:\n{seen}");
    }

    pub(crate) fn terminate(&self) {
        let pid = self.child.id().unwrap().to_string();
        let kill = std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status();
        assert!(kill.unwrap().success());
    }

    /// Its resident memory (Linux).
    #[allow(dead_code)] // only one of two suites asks
    pub(crate) fn resident_kib(&self) -> usize {
        let status = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().split_whitespace().next().unwrap();
        number.parse().unwrap()
    }

    /// Waits for its end.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().await.unwrap().code()
    }

    /// One GET over HTTP/2 with prior knowledge.
    pub(crate) async fn h2c(&self, uri: &str) -> Response<Incoming> {
        let io = TokioIo::new(TcpStream::connect(self.addr).await.unwrap());
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(uri).body(Body::empty()).unwrap();
        sender.send_request(request).await.unwrap()
    }
}

/// Sends bytes and reads until the gateway closes.
pub(crate) async fn exchange_raw(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut reply = Vec::new();
    // A reset ends it as well; the bytes read before count.
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut reply));
    let _ = read
        .await
        .unwrap_or_else(|_| panic!("the connection stays open"));
    reply
}

/// The same with text.
pub(crate) async fn exchange(addr: SocketAddr, text: &str) -> String {
    String::from_utf8(exchange_raw(addr, text.as_bytes()).await).unwrap()
}
