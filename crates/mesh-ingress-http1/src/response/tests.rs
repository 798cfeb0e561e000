use http::HeaderValue;

use super::*;

const LIMITS: Limits = Limits {
    bytes: 2000,
    fields: 100,
};

fn head(method: &Method, bytes: &str) -> Result<Option<Head>, Malformed> {
    let mut buf = BytesMut::from(bytes);
    parse(&mut buf, method, LIMITS, &mut HeaderMap::new())
}

/// The framing of a response to a GET, and whether its connection is kept.
fn says(bytes: &str) -> (Decoder, bool) {
    let head = head(&Method::GET, bytes).unwrap().unwrap();
    (head.body, head.keep_alive)
}

#[test]
fn a_head_is_taken_and_the_bytes_behind_it_stay() {
    let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\nx-a:  c \r\nx-empty:\r\n\r\nok";
    let mut buf = BytesMut::from(bytes);
    let mut room = HeaderMap::with_capacity(10);
    let head = parse(&mut buf, &Method::GET, LIMITS, &mut room);
    let head = head.unwrap().unwrap();
    assert_eq!(&buf[..], b"ok");
    assert_eq!(head.body, Decoder::Length(2));
    assert!(head.keep_alive);
    let response = head.response;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.version(), Version::HTTP_11);
    assert!(response.extensions().is_empty());
    let values: Vec<_> = response.headers().get_all("x-a").iter().collect();
    assert_eq!(values, ["b", "c"]);
    assert_eq!(response.headers()["x-empty"], "");
    // An incomplete head is left alone.
    for end in 0..bytes.len() - 2 {
        let mut buf = BytesMut::from(&bytes[..end]);
        let none = parse(&mut buf, &Method::GET, LIMITS, &mut HeaderMap::new());
        assert!(none.unwrap().is_none(), "{end}");
        assert_eq!(buf.len(), end);
    }
}

#[test]
fn rfc9112_4_a_non_canonical_reason_is_kept() {
    for (line, reason) in [
        ("HTTP/1.1 200 Fine", Some("Fine")),
        ("HTTP/1.1 299 What", Some("What")),
        ("HTTP/1.1 200 ", Some("")),
        ("HTTP/1.1 200", Some("")),
        ("HTTP/1.1 200 OK", None),
        // httparse reads other than ASCII as empty.
        ("HTTP/1.1 200 \u{e4}", Some("")),
    ] {
        let head = head(&Method::GET, &format!("{line}\r\n\r\n"));
        let response = head.unwrap().unwrap().response;
        let kept = response.extensions().get::<ReasonPhrase>();
        let kept = kept.map(|kept| &kept.0[..]);
        assert_eq!(kept, reason.map(str::as_bytes), "{line}");
    }
}

#[test]
fn rfc9112_6_3_where_a_response_ends() {
    for (fields, body) in [
        ("", Decoder::UntilClose),
        ("Content-Length: 0\r\n", Decoder::Complete),
        ("Content-Length: 5\r\n", Decoder::Length(5)),
        (
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            Decoder::Length(5),
        ),
        ("Transfer-Encoding: Chunked\r\n", Decoder::chunked()),
    ] {
        assert_eq!(says(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).0, body);
        for bodiless in ["101 X", "204 No Content", "304 Not Modified"] {
            let said = says(&format!("HTTP/1.1 {bodiless}\r\n{fields}\r\n"));
            assert_eq!(said.0, Decoder::Complete, "{bodiless}");
        }
        let bytes = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let head = head(&Method::HEAD, &bytes).unwrap().unwrap();
        assert_eq!(head.body, Decoder::Complete);
    }
}

