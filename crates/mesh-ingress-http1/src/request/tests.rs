use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use mesh_ingress_core::{Body, BoxError};

use super::*;

/// A body of unknown length.
fn streamed(text: &'static str) -> Body {
    let data = Ok::<_, BoxError>(Frame::data(Bytes::from_static(text.as_bytes())));
    Body::new(StreamBody::new(futures_util::stream::iter([data])))
}

fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.body(body).unwrap()
}

/// The head of a request with these fields.
fn written(mut request: Request<Body>, fields: &[(&'static str, &'static str)]) -> String {
    for (name, value) in fields {
        let name = HeaderName::from_static(name);
        request
            .headers_mut()
            .append(name, HeaderValue::from_static(value));
    }
    let mut out = Vec::new();
    let framing = Framing::of(request.body(), request.headers());
    write(&request, None, framing, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn rfc9112_3_2_1_the_target_is_sent_as_it_came() {
    for (target, sent) in [
        ("/", "/"),
        ("/a%2Fb/../c;d?e=f%20&g", "/a%2Fb/../c;d?e=f%20&g"),
        ("http://a.example?d=e", "/?d=e"),
        ("http://a.example", "/"),
        ("*", "*"),
    ] {
        let head = written(
            request(Method::GET, target, Body::empty()),
            &[("host", "a")],
        );
        assert_eq!(head, format!("GET {sent} HTTP/1.1\r\nhost: a\r\n\r\n"));
    }
}

#[test]
fn rfc9112_6_1_exactly_the_true_framing_field_is_sent() {
    let (post, get) = (Method::POST, Method::GET);
    let length = "content-length: 5\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    for (method, body, fields, said) in [
        (&get, Body::empty(), &[][..], ""),
        (&post, Body::empty(), &[], ""),
        (
            &post,
            Body::empty(),
            &[("content-length", "0")],
            "content-length: 0\r\n",
        ),
        // A false length would make the upstream wait.
        (&post, Body::empty(), &[("content-length", "5")], ""),
        (
            &post,
            Body::empty(),
            &[("transfer-encoding", "chunked")],
            "",
        ),
        (&post, Body::from("hello"), &[], length),
        (
            &post,
            Body::from("hello"),
            &[("content-length", "5")],
            length,
        ),
        (
            &post,
            Body::from("hello"),
            &[("content-length", "7")],
            length,
        ),
        (
            &post,
            Body::from("hello"),
            &[("transfer-encoding", "chunked")],
            length,
        ),
        (&get, Body::from("hello"), &[], length),
        (&post, streamed("hello"), &[("content-length", "5")], length),
        (&post, streamed("hello"), &[], chunked),
        (&get, streamed("hello"), &[], chunked),
        (
            &post,
            streamed("hello"),
            &[("transfer-encoding", "chunked")],
            chunked,
        ),
        (
            &post,
            streamed("hello"),
            &[("transfer-encoding", "gzip")],
            chunked,
        ),
        (
            &post,
            streamed("hello"),
            &[("content-length", "5a")],
            chunked,
        ),
        (
            &post,
            streamed("hello"),
            &[("content-length", "5"), ("content-length", "6")],
            chunked,
        ),
    ] {
        let head = written(request(method.clone(), "/", body), fields);
        assert_eq!(
            head,
            format!("{method} / HTTP/1.1\r\n{said}\r\n"),
            "{fields:?}"
        );
    }
}

const LIMITS: Limits = Limits {
    bytes: 2000,
    fields: 100,
};

fn read(bytes: &str) -> Result<Option<Head>, Malformed> {
    parse(&mut BytesMut::from(bytes), LIMITS, &mut HeaderMap::new())
}

fn head(bytes: &str) -> Head {
    read(bytes).unwrap().unwrap()
}

#[test]
fn a_head_is_taken_and_the_bytes_behind_it_stay() {
    let bytes =
        "PUT /a?b HTTP/1.1\r\nHost: h\r\nX-A: b\r\nx-a:  c \r\nContent-Length: 2\r\n\r\nokGET";
    let mut buf = BytesMut::from(bytes);
    let mut room = HeaderMap::with_capacity(10);
    let head = parse(&mut buf, LIMITS, &mut room).unwrap().unwrap();
    assert_eq!(&buf[..], b"okGET");
    assert_eq!(head.body, Decoder::Length(2));
    assert_eq!(head.request.method(), Method::PUT);
    assert_eq!(head.request.uri(), "/a?b");
    assert_eq!(head.request.version(), Version::HTTP_11);
    let values: Vec<_> = head.request.headers().get_all("x-a").iter().collect();
    assert_eq!(values, ["b", "c"]);
    // An incomplete head is left alone.
    for end in 0..bytes.len() - 5 {
        let mut buf = BytesMut::from(&bytes[..end]);
        let none = parse(&mut buf, LIMITS, &mut HeaderMap::new());
        assert!(none.unwrap().is_none(), "{end}");
        assert_eq!(buf.len(), end);
    }
}

#[test]
fn rfc9112_6_3_where_a_request_ends() {
    for (fields, body) in [
        ("", Decoder::Complete),
        ("content-length: 0\r\n", Decoder::Complete),
        ("content-length: 7\r\n", Decoder::Length(7)),
        ("transfer-encoding: chunked\r\n", Decoder::chunked()),
    ] {
        let head = head(&format!("POST / HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(head.body, body, "{fields}");
    }
}

#[test]
fn rfc9112_9_3_whether_the_client_keeps_the_connection() {
    for (version, fields, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "connection: close\r\n", false),
        ("1.1", "connection: te, Close\r\n", false),
        ("1.1", "connection: te\r\nconnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "connection: Keep-Alive\r\n", true),
        ("1.0", "connection: keep-alive, close\r\n", false),
    ] {
        let head = head(&format!("GET / HTTP/{version}\r\n{fields}\r\n"));
        assert_eq!(head.keep_alive, keep_alive, "{version} {fields}");
    }
}

#[test]
fn expectations_trailers_and_upgrades_are_found() {
    let asks = |line: &str, fields: &str| {
        let head = head(&format!("{line}\r\n{fields}\r\n"));
        (
            head.expects_continue,
            head.accepts_trailers,
            head.wants_upgrade,
        )
    };
    let expect = "expect: 100-Continue\r\n";
    assert_eq!(asks("PUT / HTTP/1.1", expect), (true, false, false));
    // HTTP/1.0 has neither expectations (RFC 9110 §10.1.1) nor upgrades (§7.8).
    assert_eq!(asks("PUT / HTTP/1.0", expect), (false, false, false));
    let te = "te: gzip, trailers\r\n";
    assert_eq!(asks("GET / HTTP/1.1", te), (false, true, false));
    let upgrade = "upgrade: websocket\r\n";
    assert_eq!(asks("GET / HTTP/1.1", upgrade), (false, false, true));
    assert_eq!(asks("GET / HTTP/1.0", upgrade), (false, false, false));
    assert_eq!(asks("CONNECT h:1 HTTP/1.1", ""), (false, false, true));
}

#[test]
fn a_head_is_bounded() {
    let many = |fields: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(fields));
    assert_eq!(head(&many(100)).request.headers().len(), 100);
    let large = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length));
    assert!(read(&large(1900)).unwrap().is_some());
    for bytes in [many(101), large(2000), "x".repeat(2000)] {
        let malformed = read(&bytes).unwrap_err();
        assert!(matches!(malformed, Malformed::HeadTooLarge), "{bytes}");
    }
}

