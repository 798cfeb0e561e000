//! HTTP/2 clients that read slowly, and connections that end: no response is lost.

use mesh_ingress_testkit::{Gate, Step};
use tokio::net::TcpSocket;

use crate::frames::{
    ACK, DATA, END_STREAM, FrameClient, GET, GOAWAY, HEADERS, Outcome, PING, POST, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame, headers, literal,
};
use crate::reply::Client;
use crate::world::{OK, World, ok};

/// A client with a small receive buffer.
async fn slow_client(world: &World) -> FrameClient {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let mut client = Client::new(socket.connect(world.gateway.addr).await.unwrap());
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.send(frame(SETTINGS, 0, 0, [])).await;
    FrameClient { client }
}

/// During drain the gateway sends each response to its last byte, and waits until it is read:
/// the windows that a client opens meanwhile must not reset the connection.
#[tokio::test]
async fn rfc9113_6_8_slow_reader_gets_the_whole_response_during_drain() {
    const BODY_LEN: usize = 300_000;
    let gate = Gate::new();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_LEN}\r\n\r\n");
    let answer = [head.into_bytes(), vec![b'x'; BODY_LEN]].concat();
    let origin = vec![Step::ReadHead, Step::Hold(gate.clone()), Step::send(answer)];
    let mut world = World::start([origin]).await;
    let mut client = slow_client(&world).await;
    client.send(headers(1, END_STREAM, GET)).await;
    world.received(0, "\r\n\r\n").await;
    world.gateway.terminate();
    let (mut got, mut ended) = (0, false);
    while let Some(frame_) = client.next().await {
        match (frame_.kind, frame_.flags) {
            (PING, 0) => {
                client.send(frame(PING, ACK, 0, &frame_.payload)).await;
                gate.open();
            }
            (DATA, flags) => {
                got += frame_.payload.len();
                ended = flags & END_STREAM != 0;
                let more = u32::try_from(frame_.payload.len()).unwrap();
                for stream in [1, 0].into_iter().filter(|_| more > 0) {
                    let window = frame(WINDOW_UPDATE, 0, stream, more.to_be_bytes());
                    client.send(window).await;
                }
            }
            (RST_STREAM, _) => panic!("reset after {got}"),
            _ => {}
        }
    }
    assert_eq!((got, ended), (BODY_LEN, true));
    drop(client);
    assert_eq!(world.gateway.exit_code().await, Some(0));
}

/// A GOAWAY after a refused stream must not name it as processed.
#[tokio::test]
async fn rfc9113_6_8_last_stream_of_goaway_does_not_increase() {
    let gate = Gate::new();
    let origin = vec![Step::ReadHead, Step::Hold(gate.clone()), Step::send(OK)];
    let world = World::start([origin]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(headers(1, END_STREAM, GET)).await;
    world.received(0, "\r\n\r\n").await;
    world.gateway.terminate();
    let mut last = Vec::new();
    while let Some(frame_) = client.next().await {
        match frame_.kind {
            PING => client.send(frame(PING, ACK, 0, &frame_.payload)).await,
            GOAWAY => {
                last.push(u32::from_be_bytes(frame_.payload[..4].try_into().unwrap()));
                if last.len() == 2 {
                    client.send(headers(9, END_STREAM, GET)).await;
                    assert_eq!(client.outcome(9).await, Outcome::Reset(7), "refused");
                    // DATA on stream 0 is an error of the connection.
                    client.send(frame(DATA, 0, 0, "evil")).await;
                }
            }
            _ => {}
        }
    }
    assert_eq!(last, [0x7fff_ffff, 1, 1]);
    gate.open();
}

/// The window bounds how much of a client's uploads the gateway holds: it does not hold the rest of
/// the read buffers that the bytes came in.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn rfc9113_10_5_a_window_bounds_the_memory_of_uploads() {
    let gate = Gate::new();
    let origin = vec![Step::ReadHead, Step::Hold(gate.clone()), Step::send(OK)];
    let world = World::start([origin]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(headers(1, 0, POST)).await;
    world.received(0, "\r\n\r\n").await;
    let before = world.gateway.resident_kib();
    // One byte each, and as much padding as a frame may carry.
    let unknown = frame(0xbb, 0, 0, [0; 16_384]);
    let piece = [frame(DATA, 0, 1, "x"), unknown].concat();
    let padded = frame(DATA, 0x8, 1, [&[255][..], b"x", &[0; 255]].concat());
    for _ in 0..60 {
        // 16 MB, and 90 bytes.
        client.send(piece.repeat(90)).await;
        client.send(padded.repeat(10)).await;
    }
    client.send(frame(PING, 0, 0, [1; 8])).await;
    while client.next().await.expect("an answer").kind != PING {}
    let grown = world.gateway.resident_kib().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB for 6,000 bytes");
    gate.open();
}

/// Requests that are answered are no flood, whatever frames they consist of.
#[tokio::test]
async fn rfc9113_10_5_empty_frames_of_good_requests_are_no_flood() {
    let scripts = std::iter::repeat_with(|| [ok(), ok(), ok()].concat()).take(60);
    let world = World::start(scripts).await;
    let mut client = FrameClient::connect(&world).await;
    let trailers = literal(0, "x-sum", "1");
    for number in 0..1_100 {
        let stream = 2 * number + 1;
        let request = [
            headers(stream, 0, POST),
            frame(DATA, 0, stream, ""),
            frame(HEADERS, 0x4 | END_STREAM, stream, &trailers),
        ];
        client.send(request.concat()).await;
        assert_eq!(
            client.outcome(stream).await,
            Outcome::Status(200),
            "{number}"
        );
    }
}
