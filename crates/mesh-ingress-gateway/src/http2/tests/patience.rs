//! Connections on the test's own time: it moves on when nothing else does.

use super::*;

/// By how much a client may be let go too late: 40 s, and as much again because the clock moves on while
/// octets are on their way.
const LATE: Duration = Duration::from_secs(80);

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_asked_and_then_gone() {
    let mut client = client(&settings(0)).await;
    let begin = Instant::now();
    for _ in 0..3 {
        let (head, octets) = client.next_of(kind::PING).await;
        assert!(!head.has(flag::ACK));
        client.pong(&octets).await;
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
async fn a_stream_whose_window_stays_shut_is_given_up_and_the_others_are_not() {
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
async fn a_field_section_that_does_not_end_is_cut_off() {
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

/// It neither reads nor says anything, and what it asked for does not fit into the sockets.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut_off() {
    let mut client = client(&settings(frame::MAX_WINDOW)).await;
    let mut ping = Vec::new();
    frame::ping(&mut ping, [0; 8], false);
    let pings = ping.repeat(1_000);
    let begin = Instant::now();
    let writes = async { while client.stream.write_all(&pings).await.is_ok() {} };
    // Either it is found that it takes nothing, or that it is gone.
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

/// The question waits behind what it has not read yet.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_far_behind_has_time_to_answer() {
    let mut client = client(&settings(0)).await;
    let mut ping = Vec::new();
    frame::ping(&mut ping, [0; 8], false);
    // More than may be on its way, and less than the sockets hold.
    client.stream.write_all(&ping.repeat(4_000)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(!client.served.is_finished());
    let mut questions = 0;
    for _ in 0..4_000 {
        let (head, _) = client.next_of(kind::PING).await;
        questions += u32::from(!head.has(flag::ACK));
    }
    assert_eq!(questions, 0, "behind the answers");
    let begin = Instant::now();
    client.next_of(kind::GOAWAY).await;
    assert!(
        begin.elapsed() < Duration::from_secs(200),
        "{:?}",
        begin.elapsed()
    );
}

/// Who is told to go and does not answer is waited for; who has no request under way and answers is
/// let go.
#[tokio::test(start_paused = true)]
async fn rfc9113_6_8_an_idle_client_is_let_go() {
    let mut client = client(&settings(0)).await;
    client.next_of(kind::SETTINGS).await;
    client.phase.send(Phase::Draining).unwrap();
    client.next_of(kind::GOAWAY).await;
    let (_, octets) = client.next_of(kind::PING).await;
    assert!(!client.served.is_finished());
    client.pong(&octets).await;
    client.next_of(kind::GOAWAY).await;
    assert!(client.next().await.is_none());
    assert!(matches!(client.served.await.unwrap(), Served::Ended));
}

/// A client that is there, but asks for nothing, does not stay for ever. What it asks for meanwhile
/// counts, however soon that is over.
#[tokio::test(start_paused = true)]
async fn a_client_that_asks_for_nothing_is_let_go() {
    const MAX: Duration = Duration::from_secs(300);
    let mut client = client_within(&settings(frame::WINDOW), Some(MAX)).await;
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
    assert_eq!(stream, 7, "it was let go while it still asked");
    let waited = asked.elapsed();
    let late = waited.checked_sub(MAX).unwrap();
    assert!(late <= LATE, "{waited:?}");
    assert_eq!(last, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], "a last call");
    let (_, octets) = client.next_of(kind::PING).await;
    client.pong(&octets).await;
    let (_, last) = client.next_of(kind::GOAWAY).await;
    assert_eq!(last, [0, 0, 0, 5, 0, 0, 0, 0]);
    assert!(client.next().await.is_none());
    assert!(matches!(client.served.await.unwrap(), Served::Ended));
}

impl Client {
    /// Answers what it is asked until it is told to go; what it is told then.
    async fn until_told(&mut self) -> Vec<u8> {
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

/// However much it has read before, and had time to answer therefore.
#[tokio::test(start_paused = true)]
async fn a_client_that_has_read_much_and_asks_for_no_more_is_let_go() {
    // Not over yet when it is asked.
    const MAX: Duration = Duration::from_secs(60);
    let mut client = client_within(&settings(frame::WINDOW), Some(MAX)).await;
    let mut ping = Vec::new();
    frame::ping(&mut ping, [1; 8], false);
    // Their answers are what it has to read.
    client.stream.write_all(&ping.repeat(2_000)).await.unwrap();
    for _ in 0..2_000 {
        client.next_of(kind::PING).await;
    }
    let begin = Instant::now();
    client.until_told().await;
    let waited = begin.elapsed();
    assert!(waited <= MAX + LATE, "{waited:?}");
}

/// Who waits for a response is not idle.
#[tokio::test(start_paused = true)]
async fn a_client_that_waits_is_not_let_go() {
    const MAX: Duration = Duration::from_secs(60);
    // Its window takes nothing, so that the stream lasts until it is given up.
    let mut client = client_within(&[settings(0), get(1)].concat(), Some(MAX)).await;
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
    client.until_told().await;
    assert!(begin.elapsed() >= MAX - Duration::from_secs(20));
}

/// Who has been told, and answers other questions, has heard of it: it need not say so.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_the_last_call_is_let_go() {
    let mut client = client_within(&settings(frame::WINDOW), Some(Duration::from_secs(1))).await;
    let last = client.until_told().await;
    assert_eq!(last[..4], [0x7f, 0xff, 0xff, 0xff]);
    client.next_of(kind::PING).await;
    // What it begins before it has heard is served.
    client.stream.write_all(&get(1)).await.unwrap();
    client.next_of(kind::HEADERS).await;
    let begin = Instant::now();
    let mut ping = Vec::new();
    frame::ping(&mut ping, [1; 8], false);
    // It is there, and says so: nobody has to ask.
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
    assert!(matches!(client.served.await.unwrap(), Served::Ended));
}
