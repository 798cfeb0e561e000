//! Bodies: a valid one arrives unchanged, an invalid one is cut off on both sides.

use mesh_ingress_testkit::{Closed, Step};
use tokio::io::AsyncWriteExt;

use crate::reply::soon;
use crate::world::{OK, SMUGGLED, World, answer, get, head, ok};

/// The script of an origin that reads a body, which may never end.
fn waits_for_the_end() -> Vec<Step> {
    vec![Step::ReadHead, Step::ReadToEnd]
}

/// Sends a valid chunk, and when that has arrived an invalid one: the client gets no success, the
/// origin sees no end of the body, and the bytes after it are dropped.
async fn cut(bad: &str) {
    let world = World::start([waits_for_the_end(), ok()]).await;
    let request = head("POST /cut HTTP/1.1", "Transfer-Encoding: chunked\r\n");
    let mut client = world.send(request + "5\r\nhello\r\n").await;
    world.received(0, "hello").await;
    client.send([bad, SMUGGLED].concat()).await;

    let answers = String::from_utf8_lossy(&client.rest().await).into_owned();
    assert!(!answers.starts_with("HTTP/1.1 2"), "{answers}");
    assert!(answers.matches("HTTP/1.").count() <= 1, "{answers}");
    assert_ne!(
        soon(world.origin.wait_for_closed(0)).await,
        Closed::ByScript
    );
    let received = world.all_received();
    assert!(!received.ends_with("0\r\n\r\n"), "a clean end: {received}");
    world.first_connection_is_not_used_again().await;
    assert!(!world.all_received().contains("/smuggled"));
}

macro_rules! cut {
    ($($(#[$attr:meta])* $name:ident: $bad:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { cut(&$bad).await; })*
    };
}

cut! {
    rfc9112_7_1_a_chunk_without_size_is_cut: "\r\nhello\r\n0\r\n\r\n";
    rfc9112_7_1_a_chunk_size_that_is_no_number_is_cut: "g\r\nhello\r\n0\r\n\r\n";
    rfc9112_7_1_a_chunk_size_with_a_sign_is_cut: "+5\r\nhello\r\n0\r\n\r\n";
    rfc9112_7_1_a_negative_chunk_size_is_cut: "-1\r\nhello\r\n0\r\n\r\n";
    rfc9112_7_1_a_chunk_size_with_0x_is_cut: "0x5\r\nhello\r\n0\r\n\r\n";
    rfc9112_7_1_white_space_before_a_chunk_size_is_cut: " 5\r\nhello\r\n0\r\n\r\n";
    rfc9112_7_1_a_padded_chunk_size_is_cut: "5 \r\nhello\r\n0\r\n\r\n";
    rustsec_2021_0079_a_chunk_size_of_65_bits_is_cut: "10000000000000005\r\nhello\r\n0\r\n\r\n";
    rustsec_2021_0079_a_chunk_size_of_68_bits_is_cut: "f0000000000000003\r\nabc\r\n0\r\n\r\n";
    rfc9112_7_1_a_chunk_size_with_a_list_is_cut: "5,5\r\nhello\r\n0\r\n\r\n";
    cve_2025_22871_a_chunk_size_line_that_ends_in_a_bare_lf_is_cut: "5\nhello\r\n0\r\n\r\n";
    cve_2025_22871_a_chunk_extension_with_a_bare_lf_is_cut: "5;\nhello\r\n0\r\n\r\n";
    rfc9112_7_1_1_a_chunk_extension_with_a_bare_cr_is_cut: "5;a\rb\r\nhello\r\n0\r\n\r\n";
    rfc9112_7_1_1_a_chunk_extension_with_a_nul_is_cut: "5;a\0\r\nhello\r\n0\r\n\r\n";
    cve_2023_39326_a_long_chunk_extension_is_cut:
        format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(1000));
    rfc9112_7_1_data_without_crlf_is_cut: "5\r\nhello0\r\n\r\n";
    rfc9112_7_1_data_that_ends_in_a_bare_lf_is_cut: "5\r\nhello\n0\r\n\r\n";
    rfc9112_7_1_data_longer_than_its_size_is_cut: "5\r\nhello!\r\n0\r\n\r\n";
    rfc9112_7_1_a_last_chunk_that_ends_in_bare_lfs_is_cut: "0\n\n";
    rfc9112_7_1_trailers_that_end_in_a_bare_lf_are_cut: "0\r\n\n";
    rfc9112_7_1_2_a_trailer_field_that_ends_in_a_bare_lf_is_cut: "0\r\nX: y\n\r\n";
    rfc9112_7_1_2_a_folded_trailer_field_is_cut: "0\r\nX: y\r\n z\r\n\r\n";
    rfc9112_7_1_2_white_space_before_a_colon_in_the_trailers_is_cut: "0\r\nX : y\r\n\r\n";
    rfc9112_7_1_2_a_request_instead_of_the_end_of_trailers_is_cut: "0\r\n";
    rfc9112_7_1_2_trailers_over_the_limit_are_cut:
        format!("0\r\n{}\r\n", format!("X: {}\r\n", "y".repeat(1000)).repeat(90));
}

/// Many chunks with an extension each, none of them long.
#[tokio::test]
async fn cve_2023_39326_many_chunk_extensions_are_bounded() {
    let body = format!("1;{}\r\na\r\n", "b".repeat(250)).repeat(200);
    cut(&body).await;
}

/// The chunked body as it reaches the origin.
async fn rechunked(body: &str) -> String {
    let script = vec![
        Step::ReadHead,
        Step::ReadUntil("0\r\n\r\n".into()),
        Step::send(OK),
    ];
    let world = World::start([script]).await;
    let request = head("POST / HTTP/1.1", "transfer-encoding: Chunked\r\n");
    let reply = world.ask(format!("{request}{body}")).await;
    assert_eq!(reply.status, 200);
    let received = String::from_utf8(world.origin.received(0)).unwrap();
    let (head, body) = received.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert_eq!(
        head.matches("transfer-encoding: chunked").count(),
        1,
        "{head}"
    );
    assert!(!head.contains("content-length"), "{head}");
    body.to_owned()
}

/// The bytes of a body without the framing.
fn unchunked(mut body: &str) -> String {
    let mut data = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            assert_eq!(rest, "\r\n");
            return data;
        }
        data += &rest[..size];
        body = rest[size..].strip_prefix("\r\n").unwrap();
    }
}

