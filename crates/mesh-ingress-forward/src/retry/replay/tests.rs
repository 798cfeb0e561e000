mod fed;

use http_body_util::{BodyExt, Full, StreamBody};

use self::fed::*;
use super::*;

#[tokio::test]
async fn every_attempt_gets_the_whole_body_and_trailers() {
    let (sender, body) = fed(SizeHint::default());
    for frame_data in [&b"one "[..], b"", b"two ", b"three"] {
        sender.send(data(frame_data)).unwrap();
    }
    sender.send(Ok(Frame::trailers(fields()))).unwrap();
    drop(sender);
    let replay = ReplayBuffer::new(body, 100);
    for _ in 0..3 {
        assert!(replay.can_replay());
        let (bytes, trailers) = all(replay.begin()).await;
        assert_eq!(bytes, "one two three");
        assert_eq!(trailers, Some(fields()));
        assert!(replay.recall());
    }
}

#[tokio::test]
async fn recorded_bytes_are_not_copied() {
    let (sender, body) = fed(SizeHint::default());
    let frame_data = Bytes::from(vec![7; 1000]);
    sender.send(Ok(Frame::data(frame_data.clone()))).unwrap();
    drop(sender);
    let replay = ReplayBuffer::new(body, 1000);
    assert_eq!(next(&mut replay.begin()).as_ptr(), frame_data.as_ptr());
    assert_eq!(next(&mut replay.begin()).as_ptr(), frame_data.as_ptr());
}

#[tokio::test]
async fn second_attempt_continues_after_the_recording() {
    let (sender, body) = fed(SizeHint::default());
    let replay = ReplayBuffer::new(body, 100);
    let mut first = replay.begin();
    sender.send(data(b"seen ")).unwrap();
    assert_eq!(next(&mut first), "seen ");
    drop(first);
    let mut second = replay.begin();
    assert_eq!(next(&mut second), "seen ");
    let wakes = Arc::<WakeCount>::default();
    assert!(poll(&mut second, &wakes).is_pending());
    sender.send(data(b"unseen")).unwrap();
    assert_eq!(wakes.get(), 1);
    assert_eq!(next(&mut second), "unseen");
    drop(sender);
    assert!(matches!(poll(&mut second, &wakes), Poll::Ready(None)));
    // A third gets both.
    assert_eq!(all(replay.begin()).await.0, "seen unseen");
}

#[test]
fn cancelled_attempt_is_woken_and_reads_nothing() {
    let (sender, body) = fed(SizeHint::with_exact(6));
    let replay = ReplayBuffer::new(body, 100);
    let mut first = replay.begin();
    let (first_wakes, second_wakes) = (Arc::<WakeCount>::default(), Arc::<WakeCount>::default());
    assert!(poll(&mut first, &first_wakes).is_pending());
    assert!(replay.recall());
    assert_eq!(first_wakes.get(), 1);
    // An error, because a clean end would be half a request.
    sender.send(data(b"abc")).unwrap();
    assert!(error(&mut first).contains("sent again"));
    assert!(!first.is_end_stream());
    let mut second = replay.begin();
    assert_eq!(next(&mut second), "abc");
    assert!(poll(&mut second, &second_wakes).is_pending());
    assert!(error(&mut first).contains("sent again"));
    let before = first_wakes.get();
    sender.send(data(b"def")).unwrap();
    assert_eq!((first_wakes.get(), second_wakes.get()), (before, 1));
    assert_eq!(next(&mut second), "def");
    assert!(second.is_end_stream());
}

#[test]
fn reader_is_woken_by_its_last_waker() {
    let (sender, body) = fed(SizeHint::default());
    let replay = ReplayBuffer::new(body, 100);
    let mut attempt = replay.begin();
    let (before, after) = (Arc::<WakeCount>::default(), Arc::<WakeCount>::default());
    assert!(poll(&mut attempt, &before).is_pending());
    assert!(poll(&mut attempt, &after).is_pending());
    sender.send(data(b"x")).unwrap();
    assert_eq!((before.get(), after.get()), (0, 1));
    assert!(poll(&mut attempt, &after).is_ready());
    assert!(poll(&mut attempt, &after).is_pending());
    drop(replay.begin());
    assert_eq!((before.get(), after.get()), (0, 2));
}

#[test]
fn rfc9112_6_every_attempt_is_framed_alike() {
    let (sender, body) = fed(SizeHint::with_exact(6));
    sender.send(data(b"abc")).unwrap();
    sender.send(data(b"def")).unwrap();
    let replay = ReplayBuffer::new(body, 6);
    for _ in 0..3 {
        let mut attempt = replay.begin();
        let hint = |attempt: &ReplayBody<Fed>| attempt.size_hint().exact();
        assert_eq!(hint(&attempt), Some(6));
        assert!(!attempt.is_end_stream());
        assert_eq!(next(&mut attempt), "abc");
        assert_eq!(hint(&attempt), Some(3));
        assert!(!attempt.is_end_stream());
        assert_eq!(next(&mut attempt), "def");
        assert_eq!(hint(&attempt), Some(0));
        assert!(attempt.is_end_stream());
    }
}

