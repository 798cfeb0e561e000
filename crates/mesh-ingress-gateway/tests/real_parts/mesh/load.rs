//! Clients: many requests of many kinds, each told by its outcome.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, TE, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::pods::{GRPC, WEBSOCKET};
use crate::lab::{Gateway, WAIT_TIMEOUT, poll};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// GET over HTTP/1.1.
    Get,
    /// GET over h2c.
    H2Get,
    /// POST with `Content-Length` over HTTP/1.1.
    Post,
    /// POST in chunks over HTTP/1.1.
    Chunked,
    /// A WebSocket handshake and an exchange of bytes.
    WebSocket,
    /// A unary gRPC call over h2c, whose status is a trailer.
    Grpc,
}

/// One request: its target, and the pod that is to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) host: &'static str,
    /// `name.namespace` of the services of which one is to answer.
    pub(crate) origins: &'static [&'static str],
}

/// The outcome of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) call: Call,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    /// The answer, or what is wrong with it.
    pub(crate) result: Result<Answer, String>,
}

/// A right answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Answer {
    /// `name.namespace` of the service that answered.
    pub(crate) origin: String,
    /// The `Host` it was asked for, where it tells.
    pub(crate) host: String,
}

/// Clients that send until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Outcome>>,
}

type ClientBody = UnsyncBoxBody<Bytes, Infallible>;
type Fault = Box<dyn std::error::Error + Send + Sync>;

impl Load {
    /// Sends every call once, from as many clients at a time.
    pub(crate) fn run(calls: Vec<Call>, clients: usize) -> Vec<Outcome> {
        let queue = Arc::new(Mutex::new(VecDeque::from(calls)));
        on_a_thread(
            clients,
            move || {
                queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop_front()
            },
            None,
        )
        .join()
        .expect("the clients")
    }

    /// Sends the calls over and over, each client one about every `pause`.
    pub(crate) fn start(calls: Vec<Call>, clients: usize, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let (stopped, count) = (stop.clone(), sent.clone());
        let cycle = Arc::new(Mutex::new(calls.into_iter().cycle()));
        let next = move || {
            if stopped.load(Ordering::Relaxed) {
                return None;
            }
            count.fetch_add(1, Ordering::Relaxed);
            cycle.lock().unwrap_or_else(PoisonError::into_inner).next()
        };
        Self {
            stop,
            sent,
            thread: on_a_thread(clients, next, Some(pause)),
        }
    }

