//! Client connections: their lifetime, and the order of responses.

use mesh_ingress_testkit::{Gate, Step};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::reply::{Client, soon};
use crate::world::{OK, World, answer, get, head, ok};

fn numbered(number: usize) -> Vec<Step> {
    answer(format!(
        "HTTP/1.1 200 OK\r\nX-Number: {number}\r\nContent-Length: 1\r\n\r\n{number}"
    ))
}

#[tokio::test]
async fn rfc9112_9_3_2_two_requests_in_one_write_are_answered_in_order() {
    let world = World::start([[numbered(1), numbered(2)].concat()]).await;
    let mut client = world.send(get("/1") + &get("/2")).await;
    for number in ["1", "2"] {
        assert_eq!(client.reply().await.text(), number);
    }
    assert_eq!(world.origin.connections(), 1);
}

#[tokio::test]
async fn rfc9112_9_3_2_a_slow_first_answer_is_still_the_first() {
    let gate = Gate::new();
    let slow = [
        vec![Step::ReadHead, Step::Hold(gate.clone())],
        vec![Step::send(OK)],
        numbered(2),
    ];
    let world = World::start([slow.concat(), numbered(2)]).await;
    let mut client = world.send(get("/1") + &get("/2")).await;
    world.received(0, "/1").await;
    assert!(!world.all_received().contains("/2"), "one after the other");
    gate.open();
    assert_eq!(client.reply().await.text(), "ok");
    assert_eq!(client.reply().await.text(), "2");
}

#[tokio::test]
async fn rfc9112_9_3_2_a_body_is_followed_by_the_next_request() {
    let script = vec![
        Step::ReadHead,
        Step::ReadBody(5),
        Step::send(OK),
        Step::ReadHead,
        Step::ReadUntil("0\r\n\r\n".into()),
        Step::send(OK),
        Step::ReadHead,
        Step::send(OK),
    ];
    let world = World::start([script]).await;
    let first = head("POST /1 HTTP/1.1", "Content-Length: 5\r\n") + "hello";
    let second =
        head("POST /2 HTTP/1.1", "Transfer-Encoding: chunked\r\n") + "2\r\nhi\r\n0\r\n\r\n";
    let mut client = world.send([first, second, get("/3")].concat()).await;
    for _ in 0..3 {
        assert_eq!(client.reply().await.status, 200);
    }
    assert!(world.all_received().contains("GET /3 HTTP/1.1\r\n"));
}

/// A body that looks like requests is a body.
#[tokio::test]
async fn rfc9112_6_2_a_body_that_is_a_request_is_a_body() {
    let inner = get("/inner");
    let script = vec![Step::ReadHead, Step::ReadBody(inner.len()), Step::send(OK)];
    let world = World::start([[script, answer(OK)].concat()]).await;
    let request = head(
        "POST /outer HTTP/1.1",
        &format!("Content-Length: {}\r\n", inner.len()),
    );
    let mut client = world
        .send([request, inner.clone(), get("/after")].concat())
        .await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 200);
    // Byte for byte, and so with the Host of the client.
    assert!(world.all_received().contains(&inner));
}

#[tokio::test]
async fn rfc9112_9_3_connections_last() {
    let world = World::start([ok()]).await;
    let mut client = world.client().await;
    for _ in 0..5 {
        client.send(get("/")).await;
        let reply = client.reply().await;
        assert!(reply.status == 200 && !reply.closes(), "{}", reply.head);
    }
    assert_eq!(world.origin.connections(), 1);
}

#[tokio::test]
async fn rfc9112_9_6_requests_after_close_are_ignored() {
    let world = World::start([ok()]).await;
    let last = head("GET /last HTTP/1.1", "Connection: close\r\n");
    let mut client = world.send(last + &get("/smuggled")).await;
    assert!(client.reply().await.closes());
    client.ends().await;
    assert!(!world.all_received().contains("/smuggled"));
}

#[tokio::test]
async fn rfc9112_9_6_close_in_any_connection_line_counts() {
    let world = World::start([ok()]).await;
    let fields = "Connection: close\r\nConnection: keep-alive\r\n";
    let mut client = world
        .send(head("GET / HTTP/1.1", fields) + &get("/smuggled"))
        .await;
    assert!(client.reply().await.closes());
    client.ends().await;
    assert!(!world.all_received().contains("/smuggled"));
}