#[test]
fn rfc9112_6_3_an_ambiguous_response_ends_with_its_connection() {
    for (version, fields) in [
        ("1.1", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("1.1", "Content-Length: 5, 5\r\n"),
        ("1.1", "Content-Length: \r\n"),
        ("1.1", "Content-Length: +5\r\n"),
        ("1.1", "Content-Length: 05\r\n"),
        ("1.1", "Content-Length: 5a\r\n"),
        ("1.1", "Content-Length: 18446744073709551616\r\n"),
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("1.1", "Transfer-Encoding: gzip, chunked\r\n"),
        (
            "1.1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ),
        ("1.1", "Transfer-Encoding: chunked, chunked\r\n"),
        ("1.1", "Transfer-Encoding: identity\r\n"),
        ("1.1", "Transfer-Encoding: \r\n"),
        ("1.0", "Transfer-Encoding: chunked\r\n"),
    ] {
        let said = says(&format!("HTTP/{version} 200 OK\r\n{fields}\r\n"));
        assert_eq!(said.0, Decoder::UntilClose, "{fields}");
    }
}

#[test]
fn rfc9112_9_3_whether_the_connection_is_kept() {
    for (version, fields, keep_alive) in [
        ("1.1", "", true),
        ("1.0", "", false),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "Connection: keep-alive\r\n", true),
        (
            "1.1",
            "Connection: close\r\nConnection: keep-alive\r\n",
            false,
        ),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let said = says(&format!(
            "HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{fields}\r\n"
        ));
        assert_eq!(said.1, keep_alive, "{version} {fields}");
    }
}

#[test]
fn bytes_that_are_no_response_are_refused() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ] {
        let malformed = head(&Method::GET, bytes).unwrap_err();
        assert!(
            matches!(malformed, Malformed::Head(_)),
            "{bytes:?}: {malformed}"
        );
    }
}

#[test]
fn another_protocol_is_found_out_at_once() {
    for bytes in ["", "H", "HTTP/1", "HTTP/1.", "HTTP/1.1 200"] {
        assert!(may_begin(bytes.as_bytes()), "{bytes:?}");
    }
    for bytes in [
        "\n",
        "\r\nHTTP/1.1",
        "+OK",
        "HTTP/2",
        "http/1.1",
        "\x15\x03\x01",
    ] {
        assert!(!may_begin(bytes.as_bytes()), "{bytes:?}");
    }
}

#[test]
fn a_head_is_bounded() {
    let of = |fields: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(fields));
    for fields in [31, 32, 33, 99, 100] {
        let head = head(&Method::GET, &of(fields)).unwrap().unwrap();
        assert_eq!(head.response.headers().len(), fields);
    }
    let endless = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(2000));
    for bytes in [of(101), format!("{endless}\r\n\r\n"), endless] {
        let malformed = head(&Method::GET, &bytes).unwrap_err();
        assert!(matches!(malformed, Malformed::HeadTooLarge), "{malformed}");
    }
}

/// A body of unknown length.
fn streamed() -> mesh_ingress_core::Body {
    let data = Ok::<_, mesh_ingress_core::BoxError>(http_body::Frame::data(Bytes::from("hello")));
    let stream = futures_util::stream::iter([data]);
    mesh_ingress_core::Body::new(http_body_util::StreamBody::new(stream))
}

const GET: RequestContext = RequestContext {
    version: Version::HTTP_11,
    head: false,
    keep_alive: true,
};
const HEAD: RequestContext = RequestContext { head: true, ..GET };
const HTTP10: RequestContext = RequestContext {
    version: Version::HTTP_10,
    ..GET
};
const LAST: RequestContext = RequestContext {
    keep_alive: false,
    ..GET
};

/// The head without its `Date`, how the body is written, and whether the connection goes on.
fn written(
    status: u16,
    body: mesh_ingress_core::Body,
    fields: &[(&'static str, &'static str)],
    context: RequestContext,
) -> (String, Option<Framing>, bool) {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in fields {
        let value = HeaderValue::from_static(value);
        response.headers_mut().append(*name, value);
    }
    let mut out = Vec::new();
    let (framing, keep_alive) = write(&response, None, context, &mut out);
    let head = String::from_utf8(out).unwrap();
    let (head, date) = head.split_once("date: ").unwrap();
    assert!(date.ends_with(" GMT\r\n\r\n"), "{date}");
    (head.to_owned(), framing, keep_alive)
}

