//! Time-outs of a connection, on paused time.

use super::*;

/// How late a client may be let go: 40 s, and as much again because the clock moves on while bytes are on
/// their way.
const LATE: Duration = Duration::from_secs(80);

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_then_disconnected() {
    let mut client = client(&settings(0)).await;
    let begin = Instant::now();
    for _ in 0..3 {
        let (head, bytes) = client.next_of(kind::PING).await;
        assert!(!head.has(flag::ACK));
        client.pong(&bytes).await;
    }
    assert!(
        begin.elapsed() < Duration::from_secs(130),
        "{:?}",
        begin.elapsed()
    );
    client.next_of(kind::PING).await;
    let asked = Instant::now();
    let (_, payload) = client.next_of(kind::GOAWAY).await;
    assert_eq!(payload[4..], [0; 4], "nothing is wrong with it");
    let waited = asked.elapsed();
    assert!(
        (Duration::from_secs(10)..Duration::from_secs(11)).contains(&waited),
        "{waited:?}"
    );
    assert!(client.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_window_stays_closed_is_reset_and_others_are_not() {
    let mut client = client(&[settings(0), get(1)].concat()).await;
    client.next_of(kind::HEADERS).await;
    let begin = Instant::now();
    loop {
        let (head, payload) = client.next().await.expect("a frame");
        match head.kind {
            kind::PING => {
                client.pong(&payload).await;
            }
            kind::RST_STREAM => {
                assert_eq!((head.stream, frame::number(&payload)), (1, Ok(8)));
                break;
            }
            kind => assert_ne!(kind, kind::DATA),
        }
    }
    let waited = begin.elapsed();
    assert!(
        (Duration::from_secs(300)..Duration::from_secs(341)).contains(&waited),
        "{waited:?}"
    );
    let open = [settings(1_000), get(3)].concat();
    client.stream.write_all(&open).await.unwrap();
    let (head, _) = client.next_of(kind::DATA).await;
    assert_eq!(head.stream, 3);
}

/// However slowly it goes on.
#[tokio::test(start_paused = true)]
async fn an_endless_field_section_is_cut_off() {
    let mut client = client(&[settings(0), headers(1, 0, GET)].concat()).await;
    let begin = Instant::now();
    let continuation = FrameHeader {
        length: 0,
        kind: kind::CONTINUATION,
        flags: 0,
        stream: 1,
    };
    while client
        .stream
        .write_all(&continuation.to_bytes())
        .await
        .is_ok()
    {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(begin.elapsed() < Duration::from_secs(130));
        if client.served.is_finished() {
            return;
        }
    }
}

/// It reads nothing, and its answers do not fit into the sockets.
#[tokio::test(start_paused = true)]
async fn a_stalled_reader_is_disconnected() {
    let mut client = client(&settings(frame::MAX_WINDOW)).await;
    let mut ping = Vec::new();
    frame::ping(&mut ping, [0; 8], false);
    let pings = ping.repeat(1_000);
    let begin = Instant::now();
    let writes = async { while client.stream.write_all(&pings).await.is_ok() {} };
    // Either the write time-out or the PING time-out.
    tokio::select! {
        () = writes => {}
        served = &mut client.served => assert!(served.is_ok()),
    }
    assert!(
        begin.elapsed() < Duration::from_secs(121),
        "{:?}",
        begin.elapsed()
    );
}

/// The PING waits behind frames that it has not read yet.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_far_behind_has_time_to_answer_a_ping() {
    let mut client = client(&settings(0)).await;
    let mut ping = Vec::new();
    frame::ping(&mut ping, [0; 8], false);
    // More than may be on its way, and less than the sockets hold.
    client.stream.write_all(&ping.repeat(4_000)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(!client.served.is_finished());
    let mut pings_from_server = 0;
    for _ in 0..4_000 {
        let (head, _) = client.next_of(kind::PING).await;
        pings_from_server += u32::from(!head.has(flag::ACK));
    }
    assert_eq!(pings_from_server, 0, "behind the answers");
    let begin = Instant::now();
    client.next_of(kind::GOAWAY).await;
    assert!(
        begin.elapsed() < Duration::from_secs(200),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn rfc9113_6_8_a_drained_client_is_waited_for_until_it_answers() {
    let mut client = client(&settings(0)).await;
    client.next_of(kind::SETTINGS).await;
    client.drain.start();
    client.next_of(kind::GOAWAY).await;
    let (_, bytes) = client.next_of(kind::PING).await;
    assert!(!client.served.is_finished());
    client.pong(&bytes).await;
    client.next_of(kind::GOAWAY).await;
    assert!(client.next().await.is_none());
    client.served.await.unwrap().unwrap();
}

/// Requests restart the time-out, however short they are.
#[tokio::test(start_paused = true)]
async fn a_client_without_requests_gets_a_goaway() {
    const MAX: Duration = Duration::from_secs(300);
    let mut client = client_with_timeout(&settings(frame::WINDOW), Some(MAX)).await;
    let (begin, mut asked) = (Instant::now(), Instant::now());
    let mut stream = 1;
    let last = loop {
        let (head, payload) = client.next().await.unwrap();
        match head.kind {
            kind::PING if !head.has(flag::ACK) => {
                client.pong(&payload).await;
                let due = Duration::from_secs(100 * u64::from(stream + 1));
                if begin.elapsed() > due && stream < 7 {
                    client.stream.write_all(&get(stream)).await.unwrap();
                    (asked, stream) = (Instant::now(), stream + 2);
                }
            }
            kind::GOAWAY => break payload,
            _ => {}
        }
    };
    assert_eq!(stream, 7, "it was let go while it still sent requests");
    let waited = asked.elapsed();
    let late = waited.checked_sub(MAX).unwrap();
    assert!(late <= LATE, "{waited:?}");
    assert_eq!(
        last,
        [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        "the first GOAWAY"
    );
    let (_, bytes) = client.next_of(kind::PING).await;
    client.pong(&bytes).await;
    let (_, last) = client.next_of(kind::GOAWAY).await;
    assert_eq!(last, [0, 0, 0, 5, 0, 0, 0, 0]);
    assert!(client.next().await.is_none());
    client.served.await.unwrap().unwrap();
}

impl Peer {
    /// Answers PINGs until a GOAWAY comes, and returns that.
    async fn until_goaway(&mut self) -> Vec<u8> {
        loop {
            let (head, payload) = self.next().await.unwrap();
            match head.kind {
                kind::PING if !head.has(flag::ACK) => self.pong(&payload).await,
                kind::GOAWAY => return payload,
                _ => {}
            }
        }
    }
}

/// A client that had more time to answer a PING because it had much to read.
#[tokio::test(start_paused = true)]
async fn a_client_that_was_far_behind_is_let_go_in_time() {
    // Longer than the interval of PINGs.
    const MAX: Duration = Duration::from_secs(60);
    let mut client = client_with_timeout(&settings(frame::WINDOW), Some(MAX)).await;
    let mut ping = Vec::new();
    frame::ping(&mut ping, [1; 8], false);
    // It has to read their answers.
    client.stream.write_all(&ping.repeat(2_000)).await.unwrap();
    for _ in 0..2_000 {
        client.next_of(kind::PING).await;
    }
    let begin = Instant::now();
    client.until_goaway().await;
    let waited = begin.elapsed();
    assert!(waited <= MAX + LATE, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_a_response_is_not_idle() {
    const MAX: Duration = Duration::from_secs(60);
    // Its window is closed, so that the stream lasts until it is reset.
    let mut client = client_with_timeout(&[settings(0), get(1)].concat(), Some(MAX)).await;
    let begin = Instant::now();
    loop {
        let (head, payload) = client.next().await.unwrap();
        match head.kind {
            kind::PING if !head.has(flag::ACK) => client.pong(&payload).await,
            kind::RST_STREAM => break,
            kind => assert_ne!(kind, kind::GOAWAY),
        }
    }
    assert!(begin.elapsed() > 4 * MAX);
    let begin = Instant::now();
    client.until_goaway().await;
    assert!(begin.elapsed() >= MAX - Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_the_shutdown_ping_is_let_go() {
    let mut client =
        client_with_timeout(&settings(frame::WINDOW), Some(Duration::from_secs(1))).await;
    let last = client.until_goaway().await;
    assert_eq!(last[..4], [0x7f, 0xff, 0xff, 0xff]);
    client.next_of(kind::PING).await;
    // A stream that it begins before it has read the GOAWAY is served.
    client.stream.write_all(&get(1)).await.unwrap();
    client.next_of(kind::HEADERS).await;
    let begin = Instant::now();
    let mut ping = Vec::new();
    frame::ping(&mut ping, [1; 8], false);
    // It sends something, so that it gets no PING.
    let last = loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        client.stream.write_all(&ping).await.unwrap();
        let (head, payload) = client.next().await.unwrap();
        if head.kind == kind::GOAWAY {
            break payload;
        }
        assert!(begin.elapsed() < Duration::from_secs(100));
    };
    assert_eq!(last, [0, 0, 0, 1, 0, 0, 0, 0]);
    while let Some((head, _)) = client.next().await {
        assert_eq!((head.kind, head.flags), (kind::PING, flag::ACK));
    }
    client.served.await.unwrap().unwrap();
}
