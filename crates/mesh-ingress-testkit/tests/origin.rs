//! The echo origin, over both protocols.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests, too

mod common;

use std::net::SocketAddr;

use bytes::Bytes;
use common::{Answer, get, get2, http1, send1, send2, with_trailers};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress_core::Body;
use mesh_ingress_testkit::{Behaviour, BodyEnd, Gate, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn post(path: &str, body: &'static [u8]) -> Request<Body> {
    Request::post(path)
        .header("host", "web")
        .body(Body::new(Full::new(Bytes::from_static(body))))
        .unwrap()
}

#[tokio::test]
async fn echo_tells_what_arrived_in_a_stable_form() {
    let origin = Origin::builder().name("web").start().await.unwrap();
    let mut client = http1(origin.addr()).await;
    let mut request = post("/cart?id=7", b"hello");
    request.headers_mut().insert("x-a", "1".parse().unwrap());
    let answer = send1(&mut client, request).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("x-origin"), Some("web"));
    assert_eq!(answer.header("x-connection"), Some("1"));
    assert_eq!(
        answer.text(),
        "origin: web\nconnection: 1\nversion: HTTP/1.1\nmethod: POST\ntarget: /cart?id=7\n\
         host: web\nbody-length: 5\n\nhost: web\nx-a: 1\ncontent-length: 5\n"
    );
}

