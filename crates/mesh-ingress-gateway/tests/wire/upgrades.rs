//! Upgrades: no bytes pass before the requested 101, and all bytes after it.

use mesh_ingress_testkit::{Gate, Step};
use tokio::io::AsyncWriteExt;

use crate::reply::{Client, soon};
use crate::world::{OK, SMUGGLED, World, answer, field_values, get, head, ok};

const WEBSOCKET: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
pub(crate) const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

pub(crate) fn upgrade() -> String {
    head("GET /chat HTTP/1.1", WEBSOCKET)
}

async fn switched(client: &mut Client) -> String {
    let (status, head) = client.head().await;
    assert_eq!(status, 101, "{head}");
    head
}

#[tokio::test]
async fn rfc6455_4_2_2_a_websocket_opens_and_frames_pass_both_ways() {
    let script = vec![
        Step::ReadHead,
        Step::send(SWITCHING),
        Step::ReadBody(7),
        Step::send(b"\x81\x05world".to_vec()),
    ];
    let world = World::start([script]).await;
    let mut client = world.send(upgrade()).await;
    let reply = switched(&mut client).await;
    assert_eq!(field_values(&reply, "upgrade"), ["websocket"], "{reply}");
    assert_eq!(
        field_values(&reply, "connection").join(",").to_lowercase(),
        "upgrade",
        "{reply}"
    );
    assert_eq!(
        field_values(&reply, "sec-websocket-accept"),
        ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
    );
    assert!(field_values(&reply, "content-length").is_empty(), "{reply}");
    let request = world.head_at_origin(0).await;
    assert_eq!(
        field_values(&request, "upgrade"),
        ["websocket"],
        "{request}"
    );
    assert_eq!(
        field_values(&request, "sec-websocket-key"),
        ["dGhlIHNhbXBsZSBub25jZQ=="]
    );
    client.send(b"\x81\x05hello").await;
    assert_eq!(client.exactly(7).await, b"\x81\x05world");
    assert!(world.origin.received(0).ends_with(b"\r\n\r\n\x81\x05hello"));
}

/// Bytes that are not HTTP, some of them sent before the 101.
#[tokio::test]
async fn pingora_2026_0033_bytes_before_the_101_wait_for_it() {
    let gate = Gate::new();
    let script = vec![
        Step::ReadHead,
        Step::Hold(gate.clone()),
        Step::send(SWITCHING),
        Step::ReadToEnd,
    ];
    let world = World::start([script]).await;
    let early = b"\x81\x85\0\r\n\n early: \xff";
    let mut client = world.send([upgrade().as_bytes(), early].concat()).await;
    let request = world.head_at_origin(0).await;
    assert!(world.origin.received(0).ends_with(b"\r\n\r\n"), "{request}");
    gate.open();
    switched(&mut client).await;
    client.send(b"later").await;
    let all = [&early[..], b"later"].concat();
    soon(
        world
            .origin
            .wait_for_received(0, |bytes| bytes.ends_with(&all)),
    )
    .await;
}

/// The same in a piece of its own, when the gateway has nothing else to read.
#[tokio::test]
async fn pingora_2026_0033_bytes_after_the_request_wait_for_the_101() {
    let gate = Gate::new();
    let script = vec![
        Step::ReadHead,
        Step::Hold(gate.clone()),
        Step::send(SWITCHING),
        Step::ReadToEnd,
    ];
    let world = World::start([script]).await;
    let mut client = world.send(upgrade()).await;
    world.received(0, "\r\n\r\n").await;
    client.send(SMUGGLED).await;
    // The gateway has but one thread, and has read that when it has answered this.
    assert_eq!(world.ask("GET / HTTP/1.1\r\n\r\n").await.status, 400);
    assert!(!world.all_received().contains("/smuggled"));
    gate.open();
    switched(&mut client).await;
    world.received(0, "/smuggled").await;
}

#[tokio::test]
async fn pingora_2026_0033_a_request_after_a_refused_upgrade_is_a_request() {
    let world = World::start([ok()]).await;
    let mut client = world.send(upgrade() + &get("/second")).await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 200);
    let received = world.all_received();
    assert!(received.contains("GET /second HTTP/1.1\r\n"), "{received}");
    assert!(!received.contains("Host: shop"), "as it was: {received}");
}

