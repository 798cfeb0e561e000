//! HTTP/2 flow control both ways (RFC 9113 §5.2, §6.9).

use mesh_ingress_testkit::{Gate, Step};

use crate::frames::{
    ACK, CANCEL, DATA, END_STREAM, FrameClient, GET, HEADERS, Outcome, PING, POST, SETTINGS,
    WINDOW_UPDATE, frame, headers, rst_stream, status,
};
use crate::world::{OK, World, answer, ok};

const INITIAL_WINDOW_SIZE: u8 = 4;

fn initial_window(bytes: u32) -> Vec<u8> {
    let setting = [&[0, INITIAL_WINDOW_SIZE][..], &bytes.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, setting)
}

fn window(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, bytes.to_be_bytes())
}

/// A response whose bytes tell their positions.
fn numbered(bytes: usize) -> (String, Vec<u8>) {
    let body: Vec<u8> = (0..bytes).map(|place| b'a' + (place % 23) as u8).collect();
    let text = String::from_utf8(body.clone()).unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
    (head + &text, body)
}

impl FrameClient {
    /// This many bytes of a stream's body, and whether they are its last.
    async fn body(&mut self, stream: u32, bytes: usize) -> (Vec<u8>, bool) {
        let (mut body, mut ended) = (Vec::new(), false);
        while body.len() < bytes && !ended {
            let frame = self.next().await.expect("a frame");
            if frame.kind == DATA && frame.stream == stream {
                body.extend_from_slice(&frame.payload);
                ended = frame.flags & END_STREAM != 0;
            }
        }
        assert!(body.len() <= bytes, "{} of {bytes}", body.len());
        (body, ended)
    }

    /// Checks with a PING that no frame of a stream comes.
    async fn nothing_of(&mut self, stream: u32) {
        self.send(frame(PING, 0, 0, b"nothing?")).await;
        loop {
            let frame = self.next().await.expect("a frame");
            assert!(frame.stream != stream, "frame {} came", frame.kind);
            if frame.kind == PING && frame.flags & ACK != 0 {
                return;
            }
        }
    }
}

