use super::*;

const LIMITS: Limits = Limits {
    bytes: 1024,
    fields: 4,
};

/// A decoded body: its bytes and trailers, whether it is complete, and what is left behind it.
#[derive(Debug, Default, PartialEq)]
struct Read {
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    complete: bool,
    behind: Vec<u8>,
}

fn read(mut decoder: Decoder, pieces: &[&[u8]]) -> Result<Read, Malformed> {
    let mut buf = BytesMut::new();
    let mut read = Read::default();
    for piece in pieces {
        buf.extend_from_slice(piece);
        while let Some(frame) = decoder.next(&mut buf, LIMITS)? {
            match frame.into_data() {
                Ok(data) => {
                    assert!(!data.is_empty(), "a piece without bytes");
                    read.body.extend_from_slice(&data);
                }
                Err(frame) => {
                    let fields = frame.into_trailers().unwrap();
                    let fields = fields.iter().map(|(name, value)| {
                        (name.to_string(), value.to_str().unwrap().to_owned())
                    });
                    read.trailers.extend(fields);
                }
            }
        }
    }
    read.complete = decoder.is_complete();
    read.behind = buf.to_vec();
    Ok(read)
}

/// Checks that the result is the same in two or three pieces, and byte by byte.
fn read_in_any_pieces(decoder: Decoder, bytes: &str) -> Result<Read, String> {
    let bytes = bytes.as_bytes();
    let whole = read(decoder, &[bytes]).map_err(|malformed| malformed.to_string());
    let single: Vec<_> = bytes.chunks(1).collect();
    let mut ways = vec![single];
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            ways.push(vec![
                &bytes[..first],
                &bytes[first..second],
                &bytes[second..],
            ]);
        }
    }
    for way in ways {
        let cut = read(decoder, &way).map_err(|malformed| malformed.to_string());
        assert_eq!(cut.is_ok(), whole.is_ok(), "{way:?}");
        if whole.is_ok() {
            assert_eq!(cut, whole, "{way:?}");
        }
    }
    whole
}

fn complete(body: &str, behind: &str) -> Read {
    Read {
        body: body.into(),
        complete: true,
        behind: behind.into(),
        ..Read::default()
    }
}

#[test]
fn rfc9112_6_2_a_body_ends_at_its_length() {
    let read = |bytes| read_in_any_pieces(Decoder::length(5), bytes).unwrap();
    assert_eq!(read("hello"), complete("hello", ""));
    assert_eq!(read("helloHTTP/1.1"), complete("hello", "HTTP/1.1"));
    assert!(!read("hell").complete);
    assert!(Decoder::length(0).is_complete());
}

#[test]
fn rfc9112_6_3_a_body_without_a_length_ends_with_the_connection() {
    let read = read_in_any_pieces(Decoder::UntilClose, "0\r\n\r\nmore").unwrap();
    assert_eq!(read.body, b"0\r\n\r\nmore");
    assert!(!read.complete);
}

#[test]
fn rfc9112_7_1_chunks_are_read() {
    for (bytes, body, behind) in [
        ("0\r\n\r\n", "", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        (
            "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nX",
            "hello world",
            "X",
        ),
        ("00005\r\nhello\r\n000\r\n\r\n", "hello", ""),
        (
            "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "01234567890123456789",
            "",
        ),
        ("5;name=value\r\nhello\r\n0;last\r\n\r\n", "hello", ""),
        ("5 ;a=\"b\"\r\nhello\r\n0 \r\n\r\n", "hello", ""),
        // Data that looks like the end.
        ("7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n", ""),
    ] {
        let read = read_in_any_pieces(Decoder::chunked(), bytes);
        assert_eq!(read, Ok(complete(body, behind)), "{bytes:?}");
    }
    for cut in [
        "",
        "5",
        "5\r",
        "5\r\nhell",
        "5\r\nhello",
        "5\r\nhello\r\n0\r\n\r",
    ] {
        let read = read_in_any_pieces(Decoder::chunked(), cut).unwrap();
        assert!(!read.complete, "{cut:?}");
    }
}

#[test]
fn rfc9112_7_1_ambiguous_chunks_are_refused() {
    for bytes in [
        "\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\rhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhellohello",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "g\r\n",
        "00000000000000001\r\n",
        "10000000000000000\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nname : value\r\n\r\n",
        "0\r\na: b\r\n c\r\n\r\n",
        "0\r\n\n",
        "0\r\na: b\n\n",
        "0\r\na: b\n\r\n",
        "0\r\na: b\r\n\n",
    ] {
        let read = read_in_any_pieces(Decoder::chunked(), bytes);
        assert!(read.is_err(), "{bytes:?}: {read:?}");
    }
    // The largest size there is, without data.
    let read = read_in_any_pieces(Decoder::chunked(), "ffffffffffffffff\r\nx").unwrap();
    assert_eq!((read.body.as_slice(), read.complete), (&b"x"[..], false));
}

#[test]
fn rfc9112_7_1_2_trailers_are_read() {
    let bytes = "1\r\nx\r\n0\r\ngrpc-status: 0\r\nx-a:b \r\n\r\nX";
    let read = read_in_any_pieces(Decoder::chunked(), bytes).unwrap();
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        read.trailers,
        [field("grpc-status", "0"), field("x-a", "b")]
    );
    assert_eq!((read.complete, &*read.behind), (true, &b"X"[..]));
}

#[test]
fn trailers_and_extensions_are_bounded() {
    let many = "a: b\r\n".repeat(5);
    let large = format!("a: {}\r\n", "b".repeat(1100));
    let endless = format!("a: {}", "b".repeat(1100));
    for section in [many, large, endless] {
        let bytes = format!("0\r\n{section}\r\n");
        let malformed = read(Decoder::chunked(), &[bytes.as_bytes()]).unwrap_err();
        assert!(
            matches!(malformed, Malformed::TrailersTooLarge),
            "{malformed}"
        );
    }
    let one = format!("1;{}\r\nx\r\n", "e".repeat(EXTENSIONS / 2));
    let three = one.repeat(3);
    let malformed = read(Decoder::chunked(), &[three.as_bytes()]).unwrap_err();
    assert!(matches!(malformed, Malformed::Chunk(_)), "{malformed}");
    let endless = format!("1;{}", "e".repeat(EXTENSIONS + 1));
    let malformed = read(Decoder::chunked(), &[endless.as_bytes()]).unwrap_err();
    assert!(matches!(malformed, Malformed::Chunk(_)), "{malformed}");
}

#[test]
fn whitespace_behind_a_size_is_no_extension() {
    let chunks = "1         \r\nx\r\n".repeat(3000);
    let bytes = format!("{chunks}0         \r\n\r\n");
    let read = read(Decoder::chunked(), &[bytes.as_bytes()]).unwrap();
    assert_eq!((read.body.len(), read.complete), (3000, true));
    let endless = format!("1{}", " ".repeat(PADDING + 1));
    assert!(self::read(Decoder::chunked(), &[endless.as_bytes()]).is_err());
}

#[test]
fn a_body_is_complete_with_its_last_piece() {
    let mut buf = BytesMut::from("2\r\nok\r\n0\r\n\r\n");
    let mut decoder = Decoder::chunked();
    assert!(decoder.next(&mut buf, LIMITS).unwrap().is_some());
    assert!(decoder.is_complete());
    assert!(buf.is_empty());
}
