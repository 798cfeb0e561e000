use hyper::upgrade::OnUpgrade;

use super::*;
use http_body_util::Empty;

type ClientRequest = Request<Empty<bytes::Bytes>>;

const ADDR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request of a server that can switch.
fn client_request(
    method: Method,
    version: Version,
    fields: &[(&'static str, &'static str)],
) -> ClientRequest {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    *request.version_mut() = version;
    for (name, value) in fields {
        request
            .headers_mut()
            .append(*name, HeaderValue::from_static(value));
    }
    // It never resolves, and is not awaited.
    let none = hyper::upgrade::on(Request::new(()));
    request.extensions_mut().insert(none);
    request
}

fn of(request: &mut ClientRequest) -> Result<Option<Upgrade>, Error> {
    let options = hop_by_hop::strip(request.headers_mut());
    Upgrade::of(request, &options)
}

fn handshake() -> ClientRequest {
    client_request(
        Method::GET,
        Version::HTTP_11,
        &[
            ("connection", "Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-key", KEY),
            ("sec-websocket-version", "13"),
        ],
    )
}

fn extended_connect(protocol: &'static str) -> ClientRequest {
    let mut request = client_request(Method::CONNECT, Version::HTTP_2, &[]);
    request
        .extensions_mut()
        .insert(Protocol::from_static(protocol));
    request
}

fn answer(status: u16, fields: &[(&'static str, &str)]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap()
}

#[test]
fn protocols_are_a_case_insensitive_list() {
    let asked = HeaderValue::from_static("foo,, WebSocket");
    assert!(contains(&asked, b"websocket"));
    assert!(contains(&asked, b" FOO "));
    assert!(!contains(&asked, b"socket"));
    assert!(!contains(&asked, b"h2c"));
    assert!(!contains(&asked, b""));
}

#[test]
fn rfc9110_7_8_upgrade_is_ignored_outside_http11_and_for_h2c() {
    assert!(of(&mut handshake()).unwrap().is_some());
    let upgrade = [("connection", "upgrade"), ("upgrade", "foo")];
    for version in [Version::HTTP_10, Version::HTTP_2] {
        let mut request = client_request(Method::GET, version, &upgrade);
        assert!(of(&mut request).unwrap().is_none(), "{version:?}");
    }
    let h2c = [("connection", "upgrade"), ("upgrade", "websocket, h2c")];
    let mut request = client_request(Method::GET, Version::HTTP_11, &h2c);
    assert!(of(&mut request).unwrap().is_none());
    let unnamed = [("upgrade", "websocket")];
    let mut request = client_request(Method::GET, Version::HTTP_11, &unnamed);
    assert!(of(&mut request).unwrap().is_none());
}

#[test]
fn upgrade_is_ignored_if_the_server_cannot_switch() {
    let mut request = handshake();
    request.extensions_mut().remove::<OnUpgrade>();
    assert!(of(&mut request).unwrap().is_none());
}

#[test]
fn rfc9220_3_unknown_protocol_is_501_and_plain_connect_405() {
    let error = of(&mut extended_connect("connect-udp")).unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::NOT_IMPLEMENTED));
    assert_eq!(error.origin(), ErrorOrigin::Client);
    let mut plain = client_request(Method::CONNECT, Version::HTTP_2, &[]);
    let error = of(&mut plain).unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::METHOD_NOT_ALLOWED));
}

#[test]
fn only_a_websocket_handshake_has_an_http2_form() {
    let http2 = |request: &mut ClientRequest| of(request).unwrap().unwrap().has_http2_form();
    assert!(http2(&mut handshake()));
    assert!(http2(&mut extended_connect("websocket")));
    let mut post = handshake();
    *post.method_mut() = Method::POST;
    assert!(!http2(&mut post));
    let mut no_key = handshake();
    no_key.headers_mut().remove("sec-websocket-key");
    assert!(!http2(&mut no_key));
    let mut list = handshake();
    list.headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("websocket, foo"));
    assert!(!http2(&mut list));
}

#[test]
fn rfc9110_7_8_101_to_another_protocol_is_rejected() {
    let upgrade = of(&mut handshake()).unwrap().unwrap();
    let right = [
        ("upgrade", "websocket"),
        ("connection", "upgrade, x-hop"),
        ("x-hop", "1"),
        ("content-length", "0"),
        ("sec-websocket-accept", ACCEPT),
    ];
    let mut response = answer(101, &right);
    upgrade.switched(ADDR, &mut response).unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers().len(), 3);
    assert_eq!(response.headers()["connection"], "upgrade");
    assert_eq!(response.headers()["upgrade"], "websocket");
    assert_eq!(response.headers()["sec-websocket-accept"], ACCEPT);
    let accept = ("sec-websocket-accept", ACCEPT);
    let connection = ("connection", "upgrade");
    for wrong in [
        &[accept, connection, ("upgrade", "foo")][..],
        &[accept, connection, ("upgrade", "")],
        &[accept, connection, ("upgrade", "websocket, foo")],
        &[accept, connection],
        &[accept, ("upgrade", "websocket")],
        &[connection, ("upgrade", "websocket")],
        &[
            connection,
            ("upgrade", "websocket"),
            ("sec-websocket-accept", KEY),
        ],
    ] {
        let error = upgrade.switched(ADDR, &mut answer(101, wrong)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HttpUpgradeFailed, "{wrong:?}");
    }
}