/// Bytes sent in the hope of a 101 are checked as all others are.
#[tokio::test]
async fn pingora_2026_0033_bytes_after_a_refused_upgrade_are_guarded() {
    let world = World::start([ok()]).await;
    let bad = head(
        "POST /bad HTTP/1.1",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    );
    let mut client = world.send(upgrade() + &bad + SMUGGLED).await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 400);
    client.ends().await;
    assert!(!world.all_received().contains("/bad"));
    assert!(!world.all_received().contains("/smuggled"));
}

#[tokio::test]
async fn pingora_2026_0033_websocket_frames_after_a_refused_upgrade_are_refused() {
    let world = World::start([answer(
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
    )])
    .await;
    let mut client = world
        .send([upgrade().as_bytes(), b"\x81\x85abcdefghi"].concat())
        .await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (403, "no"));
    let rest = String::from_utf8_lossy(&client.rest_after_fin().await).into_owned();
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 400"),
        "{rest}"
    );
    assert!(!world.origin.received(0).ends_with(b"abcdefghi"));
}

/// Two upgrades and their answers do not get mixed up, nor do earlier requests.
#[tokio::test]
async fn rfc9110_7_8_each_upgrade_has_its_own_answer() {
    let script = [
        answer(OK),
        answer(OK),
        vec![Step::ReadHead, Step::send(SWITCHING), Step::ReadToEnd],
    ];
    let world = World::start([script.concat(), ok()]).await;
    let early = b"\0early";
    let all = [
        get("/1").as_bytes(),
        upgrade().as_bytes(),
        upgrade().as_bytes(),
        early,
    ]
    .concat();
    let mut client = world.send(all).await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 200);
    switched(&mut client).await;
    world.received(0, "\0early").await;
}

#[tokio::test]
async fn rfc9110_7_8_a_body_before_the_upgrade_is_a_body() {
    let script = vec![Step::ReadHead, Step::ReadBody(5), Step::send(OK)];
    let world = World::start([script]).await;
    // As curl asks for HTTP/2.
    let fields = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
                  Content-Length: 5\r\n";
    let mut client = world
        .send(head("POST / HTTP/1.1", fields) + "hello" + &get("/next"))
        .await;
    assert_eq!(client.reply().await.status, 200);
    assert!(world.origin.received(0).ends_with(b"hello"));
    drop(client);
}

#[tokio::test]
async fn rfc9110_7_8_an_upgrade_behind_other_requests_is_an_upgrade() {
    let script = vec![
        Step::ReadHead,
        Step::send(OK),
        Step::ReadHead,
        Step::ReadBody(5),
        Step::send(OK),
        Step::ReadHead,
        Step::send(OK),
        Step::ReadHead,
        Step::send(SWITCHING),
        Step::ReadBody(7),
        Step::send(b"\x81\x05world".to_vec()),
    ];
    let world = World::start([script]).await;
    let mut client = world.send(get("/first")).await;
    assert_eq!(client.reply().await.status, 200);
    let post = head("POST / HTTP/1.1", "Content-Length: 5\r\n") + "hello";
    for request in [post, get("/third")] {
        client.send(request).await;
        assert_eq!(client.reply().await.status, 200);
    }
    client.send(upgrade()).await;
    switched(&mut client).await;
    client.send(b"\x81\x05hello").await;
    assert_eq!(client.exactly(7).await, b"\x81\x05world");
}

#[tokio::test]
async fn rfc9110_7_8_upgrade_without_connection_option_is_dropped() {
    let world = World::start([ok()]).await;
    let head = world
        .forwarded(head("GET / HTTP/1.1", "Upgrade: websocket\r\n"))
        .await;
    assert!(field_values(&head, "upgrade").is_empty(), "{head}");
}

#[tokio::test]
async fn rfc9110_7_8_http10_has_no_upgrade() {
    let world = World::start([ok()]).await;
    // Without keep-alive, so that nothing follows.
    let fields = WEBSOCKET.replace("keep-alive, ", "");
    let mut client = world
        .send(head("GET / HTTP/1.0", &fields) + &get("/smuggled"))
        .await;
    assert_eq!(client.reply().await.status, 200);
    client.ends().await;
    let head = world.head_at_origin(0).await;
    assert!(field_values(&head, "upgrade").is_empty(), "{head}");
    assert!(!world.all_received().contains("/smuggled"));
}

async fn refused(response: &str) {
    let world = World::start([answer(format!("{response}evil")), ok()]).await;
    let mut client = world.send(upgrade()).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 502, "{}", reply.head);
    assert!(!reply.text().contains("evil"));
    world.first_connection_is_not_used_again().await;
}

