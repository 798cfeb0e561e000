//! Fields after a body, both ways (RFC 9110 §6.5).

use mesh_ingress_testkit::Step;

use crate::world::{OK, World, answer, get, head};

/// The trailers the origin gets of a request, as text.
async fn sent(trailers: &str) -> String {
    let script = vec![
        Step::ReadHead,
        Step::ReadUntil("hello".into()),
        Step::ReadUntil("\r\n\r\n".into()),
        Step::send(OK),
    ];
    let world = World::start([[script, answer(OK)].concat()]).await;
    let names: Vec<&str> = trailers
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    let fields = format!(
        "Transfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\nTrailer: {}\r\n",
        names.join(", "),
    );
    let request = head("POST / HTTP/1.1", &fields) + "5\r\nhello\r\n0\r\n" + trailers + "\r\n";
    assert_eq!(world.ask(request).await.status, 200);
    // The following bytes belong to the next request.
    assert_eq!(world.ask(get("/fence")).await.status, 200);
    let received = world.all_received();
    let (_, rest) = received.split_once("hello\r\n0\r\n").unwrap();
    let (trailers, _) = rest.split_once("GET /fence").unwrap();
    trailers.strip_suffix("\r\n").unwrap().to_lowercase()
}

macro_rules! forbidden {
    ($($(#[$attr:meta])* $name:ident: $field:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() {
            let trailers = sent(concat!($field, ": evil\r\nX-Good: 1\r\n")).await;
            assert!(!trailers.contains("evil"), "{trailers}");
        })*
    };
}

forbidden! {
    rfc9110_6_5_1_content_length_is_no_trailer: "Content-Length";
    rfc9110_6_5_1_transfer_encoding_is_no_trailer: "Transfer-Encoding";
    rfc9110_6_5_1_host_is_no_trailer: "Host";
    rfc9110_6_5_1_authorization_is_no_trailer: "Authorization";
    rfc9110_6_5_1_cookie_is_no_trailer: "Cookie";
    rfc9110_6_5_1_content_type_is_no_trailer: "Content-Type";
    traefik_forwarding_fields_are_no_trailers: "X-Forwarded-For";
    envoy_fields_are_no_trailers: "X-Envoy-Retry-On";
    linkerd_fields_are_no_trailers: "l5d-dst-override";
    cgi_look_alikes_are_no_trailers: "X_Forwarded_For";
}

#[tokio::test]
async fn rfc9110_6_5_a_good_trailer_reaches_the_origin() {
    assert_eq!(sent("X-Checksum: abc\r\n").await, "x-checksum: abc\r\n");
}

/// The response of an origin with trailers, to a client that says so or not.
async fn got(fields: &str, trailers: &str) -> (String, Option<String>) {
    let names: Vec<&str> = trailers
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    let names = names.join(", ");
    let response = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: {names}\r\n\r\n\
         5\r\nhello\r\n0\r\n{trailers}\r\n"
    );
    let script = [answer(response), answer(OK)].concat();
    let world = World::start([script]).await;
    let reply = world.ask(head("GET / HTTP/1.1", fields)).await;
    assert_eq!((reply.status, reply.text()), (200, "hello"));
    assert_eq!(world.ask(get("/next")).await.text(), "ok");
    assert_eq!(
        world.origin.connections(),
        1,
        "used again, trailers are no matter"
    );
    (reply.head, reply.trailers)
}

const TE: &str = "TE: trailers\r\nConnection: TE\r\n";

#[tokio::test]
async fn rfc9110_6_5_trailers_reach_a_client_that_wants_them() {
    let (_, trailers) = got(TE, "Grpc-Status: 0\r\nX-Checksum: abc\r\n").await;
    let trailers = trailers.unwrap().to_lowercase();
    assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers}");
    assert!(trailers.contains("x-checksum: abc\r\n"), "{trailers}");
}

#[tokio::test]
async fn rfc9110_6_5_1_trailers_without_te_are_dropped() {
    let (_, trailers) = got("", "X-Checksum: abc\r\n").await;
    assert_eq!(trailers.unwrap_or_default(), "");
}

#[tokio::test]
async fn rfc9110_6_5_1_trailers_that_change_a_response_are_dropped() {
    let fields = "Set-Cookie: a=evil\r\nContent-Length: 666\r\nTransfer-Encoding: evil\r\n\
                  Location: http://evil/\r\nX-Good: 1\r\n";
    let (head, trailers) = got(TE, fields).await;
    let trailers = trailers.unwrap_or_default().to_lowercase();
    assert!(
        !trailers.contains("evil") && !trailers.contains("666"),
        "{trailers}"
    );
    assert!(!head.contains("evil"), "merged into the head: {head}");
}

#[tokio::test]
async fn rfc9110_6_5_1_trailers_are_not_merged_into_the_head() {
    let (head, _) = got(TE, "X-Checksum: abc\r\n").await;
    assert!(!head.contains("abc"), "{head}");
}