#[tokio::test]
async fn one_port_speaks_both_protocols() {
    let origin = Origin::start().await.unwrap();
    let first = send1(&mut http1(origin.addr()).await, get("one", "/")).await;
    assert!(first.text().contains("version: HTTP/1.1\n"));
    let second = send2(&common::http2(origin.addr()).await, get2("two:81", "/b?c")).await;
    assert!(second.text().contains("version: HTTP/2.0\n"));
    assert!(second.text().contains("\ntarget: /b?c\nhost: two:81\n"));
    assert_eq!(second.header("x-connection"), Some("2"));

    let requests = origin.requests();
    assert_eq!(requests[0].version, Version::HTTP_11);
    assert_eq!(requests[1].version, Version::HTTP_2);
    assert_eq!(requests[0].host(), Some("one"));
    assert_eq!(requests[1].host(), Some("two:81"));
    assert_eq!(
        requests.iter().map(|r| r.connection).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(requests[0].local_addr, origin.addr());
    assert_ne!(requests[0].peer, requests[1].peer);
}

#[tokio::test]
async fn requests_are_recorded_with_body_and_trailers() {
    let origin = Origin::builder()
        .behaviour(Behaviour::EchoBody)
        .start()
        .await
        .unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    let frames = || with_trailers(b"payload", trailers.clone());
    let one = Request::post("/")
        .header("host", "web")
        .header("te", "trailers")
        .header("trailer", "x-sum")
        .header("content-type", "text/csv")
        .body(frames())
        .unwrap();
    let two = Request::post("http://web/").body(frames()).unwrap();
    let one = send1(&mut http1(origin.addr()).await, one).await;
    let two = send2(&common::http2(origin.addr()).await, two).await;
    assert_eq!(one.header("content-type"), Some("text/csv"));
    for answer in [one, two] {
        assert_eq!(answer.text(), "payload");
        assert_eq!(answer.trailers, Some(trailers.clone()));
    }
    for request in origin.requests() {
        assert_eq!(request.method, Method::POST);
        assert_eq!(request.body, b"payload");
        assert_eq!(request.body_len, 7);
        assert_eq!(request.body_end, BodyEnd::Complete);
        assert_eq!(request.trailers, Some(trailers.clone()));
    }
    origin.clear_requests();
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn long_bodies_stream_both_ways() {
    const LENGTH: u64 = 10_000_000;
    let origin = Origin::builder()
        .at("/known", Behaviour::StreamBytes(LENGTH))
        .at("/chunked", Behaviour::StreamChunked(LENGTH))
        .at("/upload", Behaviour::Drain)
        .start()
        .await
        .unwrap();
    let mut client = http1(origin.addr()).await;
    let known = send1(&mut client, get("web", "/known?q")).await;
    assert_eq!(known.header("content-length"), Some("10000000"));
    let chunked = send1(&mut client, get("web", "/chunked")).await;
    assert_eq!(chunked.header("transfer-encoding"), Some("chunked"));
    for answer in [&known, &chunked] {
        assert_eq!(answer.body.len() as u64, LENGTH);
        assert!(
            answer
                .body
                .iter()
                .zip((b'a'..=b'z').cycle())
                .all(|(a, b)| *a == b)
        );
    }
    let upload = Request::post("/upload")
        .header("host", "web")
        .body(Body::from(known.body.clone()))
        .unwrap();
    assert_eq!(send1(&mut client, upload).await.text(), "10000000");
    let received = origin.requests().pop().unwrap();
    assert_eq!(received.body_len, LENGTH);
    assert_eq!(received.body, known.body[..65536]);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn trailers_follow_the_body() {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("grpc-message", "fine".parse().unwrap());
    let origin = Origin::builder()
        .behaviour(Behaviour::Trailers(trailers.clone()))
        .start()
        .await
        .unwrap();
    let call = Request::post("http://web/pkg.Service/Call")
        .header("content-type", "application/grpc")
        .body(Body::from("\0\0\0\0\x02hi"))
        .unwrap();
    let answer = send2(&common::http2(origin.addr()).await, call).await;
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    assert_eq!(answer.text(), "\0\0\0\0\x02hi");
    assert_eq!(answer.trailers, Some(trailers.clone()));

    let mut client = http1(origin.addr()).await;
    let mut asking = get("web", "/");
    asking
        .headers_mut()
        .insert("te", "trailers".parse().unwrap());
    let answer = send1(&mut client, asking).await;
    assert_eq!(answer.text(), "ok\n");
    assert_eq!(answer.trailers, Some(trailers));
    // RFC 9110 §6.5.1: not to a client that did not send `TE: trailers`.
    let answer = send1(&mut client, get("web", "/")).await;
    assert_eq!(answer.trailers, None);
}

#[tokio::test]
async fn a_gate_holds_the_answer_or_its_body_back() {
    let (head, body) = (Gate::new(), Gate::new());
    let origin = Origin::builder()
        .at("/head", Behaviour::Gated(head.clone()))
        .at("/body", Behaviour::GatedBody(body.clone()))
        .start()
        .await
        .unwrap();
    let mut client = http1(origin.addr()).await;
    let held = tokio::spawn(async move { send1(&mut client, get("web", "/head")).await.status });
    origin.wait_for_requests(1).await;
    assert!(!held.is_finished());
    head.open();
    assert_eq!(held.await.unwrap(), StatusCode::OK);

    let mut client = http1(origin.addr()).await;
    let response = client.send_request(get("web", "/body")).await.unwrap();
    // The head is here, the body not yet.
    assert_eq!(response.status(), StatusCode::OK);
    let rest = tokio::spawn(Answer::of(response));
    assert!(!rest.is_finished());
    body.open();
    assert_eq!(rest.await.unwrap().text(), "ok\n");
}

#[tokio::test]
async fn a_handler_answers_and_behaviours_can_change() {
    let origin = Origin::builder()
        .handler(|request: Request<Body>| async move {
            let length = request
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .len();
            let mut response = Response::new(Body::from(format!("{length} bytes")));
            *response.status_mut() = StatusCode::CREATED;
            response
        })
        .start()
        .await
        .unwrap();
    let mut client = http1(origin.addr()).await;
    let answer = send1(&mut client, post("/", b"1234")).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.text(), "4 bytes");
    assert_eq!(answer.header("x-origin"), Some("origin"));
    // A handler's body is recorded, too.
    assert_eq!(origin.requests()[0].body, b"1234");

    origin.set_behaviour(Behaviour::Status(StatusCode::SERVICE_UNAVAILABLE));
    origin.set_behaviour_at("/up", Behaviour::Echo);
    let answer = send1(&mut client, get("web", "/")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let answer = send1(&mut client, get("web", "/up")).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn it_closes_after_a_response_as_the_protocol_has_it() {
    let origin = Origin::builder()
        .behaviour(Behaviour::CloseAfterResponse)
        .start()
        .await
        .unwrap();
    let response = common::raw(origin.addr(), "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    assert!(response.contains("connection: close\r\n"), "{response}");

    let client = common::http2(origin.addr()).await;
    assert_eq!(
        send2(&client, get2("web", "/")).await.status,
        StatusCode::OK
    );
    origin.wait_for_open_connections(0).await;
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn an_upgrade_echoes_every_byte() {
    let origin = Origin::builder()
        .behaviour(Behaviour::UpgradeEcho)
        .start()
        .await
        .unwrap();
    let mut client = http1(origin.addr()).await;
    let mut request = get("web", "/");
    let headers = request.headers_mut();
    headers.insert("upgrade", "websocket".parse().unwrap());
    headers.insert("connection", "upgrade".parse().unwrap());
    // The example of RFC 6455 §1.3.
    let key = "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap();
    headers.insert("sec-websocket-key", key);
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "websocket");
    let accept = &response.headers()["sec-websocket-accept"];
    assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    tunnel.write_all(b"ping").await.unwrap();
    let mut echoed = [0; 4];
    tunnel.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"ping");
    assert_eq!(origin.open_connections(), 1);
    tunnel.shutdown().await.unwrap();
    assert_eq!(tunnel.read(&mut echoed).await.unwrap(), 0);
    origin.wait_for_open_connections(0).await;

    let plain = send1(&mut http1(origin.addr()).await, get("web", "/")).await;
    assert_eq!(plain.status, StatusCode::UPGRADE_REQUIRED);
}

#[tokio::test]
async fn connections_are_counted_and_waited_for() {
    let origin = Origin::start().await.unwrap();
    let one = TcpStream::connect(origin.addr()).await.unwrap();
    let two = TcpStream::connect(origin.addr()).await.unwrap();
    origin.wait_for_connections(2).await;
    origin.wait_for_open_connections(2).await;
    drop(one);
    origin.wait_for_open_connections(1).await;
    drop(two);
    origin.wait_for_open_connections(0).await;
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_client_that_goes_away_is_seen() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .at("/wait", Behaviour::Gated(gate))
        .at("/upload", Behaviour::Drain)
        .start()
        .await
        .unwrap();
    // While it waits for the answer.
    let mut waiting = TcpStream::connect(origin.addr()).await.unwrap();
    let head = "GET /wait HTTP/1.1\r\nhost: web\r\n\r\n";
    waiting.write_all(head.as_bytes()).await.unwrap();
    origin.wait_for_requests(1).await;
    drop(waiting);
    origin.wait_for_open_connections(0).await;

    // In the middle of its upload.
    let mut uploading = TcpStream::connect(origin.addr()).await.unwrap();
    let head = "POST /upload HTTP/1.1\r\nhost: web\r\ncontent-length: 10\r\n\r\nhello";
    uploading.write_all(head.as_bytes()).await.unwrap();
    origin
        .wait_until(|r| r.len() == 2 && r[1].body_len == 5)
        .await;
    assert_eq!(origin.requests()[1].body_end, BodyEnd::Pending);
    drop(uploading);
    origin
        .wait_until(|r| r[1].body_end == BodyEnd::Aborted)
        .await;
    origin.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn connections_can_be_drained_and_cut() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .at("/wait", Behaviour::Gated(gate.clone()))
        .start()
        .await
        .unwrap();
    let _idle = http1(origin.addr()).await;
    let mut busy = common::http2(origin.addr()).await;
    let answer = busy.send_request(get2("web", "/wait"));
    origin.wait_for_requests(1).await;
    origin.wait_for_open_connections(2).await;
    origin.drain_connections();
    // The idle one is closed, the other finishes.
    origin.wait_for_open_connections(1).await;
    gate.open();
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    origin.wait_for_open_connections(0).await;

    gate.close();
    let mut busy = http1(origin.addr()).await;
    let answer = busy.send_request(get("web", "/wait"));
    let answer = tokio::spawn(answer);
    origin.wait_for_requests(2).await;
    origin.cut_connections();
    assert!(answer.await.unwrap().is_err());
    origin.wait_for_open_connections(0).await;
    // New ones are welcome.
    let answer = send1(&mut http1(origin.addr()).await, get("web", "/")).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn http2_streams_are_limited_as_set() {
    let origin = Origin::builder()
        .max_concurrent_streams(3)
        .start()
        .await
        .unwrap();
    let stream = TcpStream::connect(origin.addr()).await.unwrap();
    let (client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let mut connection = std::pin::pin!(connection);
    let answer = tokio::select! {
        _ = connection.as_mut() => panic!("closed"),
        answer = send2(&client, get2("web", "/")) => answer,
    };
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(connection.current_max_send_streams(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_origin_frees_its_port_and_cuts_its_connections() {
    let origin = Origin::start().await.unwrap();
    let addr = origin.addr();
    let mut client = TcpStream::connect(addr).await.unwrap();
    origin.wait_for_open_connections(1).await;
    drop(origin);
    assert!(TcpStream::connect(addr).await.is_err());
    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    let origin = Origin::builder().bind(addr).await.unwrap();
    assert_eq!(origin.addr(), addr);
}

#[tokio::test]
async fn settings_are_checked_and_recording_can_be_off() {
    let error = Origin::builder().name("a\nb").start().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);

    let quiet = Origin::builder()
        .record_requests(false)
        .start()
        .await
        .unwrap();
    let answer = send1(&mut http1(quiet.addr()).await, get("web", "/")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(quiet.requests().is_empty());

    let any: SocketAddr = "[::1]:0".parse().unwrap();
    if let Ok(v6) = Origin::builder().bind(any).await {
        let answer = send1(&mut http1(v6.addr()).await, get("web", "/")).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}
