//! Requests on the wire, and their responses.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mesh_ingress_core::{Body, BoxError, Protocol};
use mesh_ingress_forward::Forwarder;
use mesh_ingress_testkit::{Behaviour, Origin, RawOrigin, Step};
use support::{echoed, get, post, read, send, to};

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-checksum", HeaderValue::from_static("abc"));
    trailers
}

/// A body of unknown length with trailers.
fn streamed(trailers: HeaderMap) -> Body {
    let frames: [Result<_, BoxError>; 3] = [
        Ok(Frame::data("hello ".into())),
        Ok(Frame::data("world".into())),
        Ok(Frame::trailers(trailers)),
    ];
    Body::new(StreamBody::new(futures_util::stream::iter(frames)))
}

#[tokio::test]
async fn rfc9112_3_2_1_http1_gets_origin_form_and_one_host() {
    let origin = RawOrigin::start([vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 204 No Content\r\n\r\n"),
    ]])
    .await
    .unwrap();
    let request = Request::get("http://web.default.svc.cluster.local/a%2Fb//c?x=%20&y")
        .header(HOST, "shop.example.com")
        .header("x-kept", "1")
        .header("x-kept", "2")
        .body(Body::empty())
        .unwrap();
    let request = to(origin.addr(), Protocol::Http1, request);
    let response = send(&Forwarder::default(), request).await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);

    let received = String::from_utf8(origin.received(0)).unwrap();
    assert_eq!(
        received,
        "GET /a%2Fb//c?x=%20&y HTTP/1.1\r\nhost: web.default.svc.cluster.local\r\n\
         x-kept: 1\r\nx-kept: 2\r\n\r\n"
    );
}

#[tokio::test]
async fn rfc9113_8_3_1_h2c_gets_the_authority_and_no_host() {
    let origin = Origin::start().await.unwrap();
    for uri in ["http://web.default.svc.cluster.local/x?y", "/x?y"] {
        let request = Request::get(uri)
            .header(HOST, "web.default.svc.cluster.local")
            .body(Body::empty())
            .unwrap();
        let request = to(origin.addr(), Protocol::Http2, request);
        let (body, _) = read(send(&Forwarder::default(), request).await).await;
        assert_eq!(echoed(&body, "version"), "HTTP/2.0");
        assert_eq!(echoed(&body, "host"), "web.default.svc.cluster.local");
    }
    for request in origin.requests() {
        assert!(!request.headers.contains_key(HOST));
        assert_eq!(request.uri, "http://web.default.svc.cluster.local/x?y");
    }
}

#[tokio::test]
async fn protocol_of_the_upstream_is_independent_of_the_clients() {
    // A request that came over HTTP/2 or HTTP/1.0 is sent over HTTP/1.1, and the other way round.
    let origin = Origin::start().await.unwrap();
    let forwarder = Forwarder::default();
    for (came, goes, seen) in [
        (Version::HTTP_2, Protocol::Http1, "HTTP/1.1"),
        (Version::HTTP_10, Protocol::Http1, "HTTP/1.1"),
        (Version::HTTP_11, Protocol::Http2, "HTTP/2.0"),
    ] {
        let mut request = get(origin.addr());
        *request.version_mut() = came;
        let (body, _) = read(send(&forwarder, to(origin.addr(), goes, request)).await).await;
        assert_eq!(echoed(&body, "version"), seen);
    }
}

#[tokio::test]
async fn trailers_are_forwarded_both_ways_over_both_protocols() {
    let origin = Origin::builder()
        .behaviour(Behaviour::Trailers(trailers()))
        .start()
        .await
        .unwrap();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let request = Request::post("http://web/")
            .header(TE, "trailers")
            .header(TRAILER, "grpc-status, x-checksum")
            .body(streamed(trailers()))
            .unwrap();
        let request = to(origin.addr(), protocol, request);
        let (body, got) = read(send(&Forwarder::default(), request).await).await;
        assert_eq!(body, "hello world", "{protocol:?}");
        assert_eq!(got, Some(trailers()), "{protocol:?}");
        let received = origin.requests().pop().unwrap();
        assert_eq!(received.trailers, Some(trailers()), "{protocol:?}");
    }
}

#[tokio::test]
async fn grpc_trailers_are_announced_to_an_http1_client() {
    let origin = Origin::builder()
        .behaviour(Behaviour::handler(|_| async {
            let mut response = http::Response::new(streamed(trailers()));
            let grpc = HeaderValue::from_static("application/grpc+proto");
            response.headers_mut().insert("content-type", grpc);
            response
        }))
        .start()
        .await
        .unwrap();
    let mut request = post(origin.addr(), "message");
    request
        .headers_mut()
        .insert(TE, HeaderValue::from_static("trailers"));
    let reply = send(
        &Forwarder::default(),
        to(origin.addr(), Protocol::Http2, request),
    )
    .await;
    let announced = reply.as_ref().unwrap().headers()[TRAILER].clone();
    assert!(announced.to_str().unwrap().contains("grpc-status"));
    assert_eq!(read(reply).await.1, Some(trailers()));
}

