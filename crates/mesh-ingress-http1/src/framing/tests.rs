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