#[test]
fn rfc9112_6_a_response_has_the_true_framing_field() {
    use mesh_ingress_core::Body;
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";
    let five = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n";
    let none = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n";
    let cases = [
        (Body::empty(), &[][..], none, None),
        // A false length would make the client wait.
        (Body::empty(), &[("content-length", "5")], none, None),
        (Body::from("hello"), &[], five, Some(Framing::Length(5))),
        (
            Body::from("hello"),
            &[("content-length", "7"), ("transfer-encoding", "chunked")],
            five,
            Some(Framing::Length(5)),
        ),
        (streamed(), &[], chunked, Some(Framing::Chunked)),
        (
            streamed(),
            &[("content-length", "5")],
            five,
            Some(Framing::Length(5)),
        ),
        (
            streamed(),
            &[("content-length", "5"), ("content-length", "6")],
            chunked,
            Some(Framing::Chunked),
        ),
    ];
    for (body, fields, head, framing) in cases {
        let written = written(200, body, fields, GET);
        assert_eq!(written, (head.to_owned(), framing, true), "{fields:?}");
    }
}

#[test]
fn rfc9110_6_4_1_bodiless_responses_get_no_body() {
    let length = &[("content-length", "5")][..];
    let five = "content-length: 5\r\n";
    for (status, context, fields, said) in [
        (200, HEAD, length, five),
        (200, HEAD, &[], ""),
        (304, GET, length, five),
        (304, GET, &[], ""),
        (204, GET, &[], ""),
        // RFC 9110 §8.6.
        (204, GET, length, ""),
        (101, GET, length, ""),
    ] {
        let (head, framing, _) = written(status, streamed(), fields, context);
        let (line, rest) = head.split_once("\r\n").unwrap();
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{line}");
        assert_eq!((rest, framing), (said, None), "{status} {fields:?}");
    }
}

#[test]
fn rfc9112_9_3_the_client_is_told_whether_the_connection_is_kept() {
    let hello = || mesh_ingress_core::Body::from("hello");
    let close = &[("connection", "close")][..];
    let keep = &[("connection", "keep-alive")][..];
    let other = &[("connection", "x")][..];
    for (context, fields, said, keep_alive) in [
        (GET, &[][..], "", true),
        (GET, close, "connection: close\r\n", false),
        (LAST, &[], "connection: close\r\n", false),
        (LAST, close, "connection: close\r\n", false),
        (HTTP10, &[], "connection: keep-alive\r\n", true),
        (
            HTTP10,
            other,
            "connection: x\r\nconnection: keep-alive\r\n",
            true,
        ),
        (GET, other, "connection: x\r\n", true),
        (LAST, other, "connection: x\r\nconnection: close\r\n", false),
        (
            LAST,
            keep,
            "connection: keep-alive\r\nconnection: close\r\n",
            false,
        ),
    ] {
        let (head, _, goes_on) = written(200, hello(), fields, context);
        let connection: String = head
            .split_inclusive("\r\n")
            .filter(|line| line.starts_with("connection"))
            .collect();
        assert_eq!((&*connection, goes_on), (said, keep_alive), "{head}");
    }
    // In HTTP/1.0 there are no chunks: only the end of the connection ends the body.
    let (head, framing, keep_alive) = written(200, streamed(), &[("trailer", "x")], HTTP10);
    assert_eq!(head, "HTTP/1.0 200 OK\r\nconnection: close\r\n");
    assert_eq!((framing, keep_alive), (Some(Framing::UntilClose), false));
}

#[test]
fn rfc9110_6_6_1_a_date_is_kept() {
    let mut response = Response::new(mesh_ingress_core::Body::empty());
    let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
    response.headers_mut().insert(DATE, date);
    let mut out = Vec::new();
    write(&response, None, GET, &mut out);
    let head = String::from_utf8(out).unwrap();
    assert_eq!(head.matches("date: ").count(), 1, "{head}");
    assert!(head.contains("1994"), "{head}");
}

#[test]
fn rfc9112_4_a_reason_is_written_as_it_was_read() {
    let mut buf = BytesMut::from("HTTP/1.1 200 Fine, thanks\r\ncontent-length: 0\r\n\r\n");
    let head = parse(&mut buf, &Method::GET, LIMITS, &mut HeaderMap::new());
    let head = head.unwrap().unwrap();
    let mut out = Vec::new();
    let response = head.response.map(|()| streamed());
    let reason = response.extensions().get::<ReasonPhrase>();
    write(
        &response,
        reason.map(|reason| &reason.0[..]),
        HEAD,
        &mut out,
    );
    assert!(out.starts_with(b"HTTP/1.1 200 Fine, thanks\r\n"));
}
