//! Bodies large enough to be spliced: each byte arrives, in order, and no
//! truncated body is taken for complete.

use mesh_ingress_testkit::{Gate, Step};

use crate::reply::{Client, soon};
use crate::world::{OK, World, answer, get, head};

/// Bytes of which no two neighbouring pieces are alike.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    });
    next.flatten().take(length).collect()
}

fn said(length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into()
}

/// Reads a response in pieces, and compares it with the expected body.
async fn is(client: &mut Client, body: &[u8], piece: usize) {
    let (status, head) = client.head().await;
    assert_eq!(status, 200, "{head}");
    for (at, expected) in body.chunks(piece).enumerate() {
        let got = client.exactly(expected.len()).await;
        assert!(got == expected, "bytes {}…", at * piece);
        // Lets origin and gateway run.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_large_body_arrives_and_both_connections_are_used_again() {
    for length in [32 * 1024, 64 * 1024 + 1, 1_000_003, 9_000_001] {
        let body = bytes(length);
        let large = [said(length), body.clone()].concat();
        let script = [answer(large.clone()), answer(OK), answer(large), answer(OK)];
        let world = World::start([script.concat()]).await;
        let mut client = world.client().await;
        for piece in [length, 10_007] {
            client.send(get("/large")).await;
            is(&mut client, &body, piece).await;
            client.send(get("/small")).await;
            assert_eq!(client.reply().await.text(), "ok");
        }
        assert_eq!(world.origin.connections(), 1, "{length}");
    }
}

#[tokio::test]
async fn waiting_client_gets_the_whole_response() {
    let body = bytes(20_000_000);
    let large = [said(body.len()), body.clone()].concat();
    let world = World::start([answer(large), answer(OK)]).await;
    let mut slow = world.send(get("/large")).await;
    let (status, _) = slow.head().await;
    assert_eq!(status, 200);
    // While it does not read, the same thread serves others.
    assert_eq!(world.ask(get("/small")).await.text(), "ok");
    let got = slow.exactly(body.len()).await;
    assert!(got == body);
}

#[tokio::test]
async fn a_large_body_may_come_in_pieces_of_any_size() {
    let body = bytes(400_000);
    let cuts = [0, 1, 40_000, 40_001, 110_000, 350_000, 399_999, 400_000];
    let mut script = vec![Step::ReadHead, Step::send(said(body.len()))];
    let mut gates = Vec::new();
    for cut in cuts.windows(2) {
        let gate = Gate::new();
        script.push(Step::Hold(gate.clone()));
        script.push(Step::send(body[cut[0]..cut[1]].to_vec()));
        gates.push((gate, cut[1] - cut[0]));
    }
    let world = World::start([script]).await;
    let mut client = world.send(get("/large")).await;
    let (status, _) = client.head().await;
    assert_eq!(status, 200);
    let mut got = Vec::new();
    for (gate, length) in gates {
        gate.open();
        // Each piece arrives without waiting for the next.
        got.extend(client.exactly(length).await);
    }
    assert!(got == body);
}

#[tokio::test]
async fn rfc9112_8_a_large_body_that_breaks_off_looks_broken_off() {
    for sent in [100_000, 999_999] {
        let body = bytes(sent);
        let mut script = answer([said(1_000_000), body.clone()].concat());
        script.push(Step::CloseWrite);
        let world = World::start([script]).await;
        let mut client = world.send(get("/large")).await;
        let (status, head) = client.head().await;
        assert_eq!(status, 200);
        assert!(head.to_lowercase().contains("content-length: 1000000\r\n"));
        let got = client.rest().await;
        assert!(got == body, "{} of {sent}", got.len());
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_large_body_ends_it_upstream() {
    let mut script = answer([said(100_000_000), bytes(1_000_000)].concat());
    script.push(Step::ReadToEnd);
    let world = World::start([script]).await;
    let mut client = world.send(get("/large")).await;
    client.exactly(500_000).await;
    drop(client);
    soon(world.origin.wait_for_closed(0)).await;
}

/// A long rest of a body is spliced and a short one copied: both end when the origin stops.
#[tokio::test]
async fn an_origin_that_stops_in_a_body_is_given_up() {
    for (length, sent) in [(1_000_000, 500_000), (1_000_000, 999_999), (2000, 2)] {
        let mut script = answer([said(length), bytes(sent)].concat());
        script.push(Step::Hold(Gate::new()));
        let world = World::with([script], &["--response-body-timeout", "200ms"]).await;
        let mut client = world.send(get("/large")).await;
        let (status, _) = client.head().await;
        assert_eq!(status, 200);
        assert_eq!(client.rest().await.len(), sent);
    }
}

/// A body without length, and a response to `HEAD`, are not spliced.
#[tokio::test]
async fn large_bodies_without_a_length_arrive_as_well() {
    let body = bytes(1_000_000);
    let chunk = [
        format!("{:x}\r\n", body.len()).as_bytes(),
        &body,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let script = [
        answer([chunked.as_bytes(), &chunk].concat()),
        answer(said(body.len())),
        answer(OK),
    ];
    let world = World::start([script.concat()]).await;
    let mut client = world.send(get("/chunked")).await;
    assert!(client.reply().await.body == body);
    client.send(head("HEAD /large HTTP/1.1", "")).await;
    let reply = client.reply_to("HEAD").await;
    assert_eq!(reply.values("content-length"), ["1000000"]);
    client.send(get("/small")).await;
    assert_eq!(client.reply().await.text(), "ok");
}

/// A large response does not stop the request from being sent to its end.
#[tokio::test]
async fn a_large_answer_begins_while_the_request_goes_on() {
    let (up, down) = (bytes(300_000), bytes(1_000_000));
    let gate = Gate::new();
    let script = vec![
        Step::ReadHead,
        Step::send([said(down.len()), down[..500_000].to_vec()].concat()),
        Step::ReadBody(up.len()),
        Step::send(down[500_000..].to_vec()),
        Step::Hold(gate.clone()),
    ];
    let world = World::start([script]).await;
    let fields = format!("Content-Length: {}\r\n", up.len());
    let mut client = world.send(head("POST / HTTP/1.1", &fields)).await;
    client.send(&up[..100_000]).await;
    let (status, _) = client.head().await;
    assert_eq!(status, 200);
    assert!(client.exactly(500_000).await == down[..500_000]);
    client.send(&up[100_000..]).await;
    assert!(client.exactly(500_000).await == down[500_000..]);
    assert!(world.origin.received(0).ends_with(&up));
}

/// In chunks of this size.
fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let chunk = |data: &[u8]| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
    let mut coded: Vec<u8> = body.chunks(size).flat_map(chunk).collect();
    coded.extend_from_slice(b"0\r\n\r\n");
    coded
}

/// More than the socket buffers hold: bytes that the client has not taken yet must not be lost, nor
/// the response after them.
#[tokio::test]
async fn response_waits_for_a_slow_client() {
    let body = bytes(16_000_000);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for size in [100, 300, 10_000, 16_000_000] {
        let script = [
            answer([head.as_bytes(), &chunks(&body, size)].concat()),
            answer(OK),
        ];
        let world = World::start([script.concat()]).await;
        let mut slow = world.send(get("/large") + &get("/next")).await;
        let (status, _) = slow.head().await;
        assert_eq!(status, 200);
        // The gateway has one thread, and has filled the sockets when it has answered this.
        for _ in 0..3 {
            assert_eq!(world.ask("GET / HTTP/1.1\r\n\r\n").await.status, 400);
        }
        let mut got = Vec::with_capacity(body.len());
        loop {
            let line = slow.until(b"\r\n").await;
            let length = std::str::from_utf8(&line).unwrap().trim_end();
            let length = usize::from_str_radix(length, 16).unwrap();
            got.extend(slow.exactly(length).await);
            assert_eq!(slow.exactly(2).await, b"\r\n", "at {} of {size}", got.len());
            if length == 0 {
                break;
            }
        }
        assert!(got == body, "{size}");
        assert_eq!(slow.reply().await.text(), "ok");
    }
}

/// The same for a body that the end of the connection delimits.
#[tokio::test]
async fn response_waits_for_a_slow_http10_client() {
    let body = bytes(16_000_000);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let script = answer([head.as_bytes(), &chunks(&body, 5_000)].concat());
    let world = World::start([script]).await;
    let get = get("/large").replace("HTTP/1.1", "HTTP/1.0");
    let mut slow = world.send(get).await;
    let (status, _) = slow.head().await;
    assert_eq!(status, 200);
    for _ in 0..3 {
        assert_eq!(world.ask("GET / HTTP/1.1\r\n\r\n").await.status, 400);
    }
    assert!(slow.rest().await == body);
}

/// A response is copied, not spliced, while its request is incomplete.
#[tokio::test]
async fn response_waits_for_a_slow_client_while_its_request_goes_on() {
    let down = bytes(16_000_000);
    let script = vec![
        Step::ReadHead,
        Step::send([said(down.len()), down.clone()].concat()),
        Step::ReadBody(5),
    ];
    let world = World::start([[script, answer(OK)].concat()]).await;
    let mut slow = world
        .send(head("POST / HTTP/1.1", "Content-Length: 5\r\n") + "he")
        .await;
    let (status, _) = slow.head().await;
    assert_eq!(status, 200);
    for _ in 0..3 {
        assert_eq!(world.ask("GET / HTTP/1.1\r\n\r\n").await.status, 400);
    }
    assert!(slow.exactly(8_000_000).await == down[..8_000_000]);
    slow.send("llo").await;
    assert!(slow.exactly(8_000_000).await == down[8_000_000..]);
    slow.send(get("/next")).await;
    assert_eq!(slow.reply().await.text(), "ok");
}