#[tokio::test]
async fn rfc9112_7_1_body_of_unknown_size_never_gets_a_size() {
    // With a Content-Length there would be no room for the trailers.
    let (sender, body) = fed(SizeHint::default());
    sender.send(data(b"abc")).unwrap();
    sender.send(Ok(Frame::trailers(fields()))).unwrap();
    drop(sender);
    let replay = ReplayBuffer::new(body, 100);
    for _ in 0..3 {
        let mut attempt = replay.begin();
        assert_eq!(attempt.size_hint().exact(), None);
        assert!(!attempt.is_end_stream());
        assert_eq!(next(&mut attempt), "abc");
        assert!(!attempt.is_end_stream());
        assert_eq!(all(attempt).await, (Bytes::new(), Some(fields())));
    }
    // An empty body is not known to be empty before its end.
    let (sender, body) = fed(SizeHint::default());
    drop(sender);
    let replay = ReplayBuffer::new(body, 100);
    for _ in 0..2 {
        let mut attempt = replay.begin();
        assert!(!attempt.is_end_stream());
        assert_eq!(attempt.size_hint().exact(), None);
        assert!(matches!(
            poll(&mut attempt, &Arc::default()),
            Poll::Ready(None)
        ));
        assert!(attempt.is_end_stream());
    }
}

#[tokio::test]
async fn body_beyond_the_limit_streams_on_and_the_recording_is_freed() {
    let (sender, body) = fed(SizeHint::default());
    let frame_data = Bytes::from(vec![1; 60]);
    let replay = ReplayBuffer::new(body, 100);
    let mut attempt = replay.begin();
    sender.send(Ok(Frame::data(frame_data.clone()))).unwrap();
    next(&mut attempt);
    assert!(replay.can_replay());
    assert!(!frame_data.is_unique());
    sender.send(data(&[2; 41])).unwrap();
    assert_eq!(next(&mut attempt), &[2; 41][..]);
    assert!(!replay.can_replay());
    assert!(!replay.recall());
    assert!(frame_data.is_unique(), "the recording is of no use");
    // The attempt still has the body: a refused recall does not take it.
    sender.send(data(b"the end")).unwrap();
    drop(sender);
    assert_eq!(all(attempt).await.0, "the end");
    // Another attempt does not get half of it.
    assert!(error(&mut replay.begin()).contains("broke off"));
}

#[test]
fn body_of_exactly_the_limit_is_recorded() {
    let (sender, body) = fed(SizeHint::default());
    let replay = ReplayBuffer::new(body, 6);
    let mut attempt = replay.begin();
    sender.send(data(b"abcdef")).unwrap();
    next(&mut attempt);
    assert!(replay.can_replay());
    sender.send(data(b"")).unwrap();
    next(&mut attempt);
    assert!(replay.can_replay());
    sender.send(data(b"g")).unwrap();
    next(&mut attempt);
    assert!(!replay.can_replay());
}

#[test]
fn body_known_to_be_too_large_is_not_recorded() {
    let (sender, body) = fed(SizeHint::with_exact(101));
    let frame_data = Bytes::from(vec![1; 10]);
    let replay = ReplayBuffer::new(body, 100);
    let mut attempt = replay.begin();
    // Nothing of it was read: it can still be sent from its start.
    assert!(replay.recall());
    drop(attempt);
    attempt = replay.begin();
    assert_eq!(attempt.size_hint().exact(), Some(101));
    sender.send(Ok(Frame::data(frame_data.clone()))).unwrap();
    next(&mut attempt);
    assert!(frame_data.is_unique());
    assert!(!replay.can_replay());
}

#[test]
fn number_of_recorded_frames_is_limited() {
    let (sender, body) = fed(SizeHint::default());
    let replay = ReplayBuffer::new(body, 64 * 1024);
    let mut attempt = replay.begin();
    for _ in 0..MAX_FRAMES {
        sender.send(data(b"x")).unwrap();
        next(&mut attempt);
    }
    assert!(replay.can_replay());
    sender.send(data(b"x")).unwrap();
    next(&mut attempt);
    assert!(!replay.can_replay());
}

#[tokio::test]
async fn trailers_count_towards_the_limit() {
    let (sender, body) = fed(SizeHint::default());
    sender.send(data(b"abc")).unwrap();
    sender.send(Ok(Frame::trailers(fields()))).unwrap();
    let replay = ReplayBuffer::new(body, 10);
    assert_eq!(all(replay.begin()).await.1, Some(fields()));
    assert!(!replay.can_replay());
}

