//! The life of an HTTP/2 stream (RFC 9113 §5.1, §8.1): interim answers, early answers, frames after
//! the end, GOAWAY, frames that come in pieces.

use mesh_ingress_testkit::{Gate, Step};

use crate::frames::{
    ACK, CANCEL, DATA, END_STREAM, FrameClient, GET, GOAWAY, HEADERS, NO_ERROR, Outcome, PING,
    POST, RST_STREAM, SETTINGS, WINDOW_UPDATE, field_section, frame, headers, rst_stream, status,
    with,
};
use crate::world::{OK, World, ok};

#[tokio::test]
async fn rfc9110_10_1_1_a_client_of_http2_is_told_to_go_ahead() {
    let body = Step::ReadUntil("5\r\nhello\r\n0\r\n\r\n".into());
    let go = Step::send("HTTP/1.1 100 Continue\r\n\r\n");
    let world = World::start([vec![Step::ReadHead, go, body, Step::send(OK)]]).await;
    let mut client = FrameClient::connect(&world).await;
    client
        .send(headers(1, 0, &with(POST, &[("expect", "100-continue")])))
        .await;
    let interim = loop {
        let frame = client.next().await.unwrap();
        if frame.stream == 1 {
            break frame;
        }
    };
    assert_eq!((interim.kind, interim.flags & END_STREAM), (HEADERS, 0));
    assert_eq!(status(&interim.payload), 100);
    client.send(frame(DATA, END_STREAM, 1, "hello")).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
}

/// The client need not send the rest: the stream is reset with NO_ERROR.
#[tokio::test]
async fn rfc9113_8_1_an_answered_upload_is_given_up_without_an_error() {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let unknown = [&POST[..2], &[(":authority", "evil.example"), POST[3]]].concat();
    client.send(headers(1, 0, &unknown)).await;
    client.send(frame(DATA, 0, 1, "hello")).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(404));
    assert_eq!(client.outcome(1).await, Outcome::Reset(NO_ERROR));
    // Frames that are still under way are ignored, trailers as well.
    client.send(frame(DATA, 0, 1, "hello")).await;
    client
        .send(headers(1, END_STREAM, &[("x-checksum", "1")]))
        .await;
    assert_eq!(client.ask(3, &unknown).await, Outcome::Status(404));
}

#[tokio::test]
async fn rfc9113_5_1_frame_after_end_stream_resets_the_stream() {
    const STREAM_CLOSED: u32 = 5;
    let gate = Gate::new();
    let script = vec![Step::ReadHead, Step::Hold(gate.clone())];
    let world = World::start([script.clone(), script]).await;
    let mut client = FrameClient::connect(&world).await;
    for (stream, more) in [
        (1, frame(DATA, 0, 1, "more")),
        (3, headers(3, END_STREAM, &[("x", "1")])),
    ] {
        client.send(headers(stream, END_STREAM, GET)).await;
        client.send(more).await;
        assert_eq!(client.outcome(stream).await, Outcome::Reset(STREAM_CLOSED));
    }
    gate.open();
}

/// Two GOAWAYs, so that no request under way is lost (RFC 9113 §6.8).
#[tokio::test]
async fn rfc9113_6_8_goaway_precedes_the_end_of_a_connection() {
    let gate = Gate::new();
    let script = vec![Step::ReadHead, Step::Hold(gate.clone()), Step::send(OK)];
    let world = World::start([script.clone(), script]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(headers(1, END_STREAM, GET)).await;
    world.received(0, "\r\n\r\n").await;
    world.gateway.terminate();
    let goaway = loop {
        let frame = client.next().await.unwrap();
        if frame.kind == GOAWAY {
            break frame;
        }
    };
    assert_eq!(goaway.payload[..4], [0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(goaway.payload[4..8], NO_ERROR.to_be_bytes());
    let ping = client.next().await.unwrap();
    assert_eq!((ping.kind, ping.flags), (PING, 0));
    // This request was under way.
    client.send(headers(3, END_STREAM, GET)).await;
    client.send(frame(PING, ACK, 0, ping.payload)).await;
    let goaway = client.next().await.unwrap();
    assert_eq!(
        (goaway.kind, &goaway.payload[..4]),
        (GOAWAY, &[0, 0, 0, 3][..])
    );
    client.send(headers(5, END_STREAM, GET)).await;
    assert_eq!(client.outcome(5).await, Outcome::Reset(7), "refused");
    gate.open();
    let mut answered = Vec::new();
    while let Some(frame) = client.next().await {
        if frame.kind == HEADERS {
            assert_eq!(status(&frame.payload), 200);
            answered.push(frame.stream);
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
}

/// A path that RFC 3986 does not allow is a 400, as over HTTP/1.1.
#[tokio::test]
async fn rfc9110_15_5_1_an_odd_path_over_http2_is_400() {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    for (stream, path) in [(1, "/<"), (3, "/a#b"), (5, "/`")] {
        let fields = [&GET[..3], &[(":path", path)]].concat();
        assert_eq!(
            client.ask(stream, &fields).await,
            Outcome::Status(400),
            "{path}"
        );
    }
    world.nothing_has_reached_the_origin().await;
}

/// Byte by byte, as a slow network may deliver them.
#[tokio::test]
async fn rfc9113_4_1_frames_may_come_in_any_pieces() {
    let body = Step::ReadUntil("lo\r\n0\r\n\r\n".into());
    let world = World::start([vec![Step::ReadHead, body, Step::send(OK)]]).await;
    let mut client = FrameClient::connect(&world).await;
    client.client.stream.set_nodelay(true).unwrap();
    let fields = field_section(POST);
    let bytes = [
        frame(SETTINGS, 0, 0, []),
        frame(HEADERS, 0, 1, &fields[..9]),
        frame(9, 4, 1, &fields[9..]),
        frame(PING, 0, 0, [0; 8]),
        frame(DATA, 0x8, 1, b"\x03hel\0\0\0"),
        frame(DATA, END_STREAM, 1, "lo"),
    ];
    for byte in bytes.concat() {
        client.send([byte]).await;
    }
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
}

/// A late reset or window update is ignored.
#[tokio::test]
async fn rfc9113_5_1_frame_for_a_closed_stream_is_ignored() {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    assert_eq!(client.ask(1, GET).await, Outcome::Status(200));
    client.send(rst_stream(1, CANCEL)).await;
    client
        .send(frame(WINDOW_UPDATE, 0, 1, 1_000_u32.to_be_bytes()))
        .await;
    client.send(frame(RST_STREAM, 0, 1, [0; 4])).await;
    assert_eq!(client.ask(3, GET).await, Outcome::Status(200));
}
