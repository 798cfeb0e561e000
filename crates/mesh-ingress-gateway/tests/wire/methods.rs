//! Methods and statuses with rules of their own.

use mesh_ingress_testkit::{Gate, Step};

use crate::heads::refused;
use crate::world::{OK, World, answer, field_values, get, head, ok};

#[tokio::test]
async fn rfc9110_9_3_6_connect_is_405() {
    refused(405, head("CONNECT shop.example.com:443 HTTP/1.1", "")).await;
}

#[tokio::test]
async fn rfc9110_9_3_6_connect_to_the_origin_is_405() {
    refused(
        405,
        "CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n",
    )
    .await;
}

#[tokio::test]
async fn rfc9110_9_3_8_trace_is_405_and_shows_nothing() {
    let world = World::start([ok()]).await;
    let reply = world
        .ask(head("TRACE / HTTP/1.1", "Cookie: secret\r\n"))
        .await;
    assert_eq!(reply.status, 405);
    assert!(!format!("{}{}", reply.head, reply.text()).contains("secret"));
    world.nothing_has_reached_the_origin().await;
}

#[tokio::test]
async fn rfc9110_7_6_2_max_forwards_0_is_answered_here() {
    let world = World::start([ok()]).await;
    let reply = world
        .ask(head("OPTIONS / HTTP/1.1", "Max-Forwards: 0\r\n"))
        .await;
    assert!((200..300).contains(&reply.status), "{}", reply.head);
    world.nothing_has_reached_the_origin().await;
}

#[tokio::test]
async fn rfc9110_7_6_2_max_forwards_counts_down() {
    let world = World::start([ok()]).await;
    let head = world
        .forwarded(head("OPTIONS / HTTP/1.1", "Max-Forwards: 5\r\n"))
        .await;
    assert_eq!(field_values(&head, "max-forwards"), ["4"], "{head}");
}

#[tokio::test]
async fn rfc9110_7_6_2_a_get_may_say_max_forwards() {
    let world = World::start([ok()]).await;
    let head = world
        .forwarded(head("GET / HTTP/1.1", "Max-Forwards: 0\r\n"))
        .await;
    assert_eq!(field_values(&head, "max-forwards"), ["0"], "{head}");
}

#[tokio::test]
async fn rfc9110_9_1_unknown_methods_are_forwarded() {
    let world = World::start([ok()]).await;
    let head = world.forwarded(head("BREW! /pot HTTP/1.1", "")).await;
    assert!(head.starts_with("BREW! /pot HTTP/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn rfc9110_9_1_the_case_of_a_method_is_kept() {
    let world = World::start([ok()]).await;
    let head = world.forwarded(head("get / HTTP/1.1", "")).await;
    assert!(head.starts_with("get / HTTP/1.1\r\n"), "{head}");
}

/// After a response without a body both connections are reused.
async fn bodiless(method: &str, response: &str, status: u16) -> String {
    let script = vec![
        Step::ReadHead,
        Step::send(response.to_owned()),
        Step::ReadHead,
        Step::send(OK),
    ];
    let world = World::start([script]).await;
    let mut client = world.send(head(&format!("{method} / HTTP/1.1"), "")).await;
    let reply = client.reply_to(method).await;
    assert_eq!(reply.status, status);
    client.send(get("/next")).await;
    let next = client.reply().await;
    assert_eq!((next.status, next.text()), (200, "ok"));
    assert_eq!(
        world.origin.connections(),
        1,
        "a clean connection is used again"
    );
    reply.head
}

#[tokio::test]
async fn rfc9112_6_3_a_response_to_head_keeps_its_length_and_has_no_body() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    let head = bodiless("HEAD", response, 200).await;
    assert_eq!(field_values(&head, "content-length"), ["1000"], "{head}");
}

#[tokio::test]
async fn rfc9112_6_3_a_response_to_head_in_chunks_has_no_chunks() {
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    bodiless("HEAD", response, 200).await;
}

#[tokio::test]
async fn rfc9112_6_3_a_204_has_no_body_and_no_length() {
    let head = bodiless("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204).await;
    assert!(field_values(&head, "content-length").is_empty(), "{head}");
    assert!(
        field_values(&head, "transfer-encoding").is_empty(),
        "{head}"
    );
}

#[tokio::test]
async fn rfc9112_6_3_a_304_has_no_body_whatever_its_length() {
    let response = "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 1000\r\n\r\n";
    let head = bodiless("GET", response, 304).await;
    assert_eq!(field_values(&head, "etag"), ["\"a\""], "{head}");
}

#[tokio::test]
async fn rfc9110_15_unknown_status_is_forwarded() {
    let world = World::start([answer("HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nok")]).await;
    assert_eq!(world.ask(get("/")).await.status, 599);
}

/// The client sends the body when it gets a 100: from the origin, or from the gateway once the origin
/// has the head.
#[tokio::test]
async fn rfc9110_10_1_1_the_head_reaches_the_origin_before_the_body_is_asked_for() {
    let script = vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
        Step::ReadBody(5),
        Step::send(OK),
    ];
    let world = World::start([script]).await;
    let request = head(
        "POST / HTTP/1.1",
        "Expect: 100-continue\r\nContent-Length: 5\r\n",
    );
    let mut client = world.send(request).await;
    world.received(0, "\r\n\r\n").await;
    let (status, _) = client.head().await;
    assert_eq!(status, 100);
    client.send("hello").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (200, "ok"));
    assert!(world.origin.received(0).ends_with(b"hello"));
}

#[tokio::test]
async fn rfc9110_10_1_1_a_final_status_instead_of_100_arrives() {
    let refusal = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno";
    let world = World::start([answer(refusal)]).await;
    let request = head(
        "POST / HTTP/1.1",
        "Expect: 100-continue\r\nContent-Length: 5\r\n",
    );
    let mut client = world.send(request).await;
    let mut reply = client.reply().await;
    if reply.status == 100 {
        reply = client.reply().await;
    }
    assert_eq!((reply.status, reply.text()), (417, "no"));
}

/// An origin that never says 100, and a client that waits for it: no deadlock.
#[tokio::test]
async fn rfc9110_10_1_1_an_origin_that_does_not_know_expect_gets_the_body() {
    let script = vec![Step::ReadHead, Step::ReadBody(5), Step::send(OK)];
    let world = World::start([script]).await;
    let request = head(
        "POST / HTTP/1.1",
        "Expect: 100-continue\r\nContent-Length: 5\r\n",
    );
    let mut client = world.send(request).await;
    assert_eq!(client.head().await.0, 100);
    client.send("hello").await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn rfc9110_10_1_1_http10_gets_no_100() {
    let script = vec![Step::ReadHead, Step::ReadBody(5), Step::send(OK)];
    let world = World::start([script]).await;
    let request = head(
        "POST / HTTP/1.0",
        "Expect: 100-continue\r\nContent-Length: 5\r\n",
    );
    let mut client = world.send(request + "hello").await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn rfc9110_9_3_2_a_head_waits_like_a_get() {
    let gate = Gate::new();
    let script = vec![
        Step::ReadHead,
        Step::Hold(gate.clone()),
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
    ];
    let world = World::start([script]).await;
    let mut client = world.send(head("HEAD / HTTP/1.1", "")).await;
    world.received(0, "HEAD / HTTP/1.1\r\n").await;
    gate.open();
    assert_eq!(
        client.reply_to("HEAD").await.values("content-length"),
        ["7"]
    );
}