#[tokio::test]
async fn rfc9112_7_1_chunks_arrive_as_they_were() {
    let body = rechunked("5\r\nhello\r\n00A\r\n, world...\r\n0\r\n\r\n").await;
    assert_eq!(unchunked(&body), "hello, world...");
}

#[tokio::test]
async fn rfc9112_7_1_1_chunk_extensions_are_dropped() {
    let body = rechunked("5;a=b;c=\"d e\"\r\nhello\r\n0;f\r\n\r\n").await;
    assert_eq!(unchunked(&body), "hello");
}

#[tokio::test]
async fn rfc9112_7_1_an_empty_body_in_chunks_has_its_end() {
    assert_eq!(unchunked(&rechunked("0\r\n\r\n").await), "");
}

#[tokio::test]
async fn rfc9112_6_2_a_body_with_a_length_arrives_with_it() {
    let script = vec![Step::ReadHead, Step::ReadBody(5), Step::send(OK)];
    let world = World::start([script]).await;
    // White space around a value is no part of it.
    let request = head("POST / HTTP/1.1", "Content-Length:\t5 \r\n") + "he\0\r\n";
    assert_eq!(world.ask(request).await.status, 200);
    let received = world.origin.received(0);
    assert!(received.ends_with(b"\r\n\r\nhe\0\r\n"));
    let head = world.head_at_origin(0).await.to_lowercase();
    assert_eq!(head.matches("content-length: 5\r\n").count(), 1, "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
}

#[tokio::test]
async fn rfc9110_8_6_a_length_of_zero_is_kept() {
    let world = World::start([ok()]).await;
    let head = world
        .forwarded(head("POST / HTTP/1.1", "Content-Length: 0\r\n"))
        .await;
    assert_eq!(
        crate::world::field_values(&head, "content-length"),
        ["0"],
        "{head}"
    );
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
}

#[tokio::test]
async fn rfc9110_8_6_a_get_without_body_stays_without() {
    let world = World::start([ok()]).await;
    let head = world.forwarded(get("/")).await.to_lowercase();
    assert!(!head.contains("content-length"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
}

#[tokio::test]
async fn rfc9110_9_3_1_a_get_with_a_length_keeps_its_body() {
    let script = vec![Step::ReadHead, Step::ReadBody(5), Step::send(OK)];
    let world = World::start([script]).await;
    let request = head("GET / HTTP/1.1", "Content-Length: 5\r\n") + "hello";
    assert_eq!(world.ask(request).await.status, 200);
    assert!(world.origin.received(0).ends_with(b"\r\n\r\nhello"));
}

/// One chunk for each byte is a valid body.
#[tokio::test]
async fn rfc9112_7_1_tiny_chunks_are_a_body() {
    const CHUNKS: usize = 10_000;
    let script = vec![
        Step::ReadHead,
        Step::ReadUntil("0\r\n\r\n".into()),
        Step::send(OK),
    ];
    let world = World::start([script]).await;
    let request = head("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n");
    let reply = world
        .ask(request + &"1\r\nx\r\n".repeat(CHUNKS) + "0\r\n\r\n")
        .await;
    assert_eq!(reply.status, 200);
    let received = world.all_received();
    let (_, body) = received.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.matches('x').count(), CHUNKS);
}

/// hyper's client leaves out a body of unknown length, which a GET seldom has, and says nothing.
#[tokio::test]
async fn rfc9110_9_3_1_a_get_in_chunks_keeps_its_body_or_is_refused() {
    let script = vec![
        Step::ReadHead,
        Step::ReadUntil("\r\n0\r\n\r\n".into()),
        Step::send(OK),
    ];
    let world = World::start([script]).await;
    let request = head("GET / HTTP/1.1", "Transfer-Encoding: chunked\r\n");
    let reply = world.ask(request + "5\r\nhello\r\n0\r\n\r\n").await;
    assert_eq!(reply.status, 200);
    let received = String::from_utf8(world.origin.received(0)).unwrap();
    assert_eq!(
        unchunked(received.split_once("\r\n\r\n").unwrap().1),
        "hello"
    );
}

/// The response to it has no body; the request has one all the same.
#[tokio::test]
async fn rfc9110_9_3_2_a_head_in_chunks_keeps_its_body_or_is_refused() {
    let script = vec![
        Step::ReadHead,
        Step::ReadUntil("5\r\nhello\r\n0\r\n\r\n".into()),
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
    ];
    let world = World::start([[script, answer(OK)].concat()]).await;
    let request = head("HEAD / HTTP/1.1", "Transfer-Encoding: chunked\r\n");
    let mut client = world.send(request + "5\r\nhello\r\n0\r\n\r\n").await;
    assert_eq!(client.reply_to("HEAD").await.status, 200);
    // It is not taken for the next request.
    client.send(get("/next")).await;
    assert_eq!(client.reply().await.text(), "ok");
    assert_eq!(world.origin.connections(), 1);
}

#[tokio::test]
async fn rfc9112_8_a_body_that_ends_early_has_no_end_upstream() {
    let world = World::start([waits_for_the_end(), ok()]).await;
    let request = head("POST / HTTP/1.1", "Content-Length: 10\r\n");
    let client = world.send(request + "hello").await;
    world.received(0, "hello").await;
    drop(client);
    soon(world.origin.wait_for_closed(0)).await;
    assert!(world.origin.received(0).ends_with(b"\r\n\r\nhello"));
    world.first_connection_is_not_used_again().await;
}

#[tokio::test]
async fn rfc9112_8_chunks_that_end_early_have_no_end_upstream() {
    let world = World::start([waits_for_the_end(), ok()]).await;
    let request = head("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n");
    let client = world.send(request + "5\r\nhello\r\n").await;
    world.received(0, "hello").await;
    drop(client);
    soon(world.origin.wait_for_closed(0)).await;
    assert!(!world.origin.received(0).ends_with(b"0\r\n\r\n"));
    world.first_connection_is_not_used_again().await;
}

/// A client that closes its sending side in the middle of a body is not waiting for an end.
#[tokio::test]
async fn rfc9112_8_a_half_close_is_no_end_of_chunks() {
    let world = World::start([waits_for_the_end(), ok()]).await;
    let request = head("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n");
    let mut client = world.send(request + "5\r\nhello\r\n0\r\n").await;
    world.received(0, "hello").await;
    client.stream.shutdown().await.unwrap();
    soon(world.origin.wait_for_closed(0)).await;
    assert!(!world.origin.received(0).ends_with(b"0\r\n\r\n"));
    let answers = String::from_utf8_lossy(&client.rest().await).into_owned();
    assert!(!answers.starts_with("HTTP/1.1 2"), "{answers}");
}

/// The final response comes while the client is still uploading, and the upload is not read to
/// its end by the origin: that connection is of no use any more.
#[tokio::test]
async fn rfc9112_9_3_an_early_answer_arrives_and_the_connection_is_not_used_again() {
    let world = World::start([answer(OK), ok()]).await;
    let request = head("POST / HTTP/1.1", "Content-Length: 1000000\r\n");
    let mut client = world.send(request + "hello").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (200, "ok"));
    drop(client);
    world.first_connection_is_not_used_again().await;
}

/// After an early response without `Connection: close` the gateway reads a short rest of the request.
#[tokio::test]
async fn rfc9112_9_3_after_an_early_answer_a_client_may_finish_and_go_on() {
    let world = World::start([answer(OK), ok(), ok()]).await;
    let request = head("POST / HTTP/1.1", "Content-Length: 10\r\n");
    let mut client = world.send(request + "hello").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (200, "ok"));
    assert_eq!(reply.values("connection"), [""; 0]);
    // Waits until the gateway is done with the request, and only reads from this client.
    world.first_connection_is_not_used_again().await;
    client.send("world".to_owned() + &get("/next")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (200, "ok"));
    assert!(world.all_received().contains("GET /next "));
}

