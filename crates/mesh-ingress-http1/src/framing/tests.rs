use http::HeaderValue;

use super::*;

fn sent(framing: Framing, pieces: &[&'static str]) -> Result<(), Malformed> {
    let mut framing = framing;
    let mut outbox = Outbox::default();
    for piece in pieces {
        let data = Frame::data(Bytes::from_static(piece.as_bytes()));
        framing.add(data, &mut outbox)?;
        outbox = Outbox::default();
    }
    framing.end(&HeaderMap::new(), &mut outbox)
}

#[test]
fn rfc9110_8_6_a_body_is_as_long_as_it_was_said_to_be() {
    assert!(sent(Framing::Length(5), &["he", "", "llo"]).is_ok());
    assert!(sent(Framing::Length(5), &["he", "llo", ""]).is_ok());
    for pieces in [&["hell"][..], &["hello", "!"], &["hello!"], &[]] {
        let malformed = sent(Framing::Length(5), pieces).unwrap_err();
        assert!(matches!(malformed, Malformed::Length), "{pieces:?}");
    }
    assert!(sent(Framing::Chunked, &["any", "", "thing"]).is_ok());
}

#[test]
fn rfc9112_7_1_chunks_are_written() {
    let mut framing = Framing::Chunked;
    let mut outbox = Outbox::default();
    for piece in ["hello", "", "0123456789abcdef"] {
        let data = Frame::data(Bytes::from_static(piece.as_bytes()));
        assert!(!framing.add(data, &mut outbox).unwrap());
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("abc"));
    assert!(framing.add(Frame::trailers(trailers), &mut outbox).unwrap());
    let text = String::from_utf8(outbox.framing().clone()).unwrap();
    let expected = "5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nx-sum: abc\r\n\r\n";
    assert_eq!(text, expected);
}

/// Each in a packet of its own would cost more than what is in them.
#[test]
fn small_pieces_go_out_together_and_large_ones_on_their_own() {
    let data = |length: usize| Frame::data(Bytes::from(vec![b'x'; length]));
    let mut framing = Framing::Chunked;
    let mut outbox = Outbox::default();
    let mut pieces = 0;
    while outbox.has_room() {
        framing.add(data(1), &mut outbox).unwrap();
        pieces += 1;
    }
    assert!((2_000..4_000).contains(&pieces), "{pieces}");
    let mut outbox = Outbox::default();
    framing.add(data(1), &mut outbox).unwrap();
    framing.add(data(3_000), &mut outbox).unwrap();
    assert!(!outbox.has_room());
    framing.end(&HeaderMap::new(), &mut outbox).unwrap();
    let mut sent = std::io::Cursor::new(Vec::new());
    let waker = std::task::Waker::noop();
    let polled = outbox.poll_write(&mut sent, &mut std::task::Context::from_waker(waker));
    assert!(matches!(polled, std::task::Poll::Ready(Ok(()))));
    let expected = format!("1\r\nx\r\nbb8\r\n{}\r\n0\r\n\r\n", "x".repeat(3_000));
    assert_eq!(String::from_utf8(sent.into_inner()).unwrap(), expected);
}