#[tokio::test]
async fn rfc9113_6_9_a_response_waits_for_its_window() {
    let (response, body) = numbered(10_000);
    let world = World::start([answer(response)]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(initial_window(1_000)).await;
    client.send(headers(1, END_STREAM, GET)).await;
    let mut got = client.body(1, 1_000).await.0;
    client.nothing_of(1).await;
    client.send(window(1, 1)).await;
    got.extend(client.body(1, 1).await.0);
    client.nothing_of(1).await;
    client.send(window(1, 20_000)).await;
    let (rest, ended) = client.body(1, 8_999).await;
    got.extend(rest);
    assert!(ended);
    assert_eq!(got, body);
}

/// A window in use may become negative.
#[tokio::test]
async fn rfc9113_6_9_2_negative_window_is_refilled_before_data_is_sent() {
    let (response, body) = numbered(5_000);
    let world = World::start([answer(response)]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(initial_window(1_000)).await;
    client.send(headers(1, END_STREAM, GET)).await;
    let mut got = client.body(1, 1_000).await.0;
    client.send(initial_window(0)).await;
    client.send(window(1, 1_000)).await;
    client.nothing_of(1).await;
    client.send(initial_window(100)).await;
    got.extend(client.body(1, 100).await.0);
    client.nothing_of(1).await;
    client.send(initial_window(100_000)).await;
    let (rest, ended) = client.body(1, 3_900).await;
    got.extend(rest);
    assert!(ended);
    assert_eq!(got, body);
}

/// The window of the connection bounds all streams together.
#[tokio::test]
async fn rfc9113_6_9_1_a_connection_has_a_window() {
    let (response, body) = numbered(60_000);
    let world = World::start([[answer(&response), answer(&response)].concat()]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(headers(1, END_STREAM, GET)).await;
    assert_eq!(client.body(1, 60_000).await, (body.clone(), true));
    client.send(headers(3, END_STREAM, GET)).await;
    let mut got = client.body(3, 5_535).await.0;
    client.nothing_of(3).await;
    client.send(window(0, 100_000)).await;
    let (rest, ended) = client.body(3, 54_465).await;
    got.extend(rest);
    assert!(ended);
    assert_eq!(got, body);
}

/// Streams share the window of the connection in turn when it is too small for all.
#[tokio::test]
async fn rfc9113_5_2_1_no_stream_starves() {
    const STREAMS: [u32; 3] = [1, 3, 5];
    let (response, body) = numbered(200_000);
    let world = World::start(vec![answer(&response); 3]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(initial_window(1 << 20)).await;
    for stream in STREAMS {
        client.send(headers(stream, END_STREAM, GET)).await;
    }
    let mut bodies = [(); 3].map(|()| Vec::new());
    let mut left = 65_535;
    for round in 0..28 {
        while left > 0 && bodies.iter().any(|got| got.len() < body.len()) {
            let frame = client.next().await.expect("a frame");
            if frame.kind == DATA {
                left -= frame.payload.len();
                let at = STREAMS.iter().position(|stream| *stream == frame.stream);
                bodies[at.unwrap()].extend_from_slice(&frame.payload);
            }
        }
        if round == 10 {
            let least = bodies.iter().map(Vec::len).min().unwrap();
            assert!(least > 40_000, "{least}");
        }
        left += 20_000;
        client.send(window(0, 20_000)).await;
    }
    assert!(bodies.iter().all(|got| *got == body));
}

/// The window of bytes that were forwarded or discarded is returned: many times that of the connection.
async fn uploads(world: &World, fields: &[(&str, &str)], padding: u8, outcome: Outcome) {
    const PIECE: usize = 10_000;
    let mut client = FrameClient::connect(world).await;
    for number in 0..40 {
        let stream = 2 * number + 1;
        client.send(headers(stream, 0, fields)).await;
        let payload = match padding {
            0 => vec![b'x'; PIECE],
            padding => [&[padding][..], &[b'x'; PIECE], &vec![0; padding.into()]].concat(),
        };
        let flags = if padding > 0 { 0x8 } else { 0 };
        // A quarter of a stream's window, and all together three times that of the connection.
        let mut frames = frame(DATA, flags, stream, &payload).repeat(7);
        frames.extend(frame(DATA, flags | END_STREAM, stream, &payload));
        client.send(frames).await;
        assert_eq!(client.outcome(stream).await, outcome, "stream {stream}");
    }
}

fn takes_uploads() -> Vec<Vec<Step>> {
    let taken = || {
        let body = Step::ReadUntil("x\r\n0\r\n\r\n".into());
        [Step::ReadHead, body, Step::send(OK)]
    };
    let upload = std::iter::repeat_with(taken).take(40);
    vec![upload.flatten().collect()]
}

#[tokio::test]
async fn rfc9113_6_9_1_window_of_a_forwarded_upload_is_returned() {
    let world = World::start(takes_uploads()).await;
    uploads(&world, POST, 0, Outcome::Status(200)).await;
}

#[tokio::test]
async fn rfc9113_6_9_1_window_of_padding_is_returned() {
    let world = World::start(takes_uploads()).await;
    uploads(&world, POST, 255, Outcome::Status(200)).await;
}

#[tokio::test]
async fn rfc9113_6_9_1_window_of_a_discarded_upload_is_returned() {
    let unrouted = [&POST[..2], &[(":authority", "evil.example"), POST[3]]].concat();
    let world = World::start([ok()]).await;
    uploads(&world, &unrouted, 0, Outcome::Status(404)).await;
    uploads(&world, &unrouted, 200, Outcome::Status(404)).await;
}

/// Stalled uploads hold the window they have used, and no more.
#[tokio::test]
async fn rfc9113_5_2_1_stalled_uploads_leave_the_others_their_window() {
    let gate = Gate::new();
    let stalled = vec![Step::ReadHead, Step::Hold(gate.clone())];
    let mut scripts = vec![stalled; 3];
    scripts.extend(takes_uploads());
    let world = World::start(scripts).await;
    let mut client = FrameClient::connect(&world).await;
    for stream in [1, 3, 5] {
        client.send(headers(stream, 0, POST)).await;
        let connection = usize::try_from(stream / 2).unwrap();
        world.received(connection, "\r\n\r\n").await;
    }
    // As far as their windows go; the sockets behind them take some of it.
    let (mut connection, mut streams) = (1_048_576_i64, [262_144_i64; 3]);
    let mut number = 4;
    let mut shut = 0;
    while shut < 20 {
        shut += 1;
        for (at, stream) in [1, 3, 5].into_iter().enumerate() {
            let bytes = streams[at].min(connection).min(16_000);
            if bytes > 0 {
                shut = 0;
                let piece = vec![b'x'; usize::try_from(bytes).unwrap()];
                client.send(frame(DATA, 0, stream, piece)).await;
                streams[at] -= bytes;
                connection -= bytes;
            }
        }
        client.send(frame(PING, 0, 0, [0; 8])).await;
        loop {
            let frame = client.next().await.unwrap();
            if frame.kind == PING {
                break;
            }
            if frame.kind == WINDOW_UPDATE {
                let bytes = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                match frame.stream {
                    0 => connection += i64::from(bytes),
                    stream => streams[usize::try_from(stream / 2).unwrap()] += i64::from(bytes),
                }
            }
        }
    }
    // Others are served, again and again.
    while number < 14 {
        let stream = 2 * number + 1;
        client.send(headers(stream, 0, POST)).await;
        let mut left = 100_000_i64;
        while left > 0 {
            let bytes = left.min(connection).min(16_000);
            if bytes == 0 {
                let frame = client.next().await.expect("a window");
                if (frame.kind, frame.stream) == (WINDOW_UPDATE, 0) {
                    let bytes = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                    connection += i64::from(bytes);
                }
                continue;
            }
            left -= bytes;
            connection -= bytes;
            let ends = if left == 0 { END_STREAM } else { 0 };
            let piece = vec![b'x'; usize::try_from(bytes).unwrap()];
            client.send(frame(DATA, ends, stream, piece)).await;
        }
        loop {
            let frame = client.next().await.expect("an answer");
            if (frame.kind, frame.stream) == (WINDOW_UPDATE, 0) {
                let bytes = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                connection += i64::from(bytes);
            }
            if (frame.kind, frame.stream) == (HEADERS, stream) {
                assert_eq!(status(&frame.payload), 200);
                break;
            }
        }
        number += 1;
    }
    gate.open();
}

/// Early data of a tunnel that is refused.
#[tokio::test]
async fn rfc8441_5_window_of_a_refused_tunnel_is_returned() {
    let world = World::start(vec![vec![Step::ReadHead, Step::ReadToEnd]; 10]).await;
    let mut client = FrameClient::connect(&world).await;
    let connect = [(":method", "CONNECT"), (":protocol", "websocket")];
    let fields = [&connect[..], &GET[1..], &[("sec-websocket-version", "13")]].concat();
    for number in 0..10 {
        let stream = 2 * number + 1;
        client.send(headers(stream, 0, &fields)).await;
        world.received(number as usize, "\r\n\r\n").await;
        client
            .send(frame(DATA, 0, stream, [b'x'; 16_000]).repeat(12))
            .await;
        client.send(frame(DATA, END_STREAM, stream, "x")).await;
        client.send(rst_stream(stream, CANCEL)).await;
    }
    let unknown = [&GET[..2], &[(":authority", "evil.example"), GET[3]]].concat();
    assert_eq!(client.ask(41, &unknown).await, Outcome::Status(404));
}

/// One upload larger than its window, in small pieces.
#[tokio::test]
async fn rfc9113_6_9_1_a_long_upload_gets_windows_as_it_is_taken() {
    const BODY_LEN: usize = 5 << 18;
    let body = Step::ReadUntil("x\r\n0\r\n\r\n".into());
    let world = World::start([vec![Step::ReadHead, body, Step::send(OK)]]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(headers(1, 0, POST)).await;
    let (mut sent, mut stream, mut connection) = (0, 65_535_i64, 65_535_i64);
    while sent < BODY_LEN {
        let most = stream.min(connection).min(16_384);
        let length = usize::try_from(most).unwrap().min(BODY_LEN - sent);
        if length == 0 {
            let frame = client.next().await.expect("a window");
            let number = || i64::from(u32::from_be_bytes(frame.payload[..4].try_into().unwrap()));
            match (frame.kind, frame.stream) {
                (WINDOW_UPDATE, 0) => connection += number(),
                (WINDOW_UPDATE, 1) => stream += number(),
                (SETTINGS, _) => {
                    let settings = frame.payload.chunks(6);
                    for setting in settings.filter(|setting| setting[1] == INITIAL_WINDOW_SIZE) {
                        let bytes = u32::from_be_bytes(setting[2..].try_into().unwrap());
                        stream += i64::from(bytes) - 65_535;
                    }
                }
                _ => {}
            }
            continue;
        }
        sent += length;
        let ends = if sent == BODY_LEN { END_STREAM } else { 0 };
        client.send(frame(DATA, ends, 1, vec![b'x'; length])).await;
        stream -= length as i64;
        connection -= length as i64;
    }
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
}

/// Streams that end early return their window.
#[tokio::test]
async fn rfc9113_6_9_1_window_of_a_reset_upload_is_returned() {
    let world =
        World::start(std::iter::repeat_with(|| vec![Step::ReadHead, Step::ReadToEnd]).take(40))
            .await;
    let mut client = FrameClient::connect(&world).await;
    for number in 0..40 {
        let stream = 2 * number + 1;
        client.send(headers(stream, 0, POST)).await;
        client
            .send(frame(DATA, 0, stream, [b'x'; 16_000]).repeat(6))
            .await;
        client.send(rst_stream(stream, CANCEL)).await;
    }
    let unknown = [&GET[..2], &[(":authority", "evil.example"), GET[3]]].concat();
    assert_eq!(client.ask(81, &unknown).await, Outcome::Status(404));
}