#[test]
fn rfc9110_7_8_101_to_one_of_several_protocols_is_accepted() {
    let fields = [
        ("connection", "upgrade"),
        ("upgrade", "foo/2, websocket"),
        ("sec-websocket-key", KEY),
    ];
    let upgrade = of(&mut client_request(Method::GET, Version::HTTP_11, &fields)).unwrap();
    let upgrade = upgrade.unwrap();
    let connection = ("connection", "upgrade");
    let mut foo = answer(101, &[connection, ("upgrade", "Foo/2")]);
    upgrade.switched(ADDR, &mut foo).unwrap();
    assert_eq!(foo.headers()["upgrade"], "Foo/2");
    // A switch to WebSocket needs the accept.
    let websocket = ("upgrade", "websocket");
    let mut unproven = answer(101, &[connection, websocket]);
    upgrade.switched(ADDR, &mut unproven).unwrap_err();
    let accept = ("sec-websocket-accept", ACCEPT);
    let mut proven = answer(101, &[connection, websocket, accept]);
    upgrade.switched(ADDR, &mut proven).unwrap();
}

#[test]
fn rfc6455_4_1_101_without_the_right_accept_is_rejected_for_http2_clients() {
    let mut request = extended_connect("websocket");
    let upgrade = of(&mut request).unwrap().unwrap();
    upgrade.ask_http1(&mut request);
    assert_eq!(request.method(), Method::GET);
    let accept = Key::of(request.headers()).unwrap();
    let mut response = Response::new(());
    websocket::to_switching(&mut response, &accept);
    upgrade.switched(ADDR, &mut response).unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().is_empty());

    let mut untold = Response::new(());
    websocket::to_switching(&mut untold, &accept);
    untold.headers_mut().remove("sec-websocket-accept");
    let stolen = answer(
        101,
        &[("upgrade", "websocket"), ("sec-websocket-accept", ACCEPT)],
    );
    let mut other = Response::new(());
    websocket::to_switching(&mut other, &accept);
    other
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("foo"));
    for mut wrong in [untold, stolen, other] {
        let error = upgrade.switched(ADDR, &mut wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HttpUpgradeFailed);
    }
}

#[test]
fn request_can_change_its_form_repeatedly() {
    let mut request = handshake();
    let upgrade = of(&mut request).unwrap().unwrap();
    for _ in 0..2 {
        upgrade.ask_http2(&mut request);
        assert_eq!(request.method(), Method::CONNECT);
        assert!(!request.headers().contains_key("sec-websocket-key"));
        assert!(!request.headers().contains_key("connection"));
        upgrade.ask_http1(&mut request);
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.headers()["sec-websocket-key"], KEY);
        assert_eq!(request.headers()["connection"], "upgrade");
        assert_eq!(request.headers()["upgrade"], "websocket");
        assert!(request.extensions().get::<Protocol>().is_none());
    }
}

#[test]
fn rfc8441_5_200_gets_the_form_of_the_client() {
    let upgrade = of(&mut handshake()).unwrap().unwrap();
    let mut response = answer(200, &[("sec-websocket-protocol", "chat")]);
    upgrade.connected(&mut response);
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-accept"], ACCEPT);

    let upgrade = of(&mut extended_connect("websocket")).unwrap().unwrap();
    let mut response = answer(200, &[("sec-websocket-protocol", "chat")]);
    upgrade.connected(&mut response);
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers().len(), 1);
}

#[test]
fn success_that_is_no_switch_is_rejected_if_it_would_open_a_tunnel() {
    let get = of(&mut handshake()).unwrap().unwrap();
    let connect = of(&mut extended_connect("websocket")).unwrap().unwrap();
    let refused = |upgrade: &Upgrade, status, version| {
        let status = StatusCode::from_u16(status).unwrap();
        upgrade.check_refusal(ADDR, status, version).is_ok()
    };
    let (http1, http2) = (Version::HTTP_11, Version::HTTP_2);
    assert!(refused(&get, 200, http1), "ordinary HTTP");
    assert!(
        !refused(&get, 204, http2),
        "the upstream thinks it is a tunnel"
    );
    for version in [http1, http2] {
        assert!(!refused(&connect, 200, version));
        assert!(!refused(&connect, 299, version));
        for status in [301, 401, 403, 404, 426, 500, 503] {
            assert!(refused(&connect, status, version));
            assert!(refused(&get, status, version));
        }
    }
}
