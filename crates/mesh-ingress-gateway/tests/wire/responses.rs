//! Origins that break the protocol: the client gets a clean error or a visibly truncated response, and
//! the connection is never reused.

use mesh_ingress_testkit::Step;

use crate::reply::{Client, soon};
use crate::world::{OK, World, answer, get, ok};

/// The client gets a 502 and nothing of the response.
async fn refused(bytes: impl AsRef<[u8]>) {
    let world = World::start([answer(bytes), ok()]).await;
    let reply = world.ask(get("/")).await;
    assert_eq!(reply.status, 502, "{}", reply.head);
    assert!(!reply.text().contains("evil"), "{}", reply.text());
    assert!(!reply.head.contains("evil"), "{}", reply.head);
    world.first_connection_is_not_used_again().await;
}

macro_rules! refused {
    ($($(#[$attr:meta])* $name:ident: $bytes:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { refused($bytes).await; })*
    };
}

fn with(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n")
}

refused! {
    rfc9112_6_3_a_response_with_length_and_chunks_is_502:
        with("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + "4\r\nevil\r\n0\r\n\r\n";
    rfc9112_6_3_a_response_with_chunks_and_length_is_502:
        with("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n") + "4\r\nevil\r\n0\r\n\r\n";
    rfc9112_6_1_a_response_in_gzip_and_chunks_is_502:
        with("Transfer-Encoding: gzip, chunked\r\n") + "4\r\nevil\r\n0\r\n\r\n";
    rfc9112_7_1_a_response_in_chunks_twice_is_502:
        with("Transfer-Encoding: chunked, chunked\r\n") + "4\r\nevil\r\n0\r\n\r\n";
    rfc9112_6_1_a_response_with_two_codings_is_502:
        with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n") + "4\r\nevil\r\n0\r\n\r\n";
    rfc9112_6_1_a_response_with_another_coding_is_502: with("Transfer-Encoding: gzip\r\n") + "evil";
    rfc9112_6_1_a_response_of_http10_in_chunks_is_502:
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n";
    rfc9110_8_6_a_response_with_differing_lengths_is_502:
        with("Content-Length: 4\r\nContent-Length: 5\r\n") + "evil!";
    rfc9110_8_6_a_response_with_the_same_length_twice_is_502:
        with("Content-Length: 4\r\nContent-Length: 4\r\n") + "evil";
    rfc9110_8_6_a_response_with_a_list_of_lengths_is_502: with("Content-Length: 4, 4\r\n") + "evil";
    rfc9110_8_6_a_response_with_a_negative_length_is_502: with("Content-Length: -4\r\n") + "evil";
    rfc9110_8_6_a_response_with_a_plus_in_its_length_is_502: with("Content-Length: +4\r\n") + "evil";
    rfc9110_8_6_a_response_with_a_length_that_is_no_number_is_502:
        with("Content-Length: four\r\n") + "evil";
    rfc9110_8_6_a_response_with_a_length_of_65_bits_is_502:
        with("Content-Length: 18446744073709551616\r\n") + "evil";
    rfc9110_8_6_a_204_with_a_length_is_502:
        "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil";
    rfc9112_6_1_a_204_in_chunks_is_502:
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n";
    rfc9112_5_2_a_response_with_a_folded_line_is_502: with("X: evil\r\n y\r\nContent-Length: 0\r\n");
    rfc9112_5_1_a_response_with_white_space_before_a_colon_is_502:
        with("X : evil\r\nContent-Length: 0\r\n");
    rfc9110_5_5_a_response_with_a_nul_is_502: with("X: evil\0\r\nContent-Length: 0\r\n");
    rfc9112_2_2_a_response_with_a_bare_cr_is_502: with("X: evil\ry\r\nContent-Length: 0\r\n");
    rfc9112_4_a_status_that_is_no_number_is_502: "HTTP/1.1 abc OK\r\nContent-Length: 4\r\n\r\nevil";
    rfc9112_4_a_status_of_four_digits_is_502: "HTTP/1.1 2000 OK\r\nContent-Length: 4\r\n\r\nevil";
    rfc9112_2_3_http_0_9_is_502: "<html>evil</html>\r\n\r\n";
    rfc9112_2_3_a_response_of_http_2_0_is_502: "HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    response_that_is_not_http_is_502: "SSH-2.0-OpenSSH_9.9 evil\r\n\r\n";
    a_tls_alert_is_502: b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n";
    rfc9110_15_2_2_unrequested_101_for_an_upgrade_is_502:
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nevil";
    rfc6585_5_a_response_with_too_many_fields_is_502:
        with(&("X: evil\r\n".repeat(200) + "Content-Length: 0\r\n"));
    rfc6585_5_a_response_with_overlong_fields_is_502:
        with(&format!("X: evil{}\r\nContent-Length: 0\r\n", "y".repeat(200_000)));
}

#[tokio::test]
async fn rfc9112_8_origin_that_closes_without_a_response_is_502() {
    let world = World::start([vec![Step::ReadHead, Step::Close], ok()]).await;
    assert_eq!(world.ask(get("/")).await.status, 502);
    world.first_connection_is_not_used_again().await;
}

#[tokio::test]
async fn rfc9112_8_origin_that_resets_without_a_response_is_502() {
    let world = World::start([vec![Step::ReadHead, Step::Reset], ok()]).await;
    assert_eq!(world.ask(get("/")).await.status, 502);
    world.first_connection_is_not_used_again().await;
}

#[tokio::test]
async fn rfc9112_8_half_a_head_is_502() {
    let half = vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 200 OK\r\nX: evil\r\n"),
        Step::Close,
    ];
    let world = World::start([half, ok()]).await;
    assert_eq!(world.ask(get("/")).await.status, 502);
    world.first_connection_is_not_used_again().await;
}

/// The client sees a truncated response: the connection ends before the last byte or chunk.
async fn truncated(bytes: impl AsRef<[u8]>, end: Step) {
    let mut script = answer(bytes);
    script.push(end);
    let world = World::start([script, ok()]).await;
    let request = crate::world::head("GET / HTTP/1.1", "Connection: close\r\n");
    let all = world.send(request).await.rest().await;
    let all = String::from_utf8_lossy(&all).into_owned();
    // The end may come so early that the client has seen nothing of the response.
    if !all.is_empty() {
        let (head, rest) = all.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(rest.contains("half") || rest.is_empty(), "{rest}");
        assert!(!rest.ends_with("0\r\n\r\n"), "a clean end: {rest}");
        let framed = head.to_lowercase() + "\r\n";
        assert!(
            framed.contains("content-length: 100\r\n")
                || framed.contains("transfer-encoding: chunked\r\n"),
            "the end of the connection would be a clean one: {head}",
        );
    }
    world.first_connection_is_not_used_again().await;
}

macro_rules! truncated {
    ($($(#[$attr:meta])* $name:ident: $bytes:expr, $end:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { truncated($bytes, $end).await; })*
    };
}

truncated! {
    rfc9112_8_a_body_shorter_than_its_length_is_truncated:
        with("Content-Length: 100\r\n") + "half", Step::Close;
    rfc9112_8_a_body_with_a_length_that_is_reset_is_truncated:
        with("Content-Length: 100\r\n") + "half", Step::Reset;
    rfc9112_8_chunks_without_a_last_one_are_truncated:
        with("Transfer-Encoding: chunked\r\n") + "4\r\nhalf\r\n", Step::Close;
    rfc9112_8_chunks_that_are_reset_are_truncated:
        with("Transfer-Encoding: chunked\r\n") + "4\r\nhalf\r\n", Step::Reset;
    rfc9112_8_half_a_chunk_is_truncated:
        with("Transfer-Encoding: chunked\r\n") + "8\r\nhalf", Step::Close;
    rfc9112_8_a_last_chunk_without_its_empty_line_is_truncated:
        with("Transfer-Encoding: chunked\r\n") + "4\r\nhalf\r\n0\r\n", Step::Close;
    rfc9112_7_1_a_chunk_size_that_is_no_number_is_truncated:
        with("Transfer-Encoding: chunked\r\n") + "4\r\nhalf\r\nx\r\n0\r\n\r\n", Step::ReadToEnd;
    rfc9112_7_1_a_chunk_without_its_line_end_is_truncated:
        with("Transfer-Encoding: chunked\r\n") + "4\r\nhalf!0\r\n\r\n", Step::ReadToEnd;
    rustsec_2021_0079_a_chunk_size_of_65_bits_is_truncated:
        with("Transfer-Encoding: chunked\r\n") + "4\r\nhalf\r\n10000000000000000\r\n0\r\n\r\n",
        Step::ReadToEnd;
}

/// A complete response with surplus bytes after it.
async fn extra(method: &str, bytes: impl AsRef<[u8]>, status: u16, body: &str) {
    let world = World::start([answer(bytes), ok()]).await;
    let request = crate::world::head(&format!("{method} / HTTP/1.1"), "");
    let mut client: Client = world.send(request).await;
    let reply = client.reply_to(method).await;
    assert_eq!(
        (reply.status, reply.text()),
        (status, body),
        "{}",
        reply.head
    );
    // The next request on the same connection gets its own response.
    client.send(get("/own")).await;
    let own = client.reply().await;
    assert_eq!((own.status, own.text()), (200, "ok"));
    world.first_connection_is_not_used_again().await;
}

macro_rules! extra {
    ($($(#[$attr:meta])* $name:ident: $method:literal, $bytes:expr, $status:literal, $body:literal;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() {
            extra($method, $bytes, $status, $body).await;
        })*
    };
}

extra! {
    rfc9112_6_3_bytes_beyond_the_length_are_dropped_and_the_connection_with_them:
        "GET", with("Content-Length: 4\r\n") + "goodevil", 200, "good";
    rfc9112_11_1_a_response_behind_a_response_is_dropped:
        "GET", with("Content-Length: 4\r\n") + "good" + &with("Content-Length: 4\r\n") + "evil",
        200, "good";
    rfc9112_7_1_bytes_beyond_the_last_chunk_are_dropped:
        "GET", with("Transfer-Encoding: chunked\r\n") + "4\r\ngood\r\n0\r\n\r\nevil", 200, "good";
    rfc9112_7_1_a_response_behind_chunks_is_dropped:
        "GET", with("Transfer-Encoding: chunked\r\n") + "4\r\ngood\r\n0\r\n\r\n"
            + &with("Content-Length: 4\r\n") + "evil",
        200, "good";
    rfc9112_6_3_a_body_on_head_is_dropped:
        "HEAD", with("Content-Length: 4\r\n") + "evil", 200, "";
    rfc9112_6_3_chunks_on_head_are_dropped:
        "HEAD", with("Transfer-Encoding: chunked\r\n") + "4\r\nevil\r\n0\r\n\r\n", 200, "";
    rfc9112_6_3_a_body_on_304_is_dropped:
        "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", 304, "";
    rfc9112_6_3_a_body_on_204_is_dropped: "GET", "HTTP/1.1 204 No Content\r\n\r\nevil", 204, "";
}

#[tokio::test]
async fn rfc9112_9_6_response_with_close_ends_its_connection() {
    let closing = with("Connection: close\r\nContent-Length: 4\r\n") + "good";
    let world = World::start([answer(closing), ok()]).await;
    let reply = world.ask(get("/")).await;
    assert_eq!((reply.status, reply.text()), (200, "good"));
    world.first_connection_is_not_used_again().await;
}

#[tokio::test]
async fn rfc9112_9_3_http10_response_ends_its_connection() {
    let world = World::start([
        answer("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\ngood"),
        ok(),
    ])
    .await;
    let reply = world.ask(get("/")).await;
    assert_eq!((reply.status, reply.text()), (200, "good"));
    world.first_connection_is_not_used_again().await;
}

/// nginx calls it `proxy_noclose`: the response is complete, but the origin does not close.
#[tokio::test]
async fn rfc9112_6_3_a_whole_response_does_not_wait_for_the_origin_to_close() {
    let response = with("Connection: close\r\nContent-Length: 4\r\n") + "good";
    let script = vec![Step::ReadHead, Step::send(response), Step::ReadToEnd];
    let world = World::start([script]).await;
    assert_eq!(world.ask(get("/")).await.text(), "good");
}

#[tokio::test]
async fn rfc9112_6_3_a_response_without_length_ends_with_its_connection() {
    let script = vec![Step::ReadHead, Step::send(with("") + "good"), Step::Close];
    let world = World::start([script, ok()]).await;
    let reply = world.ask(get("/")).await;
    assert_eq!((reply.status, reply.text()), (200, "good"));
    assert_eq!(
        reply.values("transfer-encoding"),
        ["chunked"],
        "{}",
        reply.head
    );
    world.first_connection_is_not_used_again().await;
}

#[tokio::test]
async fn rfc9112_6_3_an_empty_response_is_used_again() {
    let script = [
        answer(with("Content-Length: 0\r\n")),
        answer(with("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n"),
        answer(OK),
    ];
    let world = World::start([script.concat()]).await;
    for body in ["", "", "ok"] {
        assert_eq!(world.ask(get("/")).await.text(), body);
    }
    assert_eq!(world.origin.connections(), 1);
}

#[tokio::test]
async fn rfc9110_15_2_interim_responses_are_skipped() {
    let response = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                    HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
    let world = World::start([[answer(response), answer(OK)].concat()]).await;
    let mut client = world.send(get("/")).await;
    let mut reply = client.reply().await;
    while reply.status < 200 {
        assert!(reply.status != 101 && reply.status != 100, "{}", reply.head);
        reply = client.reply().await;
    }
    assert_eq!((reply.status, reply.text()), (200, "good"));
    assert_eq!(world.ask(get("/next")).await.text(), "ok");
    assert_eq!(world.origin.connections(), 1);
}

#[tokio::test]
async fn rfc9110_15_2_endless_interim_responses_are_502() {
    let endless = "HTTP/1.1 103 Early Hints\r\nLink: </evil>\r\n\r\n".repeat(20_000);
    refused(endless).await;
}

/// Few enough that their number is no reason: the timeout is that of the final response.
#[tokio::test]
async fn rfc9110_15_2_interim_responses_do_not_extend_the_timeout() {
    let interim = || Step::send("HTTP/1.1 102 Processing\r\n\r\n");
    let script = vec![Step::ReadHead, interim(), interim(), Step::ReadToEnd];
    let options = ["--response-header-timeout", "200ms"];
    let world = World::with([script, ok()], &options).await;
    assert_eq!(world.ask(get("/")).await.status, 504);
    world.first_connection_is_not_used_again().await;
}

/// A response without a request must not answer the next request.
#[tokio::test]
async fn rfc9112_9_2_response_before_its_request_is_dropped() {
    // A gateway that takes it for an answer reuses the connection.
    let eager = [
        vec![Step::send(with("Content-Length: 4\r\n") + "evil")],
        vec![Step::ReadHead],
        ok(),
    ];
    let world = World::start([eager.concat(), ok()]).await;
    let reply = world.ask(get("/")).await;
    assert!(
        reply.status == 502 || reply.text() == "ok" || reply.text() == "evil",
        "{}",
        reply.head
    );
    let after = world.ask(get("/after")).await;
    assert_eq!((after.status, after.text()), (200, "ok"));
}

/// The same on a connection that waits for its next request.
#[tokio::test]
async fn rfc9112_9_2_response_on_an_idle_connection_is_dropped() {
    let gate = mesh_ingress_testkit::Gate::new();
    let evil = with("Content-Length: 4\r\n") + "evil";
    let script = vec![
        Step::ReadHead,
        Step::send(OK),
        Step::Hold(gate.clone()),
        Step::send(evil),
        Step::ReadToEnd,
    ];
    let world = World::start([script, ok()]).await;
    assert_eq!(world.ask(get("/")).await.text(), "ok");
    gate.open();
    // The gateway has to see that for itself, and closes.
    soon(world.origin.wait_for_closed(0)).await;
    world.first_connection_is_not_used_again().await;
}

/// A 408 on an idle connection, as many servers send before closing, answers no request.
#[tokio::test]
async fn rfc9110_15_5_9_408_on_an_idle_connection_is_dropped() {
    let gate = mesh_ingress_testkit::Gate::new();
    let script = vec![
        Step::ReadHead,
        Step::send(OK),
        Step::Hold(gate.clone()),
        Step::send(
            "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ),
        Step::Close,
    ];
    let world = World::start([script, ok()]).await;
    assert_eq!(world.ask(get("/")).await.text(), "ok");
    gate.open();
    soon(world.origin.wait_for_closed(0)).await;
    world.first_connection_is_not_used_again().await;
}