/// A client that sends nothing more is closed after the header timeout, or at once where that is off.
#[tokio::test]
async fn rfc9112_9_5_wait_after_an_early_response_is_bounded() {
    for time in ["0", "200ms"] {
        let options = ["--request-header-timeout", time];
        let world = World::with([answer(OK)], &options).await;
        let request = head("POST / HTTP/1.1", "Content-Length: 10\r\n");
        let mut client = world.send(request + "hello").await;
        assert_eq!(client.reply().await.status, 200);
        client.ends().await;
    }
}

/// A refused client gets `Connection: close` if it may still have much to send.
#[tokio::test]
async fn rfc9112_9_6_client_refused_within_a_body_gets_connection_close() {
    for fields in [
        "Content-Length: 1000000\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        let refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
        let world = World::start([answer(refusal)]).await;
        let request = head("POST / HTTP/1.1", fields);
        let mut client = world.send(request + "5\r\nhello\r\n").await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 413);
        assert_eq!(reply.values("connection"), ["close"], "{fields}");
        client.ends().await;
    }
}

/// When the gateway answers by itself, the body is not the next request.
#[tokio::test]
async fn pingora_2025_0037_the_body_of_a_request_answered_here_is_no_request() {
    let world = World::start([ok()]).await;
    let bytes = format!(
        "POST / HTTP/1.1\r\nHost: nobody.example.com\r\nContent-Length: {}\r\n\r\n{SMUGGLED}{}",
        SMUGGLED.len(),
        get("/next"),
    );
    let mut client = world.send(bytes).await;
    assert_eq!(client.reply().await.status, 404);
    client.stream.shutdown().await.unwrap();
    let rest = String::from_utf8_lossy(&client.rest().await).into_owned();
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 200 "),
        "{rest}"
    );
    assert!(!world.all_received().contains("/smuggled"), "{rest}");
}