#[tokio::test]
async fn rfc9112_9_3_http10_is_closed_after_its_answer() {
    let world = World::start([ok()]).await;
    let mut client = world
        .send(head("GET / HTTP/1.0", "") + &get("/smuggled"))
        .await;
    let reply = client.reply().await;
    assert!(reply.head.starts_with("HTTP/1.0 200"), "{}", reply.head);
    client.ends().await;
    let received = world.all_received();
    assert!(received.starts_with("GET / HTTP/1.1\r\n"), "{received}");
    assert!(!received.contains("/smuggled"));
}

#[tokio::test]
async fn rfc9112_9_3_http10_may_ask_to_keep_its_connection() {
    let world = World::start([ok()]).await;
    let request = head("GET / HTTP/1.0", "Connection: keep-alive\r\n");
    let mut client = world.send(&request).await;
    let reply = client.reply().await;
    assert_eq!(reply.values("connection"), ["keep-alive"], "{}", reply.head);
    client.send(&request).await;
    assert_eq!(client.reply().await.status, 200);
}

/// HTTP/1.0 has no chunks: such a client gets the plain bytes, ended by the connection's end.
#[tokio::test]
async fn rfc9112_7_http10_gets_no_chunks() {
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let world = World::start([answer(chunks)]).await;
    let request = head("GET / HTTP/1.0", "Connection: keep-alive\r\n");
    let reply = world.ask(request).await;
    assert!(
        reply.values("transfer-encoding").is_empty(),
        "{}",
        reply.head
    );
    assert_eq!(reply.text(), "hello");
}

#[tokio::test]
async fn pingora_2026_0035_http10_with_a_body_is_no_tunnel() {
    let world = World::start([ok()]).await;
    // Without a length there is no body, and the bytes after the head are dropped.
    let mut client = world
        .send(head("POST / HTTP/1.0", "") + &get("/smuggled"))
        .await;
    assert_eq!(client.reply().await.status, 200);
    client.ends().await;
    assert!(!world.all_received().contains("/smuggled"));
}

/// Upstream's version is ours, not the client's (RFC 9110 §6.2), whatever the upstream speaks.
#[tokio::test]
async fn rfc9112_2_3_a_response_of_http10_is_relayed_in_ours() {
    let script = vec![
        Step::ReadHead,
        Step::send("HTTP/1.0 200 OK\r\n\r\nhello"),
        Step::Close,
    ];
    let world = World::start([script]).await;
    let reply = world.ask(get("/")).await;
    assert!(reply.head.starts_with("HTTP/1.1 200"), "{}", reply.head);
    assert_eq!(reply.text(), "hello");
}

#[tokio::test]
async fn rfc9112_9_5_client_that_closes_between_requests_is_no_error() {
    let world = World::start([ok()]).await;
    let mut client = world.send(get("/")).await;
    assert_eq!(client.reply().await.status, 200);
    client.stream.shutdown().await.unwrap();
    client.ends().await;
    assert_eq!(world.ask(get("/")).await.status, 200);
    assert_eq!(world.origin.connections(), 1);
}

#[tokio::test]
async fn rfc9112_8_a_head_that_ends_early_is_no_request() {
    let world = World::start([ok()]).await;
    let mut client = world
        .send("GET / HTTP/1.1\r\nHost: shop.example.com\r\n")
        .await;
    client.stream.shutdown().await.unwrap();
    let answers = String::from_utf8_lossy(&client.rest().await).into_owned();
    assert!(
        answers.is_empty() || answers.starts_with("HTTP/1.1 400"),
        "{answers}"
    );
    world.nothing_has_reached_the_origin().await;
}

/// pingora: the connection was used again before the body was read.
#[tokio::test]
async fn rfc9112_6_connection_of_an_unread_response_is_not_reused() {
    let gate = Gate::new();
    let slow = vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
        Step::Hold(gate.clone()),
        Step::send("world"),
    ];
    let world = World::start([slow, ok()]).await;
    let mut client = world.send(get("/1")).await;
    client.until(b"hello").await;
    drop(client);
    soon(world.origin.wait_for_connections(1)).await;
    assert_eq!(world.ask(get("/2")).await.text(), "ok");
    assert_eq!(world.origin.connections(), 2);
    gate.open();
    soon(world.origin.wait_for_closed(0)).await;
}

