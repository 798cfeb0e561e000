use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use mesh_ingress_core::{Body, BoxError};

use super::*;

/// A body that does not say how long it is.
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
    write(&request, framing, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn rfc9112_3_2_1_the_target_goes_out_as_it_came() {
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
fn rfc9112_6_1_one_framing_field_and_it_is_true() {
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
        // Nobody is to wait for what does not come.
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