#[test]
fn bytes_that_are_no_request_are_refused() {
    for bytes in [
        "GET /\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.1\r\na b\r\n\r\n",
        "GET a:b:c HTTP/1.1\r\n\r\n",
        "\0GET / HTTP/1.1\r\n\r\n",
    ] {
        let malformed = read(bytes).unwrap_err();
        assert!(matches!(malformed, Malformed::Head(_)), "{bytes:?}");
    }
}

#[test]
fn extra_fields_follow_those_of_the_request() {
    use http::header::HOST;
    use mesh_ingress_core::Downstream;
    use mesh_ingress_headers::{Client, ForwardedPolicy, RequestHost};

    let mut request = request(Method::POST, "/", Body::from("text"));
    let host = HeaderValue::from_static("shop.example.com");
    request.headers_mut().insert(HOST, host);
    let host = RequestHost::of(request.uri(), request.headers(), Version::HTTP_11).unwrap();
    let client = Client::new(&Downstream::new(([203, 0, 113, 7], 51000).into()));
    let policy = ForwardedPolicy::builder().via("edge").build().unwrap();
    let extra = policy.prepare(&client, Version::HTTP_11).unwrap();
    let extra = extra.for_host(&host);
    let mut out = Vec::new();
    let framing = Framing::of(request.body(), request.headers());
    write(&request, Some(&extra), framing, &mut out);
    let head = String::from_utf8(out).unwrap();
    assert!(head.ends_with("content-length: 4\r\n\r\n"), "{head}");
    for line in [
        "host: shop.example.com",
        "x-forwarded-for: 203.0.113.7",
        "x-forwarded-host: shop.example.com",
        "via: 1.1 edge",
    ] {
        assert_eq!(
            head.matches(&format!("\r\n{line}\r\n")).count(),
            1,
            "{head}"
        );
    }
}

#[test]
fn rfc9110_7_6_1_connection_keep_alive_is_not_forwarded() {
    for (line, left) in [
        ("Connection: keep-alive", 0),
        ("connection: Keep-Alive", 0),
        ("Connection: keep-alive, x-a", 1),
        ("Connection: close", 1),
        ("Connection: upgrade", 1),
    ] {
        let mut buf = BytesMut::from(&*format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"));
        let limits = Limits {
            bytes: 2000,
            fields: 100,
        };
        let head = parse(&mut buf, limits, &mut HeaderMap::new());
        let head = head.unwrap().unwrap();
        let lines = head.request.headers().get_all(CONNECTION);
        assert_eq!(lines.iter().count(), left, "{line}");
    }
}