/// A client that is still sending gets the complete response, though the next one is truncated.
#[tokio::test]
async fn rfc9112_9_6_truncated_response_does_not_affect_the_previous_one() {
    let body = "a".repeat(60_000);
    let whole = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf";
    let script = [
        answer(&whole),
        answer(half),
        vec![Step::CloseWrite, Step::ReadToEnd],
    ]
    .concat();
    let world = World::start([script]).await;
    // A small receive buffer, so that most bytes wait at the gateway.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(world.gateway.addr).await.unwrap();
    let stream = stream.into_std().unwrap();
    let mut uploading = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
    let mut client = Client::new(TcpStream::from_std(stream).unwrap());
    let requests = get("/whole") + &head("POST /half HTTP/1.1", "Content-Length: 40000000\r\n");
    client.send(requests).await;
    let upload = tokio::spawn(async move { uploading.write_all(&vec![b'u'; 40_000_000]).await });
    // By then the response has been cut off.
    soon(world.origin.wait_for_closed(0)).await;
    let reply = client.reply().await;
    assert_eq!(reply.body.len(), body.len());
    let (status, _) = client.head().await;
    assert_eq!(status, 200);
    assert_eq!(client.rest().await, b"half");
    upload.abort();
}

/// A response that comes before the end of its request says whether the connection can go on.
#[tokio::test]
async fn rfc9112_9_6_response_to_a_partial_request_has_connection_close() {
    let world = World::start([ok()]).await;
    let post = "POST / HTTP/1.1\r\nHost: unknown.example.com\r\nContent-Length: 5\r\n\r\n";
    for (body, closes) in [("", true), ("hell", true), ("hello", false)] {
        let mut client = world.send(format!("{post}{body}")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.closes()), (404, closes), "{body:?}");
        if closes {
            assert_eq!(client.rest().await, b"");
        } else {
            client.send(get("/next")).await;
            assert_eq!(client.reply().await.text(), "ok");
        }
    }
}

/// A task whose coop budget is used up must not take `Pending` for an empty socket. The number of
/// requests that use it up depends on the runtime, and is in this range.
#[tokio::test]
async fn rfc9112_9_6_last_response_of_a_connection_arrives() {
    let world = World::start([]).await;
    let get = "GET / HTTP/1.1\r\nHost: unknown.example.com\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: unknown.example.com\r\nConnection: close\r\n\r\n";
    for before in 118..=133 {
        let requests = get.repeat(before) + last + &"scrap ".repeat(10_000);
        let mut client = world.send(requests).await;
        let answers = String::from_utf8_lossy(&client.rest().await).into_owned();
        let whole = answers.matches("404 Not Found (destination_not_found)\n");
        assert_eq!(whole.count(), before + 1);
    }
}

#[tokio::test]
async fn rfc9112_9_3_complete_request_keeps_the_connection() {
    let world = World::start([]).await;
    let head = |line: &str| format!("{line} / HTTP/1.1\r\nHost: unknown.example.com\r\n");
    let post = head("POST") + "Content-Length: 30000\r\n\r\n" + &"x".repeat(30_000);
    let last = head("GET") + "Connection: close\r\n\r\n";
    for before in 118..=133 {
        let requests = (head("GET") + "\r\n").repeat(before) + &post + &last;
        let mut client = world.send(requests).await;
        let answers = String::from_utf8_lossy(&client.rest().await).into_owned();
        assert_eq!(answers.matches("HTTP/1.1 404 ").count(), before + 2);
    }
}

/// A client refused within a head may still be sending: a reset would overtake the response.
#[tokio::test]
async fn rfc9112_9_6_client_refused_within_a_head_is_not_reset() {
    let world = World::start([ok()]).await;
    let many = head("GET / HTTP/1.1", &"X-Another: field\r\n".repeat(150));
    let large = head("GET / HTTP/1.1", "X: ") + &"x".repeat(70_000);
    let refused = head("GET / HTTP/1.1", "X : not a name\r\n");
    for (bytes, status) in [(many, 431), (large, 431), (refused, 400)] {
        let mut client = world.send(bytes.trim_end()).await;
        assert_eq!(client.reply().await.status, status);
        for _ in 0..10 {
            client.send("X-More: of it\r\n").await;
        }
        client.stream.shutdown().await.unwrap();
        client.ends().await;
    }
}