#[tokio::test]
async fn rfc9110_7_6_1_hop_by_hop_fields_are_not_forwarded() {
    let origin = RawOrigin::start([vec![
        Step::ReadHead,
        Step::send(
            "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
             connection: x-other\r\nx-other: 1\r\nproxy-authenticate: Basic\r\nset-cookie: a=1\r\n\
             set-cookie: b=2\r\ncontent-length: 0\r\n\r\n",
        ),
    ]])
    .await
    .unwrap();
    let request = Request::get("http://web/")
        .header(CONNECTION, "close, x-a")
        .header(CONNECTION, "x-b")
        .header("x-a", "1")
        .header("x-b", "1")
        .header("keep-alive", "1")
        .header("proxy-authorization", "secret")
        .header(TE, "gzip")
        .body(Body::empty())
        .unwrap();
    let request = to(origin.addr(), Protocol::Http1, request);
    let response = send(&Forwarder::default(), request).await.unwrap();
    assert_eq!(
        origin.received(0),
        b"GET / HTTP/1.1\r\nhost: web\r\n\r\n",
        "nothing but Host crosses"
    );
    let left: Vec<_> = response
        .headers()
        .keys()
        .map(http::HeaderName::as_str)
        .collect();
    assert_eq!(left, ["set-cookie", "content-length"]);
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
}

#[tokio::test]
async fn rfc9112_6_framing_matches_the_body() {
    let origin = Origin::start().await.unwrap();
    let forwarder = Forwarder::default();
    let addr = origin.addr();
    // Requests without a body have neither field, `Content-Length: 0` is kept, known lengths are
    // sent.
    for method in [Method::GET, Method::DELETE, Method::OPTIONS, Method::POST] {
        let mut request = get(addr);
        *request.method_mut() = method;
        read(send(&forwarder, request).await).await;
    }
    let mut zero = post(addr, "");
    zero.headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    read(send(&forwarder, zero).await).await;
    read(send(&forwarder, post(addr, "hello")).await).await;
    // hyper would drop the body of such a GET.
    let mut chunked = get(addr);
    *chunked.body_mut() = streamed(HeaderMap::new());
    read(send(&forwarder, chunked).await).await;

    let seen: Vec<_> = origin
        .requests()
        .iter()
        .map(|request| {
            let field = |name| {
                request
                    .headers
                    .get(name)
                    .map(|v: &HeaderValue| v.to_str().unwrap().to_owned())
            };
            (
                field(CONTENT_LENGTH),
                field(TRANSFER_ENCODING),
                request.body_len,
            )
        })
        .collect();
    let length = |n: &str| Some(n.to_owned());
    assert_eq!(
        seen,
        [
            (None, None, 0),
            (None, None, 0),
            (None, None, 0),
            (None, None, 0),
            (length("0"), None, 0),
            (length("5"), None, 5),
            (None, Some("chunked".to_owned()), 11),
        ]
    );
}

#[tokio::test]
async fn rfc9113_8_2_3_cookie_crumbs_are_joined_for_http1() {
    let origin = Origin::start().await.unwrap();
    let mut request = get(origin.addr());
    for crumb in ["a=1", "b=2"] {
        request
            .headers_mut()
            .append("cookie", HeaderValue::from_static(crumb));
    }
    read(send(&Forwarder::default(), request).await).await;
    assert_eq!(origin.requests()[0].header_values("cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn endless_bodies_stream_both_ways() {
    let origin = Origin::builder()
        .behaviour(Behaviour::EchoBody)
        .start()
        .await
        .unwrap();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        // Each frame is sent only after the one before has come back.
        let (pieces, receiver) =
            tokio::sync::mpsc::channel::<Result<Frame<bytes::Bytes>, BoxError>>(1);
        let body = StreamBody::new(futures_util::stream::unfold(
            receiver,
            |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) },
        ));
        let request = Request::post("http://web/").body(Body::new(body)).unwrap();
        let forwarder = Forwarder::default();
        let reply = send(&forwarder, to(origin.addr(), protocol, request));
        pieces.send(Ok(Frame::data("first".into()))).await.unwrap();
        let mut body = reply.await.unwrap().into_body();
        for piece in ["first", "second", "third"] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
            let next = if piece == "first" { "second" } else { "third" };
            if piece != "third" {
                pieces.send(Ok(Frame::data(next.into()))).await.unwrap();
            }
        }
        drop(pieces);
        let rest = body.collect().await.unwrap();
        assert_eq!(rest.to_bytes(), "", "{protocol:?}");
    }
}