    /// Waits until so many calls more have been sent.
    pub(crate) fn wait_for_more(&self, calls: usize) {
        let goal = self.sent.load(Ordering::Relaxed) + calls;
        poll(WAIT_TIMEOUT, &format!("{calls} calls more"), || {
            (self.sent.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Lets it go on for a time, for what is measured in time.
    pub(crate) fn go_on_for(&self, time: Duration) {
        thread::sleep(time);
    }

    pub(crate) fn stop(self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the clients")
    }
}

fn on_a_thread(
    clients: usize,
    next: impl Fn() -> Option<Call> + Send + Sync + 'static,
    pause: Option<Duration>,
) -> JoinHandle<Vec<Outcome>> {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async move {
            let next = Arc::new(next);
            let mut running = Vec::new();
            for _ in 0..clients {
                let next = next.clone();
                running.push(tokio::spawn(async move {
                    let mut client = Client::default();
                    let mut outcomes = Vec::new();
                    while let Some(call) = next() {
                        outcomes.push(client.outcome(call).await);
                        if let Some(pause) = pause {
                            tokio::time::sleep(pause).await;
                        }
                    }
                    outcomes
                }));
            }
            let mut outcomes = Vec::new();
            for client in running {
                outcomes.extend(client.await.expect("a client"));
            }
            outcomes
        })
    })
}

/// A client that keeps its connections, as browsers do.
#[derive(Default)]
struct Client {
    h1: Option<http1::SendRequest<ClientBody>>,
    h2: Option<http2::SendRequest<ClientBody>>,
}

impl Client {
    async fn outcome(&mut self, call: Call) -> Outcome {
        let started = Instant::now();
        let result = match tokio::time::timeout(PATIENCE, self.send(call)).await {
            Ok(result) => result.map_err(|fault| fault.to_string()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        if result.is_err() {
            *self = Self::default();
        }
        Outcome {
            call,
            started,
            ended: Instant::now(),
            result,
        }
    }

    async fn send(&mut self, call: Call) -> Result<Answer, Fault> {
        match call.kind {
            Kind::Get => {
                let response = self.h1(request(call, Method::GET, "/get", empty())).await?;
                expect_echo(call, response, 0).await
            }
            Kind::H2Get => {
                let response = self.h2(request(call, Method::GET, "/h2", empty())).await?;
                expect_echo(call, response, 0).await
            }
            Kind::Post => {
                let body = Full::new(Bytes::from_static(&[b'x'; 3000])).boxed_unsync();
                let response = self.h1(request(call, Method::POST, "/post", body)).await?;
                expect_echo(call, response, 3000).await
            }
            Kind::Chunked => {
                let chunks = (0..20).map(|_| Ok(Frame::data(Bytes::from_static(&[b'y'; 700]))));
                let body = StreamBody::new(futures_util::stream::iter(chunks)).boxed_unsync();
                let response = self
                    .h1(request(call, Method::POST, "/chunked", body))
                    .await?;
                expect_echo(call, response, 14_000).await
            }
            Kind::WebSocket => websocket(call).await,
            Kind::Grpc => self.grpc(call).await,
        }
    }

    async fn h1(&mut self, request: Request<ClientBody>) -> Result<Response<Incoming>, Fault> {
        if self.h1.as_mut().is_none_or(|sender| sender.is_closed()) {
            self.h1 = None;
        }
        let sender = match &mut self.h1 {
            Some(sender) => sender,
            none => none.insert(connect_h1().await?),
        };
        sender.ready().await?;
        Ok(sender.send_request(request).await?)
    }

    async fn h2(&mut self, request: Request<ClientBody>) -> Result<Response<Incoming>, Fault> {
        if self.h2.as_mut().is_none_or(|sender| sender.is_closed()) {
            let stream = connect().await?;
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            self.h2 = Some(sender);
        }
        let sender = self.h2.as_mut().ok_or("no connection")?;
        sender.ready().await?;
        // HTTP/2 takes `:authority` from it.
        let (mut parts, body) = request.into_parts();
        let host = parts.headers.remove(HOST).ok_or("no Host")?;
        parts.uri = format!("http://{}{}", host.to_str()?, parts.uri.path()).parse()?;
        parts.version = Version::HTTP_2;
        Ok(sender
            .send_request(Request::from_parts(parts, body))
            .await?)
    }

    async fn grpc(&mut self, call: Call) -> Result<Answer, Fault> {
        // A message of five bytes: not compressed, its length, itself.
        const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";
        let body = Full::new(Bytes::from_static(MESSAGE)).boxed_unsync();
        let mut request = request(call, Method::POST, GRPC, body);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let response = self.h2(request).await?;
        let (origin, response) = expect_origin(call, StatusCode::OK, response)?;
        let collected = response.into_body().collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        if trailers.get("grpc-status").map(HeaderValue::as_bytes) != Some(b"0") {
            return Err(format!("trailers: {trailers:?}").into());
        }
        match collected.to_bytes() {
            bytes if bytes == MESSAGE => Ok(Answer {
                origin,
                ..Answer::default()
            }),
            bytes => Err(format!("another message: {bytes:?}").into()),
        }
    }
}

async fn connect() -> Result<TcpStream, Fault> {
    let stream = TcpStream::connect(Gateway::ADDR).await?;
    // A body right after its head is not to wait for an acknowledgement.
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect_h1() -> Result<http1::SendRequest<ClientBody>, Fault> {
    let stream = connect().await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

async fn websocket(call: Call) -> Result<Answer, Fault> {
    let mut request = request(call, Method::GET, WEBSOCKET, empty());
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
    headers.insert(
        "sec-websocket-key",
        HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="),
    );
    let response = connect_h1().await?.send_request(request).await?;
    let (origin, response) = expect_origin(call, StatusCode::SWITCHING_PROTOCOLS, response)?;
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await?);
    // A masked text frame (RFC 6455 §5.7); to gateway and sidecar it is just bytes.
    const FRAME: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    for _ in 0..3 {
        stream.write_all(FRAME).await?;
        let mut echoed = [0; FRAME.len()];
        stream.read_exact(&mut echoed).await?;
        if echoed != FRAME {
            return Err(format!("other bytes: {echoed:?}").into());
        }
    }
    stream.shutdown().await?;
    Ok(Answer {
        origin,
        ..Answer::default()
    })
}

fn request(call: Call, method: Method, path: &str, body: ClientBody) -> Request<ClientBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("a path");
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static(call.host));
    request
}

fn empty() -> ClientBody {
    Empty::new().boxed_unsync()
}

/// Checks which pod answered.
fn expect_origin(
    call: Call,
    status: StatusCode,
    response: Response<Incoming>,
) -> Result<(String, Response<Incoming>), Fault> {
    let text = |headers: &HeaderMap, name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let origin = text(response.headers(), "x-origin");
    if response.status() == status && call.origins.contains(&origin.as_str()) {
        return Ok((origin, response));
    }
    let proxy_status = text(response.headers(), "proxy-status");
    Err(format!("{} from {origin:?}; {proxy_status}", response.status()).into())
}

/// Checks which pod answered and that the whole body arrived.
async fn expect_echo(
    call: Call,
    response: Response<Incoming>,
    sent: usize,
) -> Result<Answer, Fault> {
    let (origin, response) = expect_origin(call, StatusCode::OK, response)?;
    let body = response.into_body().collect().await?.to_bytes();
    let body = String::from_utf8_lossy(&body);
    let field = |name: &str| body.lines().find_map(|line| line.strip_prefix(name));
    let host = field("host: ").ok_or("no echo")?.to_owned();
    match field("body-length: ") {
        Some(length) if length != sent.to_string() => Err(format!("{length} bytes arrived").into()),
        // nginx does not tell the length.
        _ => Ok(Answer { origin, host }),
    }
}