#[tokio::test]
async fn rfc9110_7_8_a_101_to_another_protocol_is_502() {
    refused("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        .await;
}

#[tokio::test]
async fn rfc9110_7_8_a_101_to_no_protocol_is_502() {
    refused("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n").await;
}

#[tokio::test]
async fn rfc9110_15_2_2_unrequested_101_is_502() {
    let world = World::start([answer(format!("{SWITCHING}evil")), ok()]).await;
    // `Upgrade` without `Connection: upgrade` does not apply to this hop.
    let mut client = world
        .send(head("GET / HTTP/1.1", "Upgrade: websocket\r\n"))
        .await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 502, "{}", reply.head);
    world.first_connection_is_not_used_again().await;
}

#[tokio::test]
async fn rfc9110_7_8_bytes_of_the_origin_behind_its_101_arrive() {
    let script = vec![
        Step::ReadHead,
        Step::send(format!("{SWITCHING}first")),
        Step::ReadToEnd,
    ];
    let world = World::start([script]).await;
    let mut client = world.send(upgrade()).await;
    switched(&mut client).await;
    assert_eq!(client.exactly(5).await, b"first");
}

#[tokio::test]
async fn rfc9110_7_8_a_half_close_of_the_client_passes() {
    let script = vec![
        Step::ReadHead,
        Step::send(SWITCHING),
        Step::ReadToEnd,
        Step::send("bye"),
    ];
    let world = World::start([script]).await;
    let mut client = world.send(upgrade()).await;
    switched(&mut client).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.exactly(3).await, b"bye");
    client.ends().await;
}

#[tokio::test]
async fn rfc9110_7_8_a_half_close_of_the_origin_passes() {
    let script = vec![
        Step::ReadHead,
        Step::send(SWITCHING),
        Step::CloseWrite,
        Step::ReadToEnd,
    ];
    let world = World::start([script]).await;
    let mut client = world.send(upgrade()).await;
    switched(&mut client).await;
    client.ends().await;
    client.send("still here").await;
    world.received(0, "still here").await;
}

/// One byte at a time, so that each state sees a partial read.
#[tokio::test]
async fn rfc9110_7_8_an_upgrade_in_pieces_is_an_upgrade() {
    let script = vec![Step::ReadHead, Step::send(SWITCHING), Step::ReadToEnd];
    let world = World::start([script]).await;
    let mut client = world.client().await;
    client.stream.set_nodelay(true).unwrap();
    for byte in upgrade().as_bytes().chunks(1).chain(b"\x81\0\n".chunks(1)) {
        client.send(byte).await;
    }
    switched(&mut client).await;
    soon(
        world
            .origin
            .wait_for_received(0, |bytes| bytes.ends_with(b"\x81\0\n")),
    )
    .await;
}

/// A request that asks for another protocol, whose body has not been read when it is answered.
fn unread_upgrade() -> String {
    let fields = "Connection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 5\r\nX: ";
    let head = format!("POST /x HTTP/1.1\r\nHost: nobody.example.com\r\n{fields}");
    // As much as is read at once: the body is still with the kernel.
    let padding = "x".repeat(8192 - head.len() - 4);
    format!("{head}{padding}\r\n\r\n")
}

#[tokio::test]
async fn rfc9110_7_8_bytes_after_a_refused_upgrade_are_http() {
    let world = World::start([[ok(), ok(), ok()].concat()]).await;
    let mut client = world
        .send(unread_upgrade() + "hello" + &get("/second"))
        .await;
    assert_eq!(client.reply().await.status, 404);
    assert_eq!(client.reply().await.status, 200);
    client.send(get("/third")).await;
    assert_eq!(client.reply().await.status, 200);
    // Another client finds the gateway alive.
    assert_eq!(world.ask(get("/fourth")).await.status, 200);
}

#[tokio::test]
async fn rfc9110_7_8_bytes_after_a_refused_upgrade_are_checked() {
    for evil in [
        "GET /smuggled HTTP/1.1\nHost: shop.example.com\n\n".to_owned(),
        get("/smuggled#fragment"),
        head(
            "POST /smuggled HTTP/1.1",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ) + "0\r\n\r\n",
    ] {
        let world = World::start([ok()]).await;
        let mut client = world.send(unread_upgrade() + "hello" + &evil).await;
        assert_eq!(client.reply().await.status, 404);
        let reply = client.reply().await;
        assert!(
            reply.status == 400 && reply.closes(),
            "{evil:?}: {}",
            reply.head
        );
        world.nothing_has_reached_the_origin().await;
    }
}