#[tokio::test]
async fn last_attempt_keeps_nothing() {
    let (sender, body) = fed(SizeHint::with_exact(60));
    let frames_data: [Bytes; 3] = std::array::from_fn(|_| Bytes::from(vec![1; 20]));
    let replay = ReplayBuffer::new(body, 100);
    let mut attempt = replay.begin();
    for frame_data in &frames_data[..2] {
        sender.send(Ok(Frame::data(frame_data.clone()))).unwrap();
        next(&mut attempt);
    }
    let mut attempt = replay.begin();
    replay.stop_recording();
    assert_eq!(attempt.size_hint().exact(), Some(60));
    drop(next(&mut attempt));
    assert!(frames_data[0].is_unique());
    assert!(!frames_data[1].is_unique());
    assert!(!replay.can_replay());
    assert_eq!(attempt.size_hint().exact(), Some(40));
    drop(next(&mut attempt));
    assert!(!attempt.is_end_stream());
    sender
        .send(Ok(Frame::data(frames_data[2].clone())))
        .unwrap();
    drop(next(&mut attempt));
    assert!(frames_data.iter().all(Bytes::is_unique));
    assert!(attempt.is_end_stream());
}

#[tokio::test]
async fn stopping_the_recording_frees_delivered_frames() {
    let (sender, body) = fed(SizeHint::default());
    let frame_data = Bytes::from(vec![1; 20]);
    let replay = ReplayBuffer::new(body, 100);
    let mut attempt = replay.begin();
    sender.send(Ok(Frame::data(frame_data.clone()))).unwrap();
    drop(next(&mut attempt));
    replay.stop_recording();
    assert!(frame_data.is_unique());
    assert!(!replay.can_replay());
    sender.send(data(b"more")).unwrap();
    sender.send(Ok(Frame::trailers(fields()))).unwrap();
    assert_eq!(all(attempt).await, (Bytes::from("more"), Some(fields())));
}

#[test]
fn failed_body_is_not_replayed() {
    let (sender, body) = fed(SizeHint::with_exact(6));
    let replay = ReplayBuffer::new(body, 100);
    let mut attempt = replay.begin();
    sender.send(data(b"abc")).unwrap();
    next(&mut attempt);
    sender.send(Err("the client went away".into())).unwrap();
    assert_eq!(error(&mut attempt), "the client went away");
    assert!(!replay.can_replay());
    assert!(!attempt.is_end_stream());
    assert!(error(&mut attempt).contains("broke off"));
}

#[tokio::test]
async fn full_body_is_replayed() {
    let replay = ReplayBuffer::new(
        Full::new(Bytes::from_static(b"abc")).map_err(BoxError::from),
        3,
    );
    for _ in 0..2 {
        let attempt = replay.begin();
        assert_eq!(attempt.size_hint().exact(), Some(3));
        assert_eq!(all(attempt).await.0, "abc");
    }
}

#[tokio::test(start_paused = true)]
async fn clock_stops_while_the_client_is_slow() {
    let timeout = Duration::from_secs(1);
    let (sender, body) = fed(SizeHint::default());
    let replay = ReplayBuffer::new(body, 100);
    let mut attempt = replay.begin();
    let start = Instant::now();
    tokio::time::advance(timeout).await;
    // The body was not polled: the upstream causes the delay.
    assert_eq!(replay.timeout_at(Instant::now(), timeout), start + timeout);
    assert!(poll(&mut attempt, &Arc::default()).is_pending());
    assert_eq!(
        replay.timeout_at(Instant::now(), timeout),
        Instant::now() + timeout
    );
    sender.send(data(b"abc")).unwrap();
    next(&mut attempt);
    let moved = Instant::now();
    tokio::time::advance(timeout / 2).await;
    assert_eq!(replay.timeout_at(Instant::now(), timeout), moved + timeout);
    drop(sender);
    assert!(matches!(
        poll(&mut attempt, &Arc::default()),
        Poll::Ready(None)
    ));
    let ended = Instant::now();
    tokio::time::advance(timeout * 2).await;
    assert_eq!(replay.timeout_at(Instant::now(), timeout), ended + timeout);
}

#[tokio::test]
async fn body_is_recalled_from_another_task() {
    let (sender, body) = fed(SizeHint::default());
    let replay = ReplayBuffer::new(body, 100);
    let first = tokio::spawn(replay.begin().collect());
    sender.send(data(b"abc")).unwrap();
    tokio::task::yield_now().await;
    let second = tokio::spawn(replay.begin().collect());
    // The first attempt does not wait for the end of the body.
    let error = first.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("sent again"), "{error}");
    sender.send(data(b"def")).unwrap();
    drop(sender);
    assert_eq!(second.await.unwrap().unwrap().to_bytes(), "abcdef");
}

#[tokio::test]
async fn stream_body_is_replayed() {
    let frames = [data(b"a"), data(b"b"), Ok(Frame::trailers(fields()))];
    let replay = ReplayBuffer::new(StreamBody::new(futures_util::stream::iter(frames)), 100);
    for _ in 0..2 {
        assert_eq!(
            all(replay.begin()).await,
            (Bytes::from("ab"), Some(fields()))
        );
    }
}
