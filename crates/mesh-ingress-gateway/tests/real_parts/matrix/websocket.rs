//! A WebSocket client over HTTP/1.1 (RFC 6455) and over HTTP/2 (RFC 8441).

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::HeaderValue;
use http::{Method, Request, StatusCode, Version};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::app::{TELL, WEBSOCKET};
use super::client::PUBLIC_HOST;
use super::origin::Speaks;
use crate::lab::Gateway;

const PATIENCE: Duration = Duration::from_secs(10);

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The outcome of a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was opened, each message came back as it was sent, and it was closed in order.
    Echoed,
    /// It was refused with this status.
    Refused(StatusCode),
}

/// Opens a WebSocket, has messages echoed and closes it.
pub(crate) fn echo(speaks: Speaks) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let echoed = async {
            match speaks {
                Speaks::Http1 => over_http1().await,
                Speaks::H2c => over_http2().await,
            }
        };
        match tokio::time::timeout(PATIENCE, echoed).await {
            Ok(result) => result.map_err(|fault| with_causes(&*fault)),
            Err(_) => Err(format!("not done within {PATIENCE:?}")),
        }
    })
}

fn with_causes(fault: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(fault), |error| error.source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

async fn connect() -> Result<TcpStream, Fault> {
    let stream = TcpStream::connect(Gateway::ADDR).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The library makes the key and checks the answer to it (RFC 6455 §4.1).
async fn over_http1() -> Result<Outcome, Fault> {
    let url = format!("ws://{PUBLIC_HOST}{WEBSOCKET}");
    match client_async(url, connect().await?).await {
        Ok((socket, _)) => exchange(socket).await,
        Err(WebSocketError::Http(response)) => Ok(Outcome::Refused(response.status())),
        Err(error) => Err(error.into()),
    }
}

async fn over_http2() -> Result<Outcome, Fault> {
    let io = TokioIo::new(connect().await?);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);

    // A client must not send an extended CONNECT before SETTINGS allow it (RFC 8441 §3); they come before
    // the first response.
    let mut first = Request::new(Empty::<Bytes>::new());
    *first.uri_mut() = format!("http://{PUBLIC_HOST}{TELL}").parse()?;
    *first.version_mut() = Version::HTTP_2;
    let status = sender.send_request(first).await?.status();
    if status != StatusCode::OK {
        return Err(format!("{status} before the CONNECT").into());
    }

    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = format!("http://{PUBLIC_HOST}{WEBSOCKET}").parse()?;
    *request.version_mut() = Version::HTTP_2;
    let protocol = Protocol::from_static("websocket");
    request.extensions_mut().insert(protocol);
    let version = HeaderValue::from_static("13");
    request
        .headers_mut()
        .insert("sec-websocket-version", version);
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Ok(Outcome::Refused(response.status()));
    }
    // The fields of the HTTP/1.1 handshake are not used in HTTP/2 (RFC 8441 §5).
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        if let Some(value) = response.headers().get(name) {
            return Err(format!("{name}: {value:?} over HTTP/2").into());
        }
    }
    let io = TokioIo::new(hyper::upgrade::on(response).await?);
    exchange(WebSocketStream::from_raw_socket(io, Role::Client, None).await).await
}

async fn exchange<S>(mut socket: WebSocketStream<S>) -> Result<Outcome, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let large: Bytes = (0..=u8::MAX).cycle().take(100_000).collect();
    let messages = [
        Message::text("hello"),
        Message::binary(Bytes::new()),
        Message::binary(large),
        Message::text("and good-bye"),
    ];
    for message in messages {
        socket.send(message.clone()).await?;
        match socket.next().await.transpose()? {
            Some(echoed) if echoed == message => {}
            other => {
                let length = message.len();
                return Err(format!("for {length} bytes: {other:.200?}").into());
            }
        }
    }
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: "done".into(),
    };
    socket.close(Some(frame.clone())).await?;
    match socket.next().await.transpose()? {
        Some(Message::Close(Some(answer))) if answer.code == frame.code => {}
        other => return Err(format!("instead of a Close: {other:?}").into()),
    }
    // After both Close frames the server closes the connection (RFC 6455 §7.1.1).
    match socket.next().await {
        None => Ok(Outcome::Echoed),
        Some(other) => Err(format!("after the Close: {other:?}").into()),
    }
}
