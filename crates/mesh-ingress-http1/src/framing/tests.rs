use http::HeaderValue;

use super::*;

/// Keeps the pieces apart from the copied bytes.
#[derive(Default)]
struct Queue {
    copied: Vec<u8>,
    pieces: Vec<(usize, Bytes)>,
}

impl AsMut<Vec<u8>> for Queue {
    fn as_mut(&mut self) -> &mut Vec<u8> {
        &mut self.copied
    }
}

impl Extend<Bytes> for Queue {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, pieces: I) {
        let offset = self.copied.len();
        self.pieces
            .extend(pieces.into_iter().map(|piece| (offset, piece)));
    }
}

impl Queue {
    /// All bytes in their order.
    fn concat(&self) -> String {
        let (mut all, mut at) = (Vec::new(), 0);
        for (offset, piece) in &self.pieces {
            all.extend_from_slice(&self.copied[at..*offset]);
            all.extend_from_slice(piece);
            at = *offset;
        }
        all.extend_from_slice(&self.copied[at..]);
        String::from_utf8(all).unwrap()
    }
}

fn encode(mut framing: Framing, pieces: &[&'static str]) -> Result<String, Malformed> {
    let mut queue = Queue::default();
    for piece in pieces {
        let data = Frame::data(Bytes::from_static(piece.as_bytes()));
        framing.encode(data, &mut queue)?;
    }
    framing.finish(&HeaderMap::new(), &mut queue)?;
    Ok(queue.concat())
}

#[test]
fn rfc9110_8_6_a_body_is_as_long_as_its_length_says() {
    assert!(encode(Framing::Length(5), &["he", "", "llo"]).is_ok());
    assert!(encode(Framing::Length(5), &["he", "llo", ""]).is_ok());
    for pieces in [&["hell"][..], &["hello", "!"], &["hello!"], &[]] {
        let malformed = encode(Framing::Length(5), pieces).unwrap_err();
        assert!(matches!(malformed, Malformed::Length), "{pieces:?}");
    }
    assert!(encode(Framing::Chunked, &["any", "", "thing"]).is_ok());
}

#[test]
fn rfc9112_7_1_chunks_and_trailers_are_written() {
    let mut framing = Framing::Chunked;
    let mut queue = Queue::default();
    for piece in ["hello", "", "0123456789abcdef"] {
        let data = Frame::data(Bytes::from_static(piece.as_bytes()));
        assert!(!framing.encode(data, &mut queue).unwrap());
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("abc"));
    assert!(
        framing
            .encode(Frame::trailers(trailers), &mut queue)
            .unwrap()
    );
    let expected = "5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nx-sum: abc\r\n\r\n";
    assert_eq!(queue.concat(), expected);
}

#[test]
fn pieces_are_not_copied() {
    let piece = Bytes::from(vec![b'x'; 3_000]);
    for mut framing in [
        Framing::Length(3_000),
        Framing::Chunked,
        Framing::UntilClose,
    ] {
        let mut queue = Queue::default();
        framing
            .encode(Frame::data(piece.clone()), &mut queue)
            .unwrap();
        assert_eq!(queue.pieces.len(), 1);
        assert_eq!(queue.pieces[0].1.as_ptr(), piece.as_ptr());
    }
}
