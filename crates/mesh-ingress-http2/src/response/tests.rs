use super::*;
use crate::hpack::{Decoder, Field};

/// The written fields, and the frames' types, flags and lengths.
fn read(mut bytes: &[u8]) -> (Vec<String>, Vec<(u8, u8, usize)>) {
    let (mut section, mut frames) = (Vec::new(), Vec::new());
    while let Some(head) = FrameHeader::read(bytes) {
        assert_eq!(head.stream, 7);
        frames.push((head.kind, head.flags, head.length));
        section.extend_from_slice(&bytes[HEADER_LEN..][..head.length]);
        bytes = &bytes[HEADER_LEN + head.length..];
    }
    assert!(bytes.is_empty());
    let mut fields = Vec::new();
    let mut decoder = Decoder::new(0);
    let shown = |field| {
        fields.push(match field {
            Field::Regular(name, value) => format!("{name}: {}", value.to_str().unwrap()),
            Field::Malformed(why) => why.to_owned(),
            other => format!("{other:?}"),
        });
    };
    decoder.decode(&section, usize::MAX, shown).unwrap();
    (fields, frames)
}

fn head(status: u16, fields: &[(&'static str, &str)], content: Content) -> Vec<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    let mut out = Vec::new();
    let status = StatusCode::from_u16(status).unwrap();
    Writer::new().head(7, status, &headers, content, false, &mut out);
    let (fields, frames) = read(&out);
    assert_eq!(frames.len(), 1);
    // The first is `:status`.
    fields[1..].to_vec()
}

const DATED: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
const DATE_LINE: &str = "date: Mon, 21 Oct 2013 20:13:21 GMT";

#[test]
fn rfc9113_8_2_2_connection_specific_fields_are_left_out() {
    let fields = [
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "foo"),
        ("te", "trailers"),
        ("x", "1"),
        DATED,
    ];
    assert_eq!(head(200, &fields, Content::Unknown), ["x: 1", DATE_LINE]);
}

#[test]
fn rfc9110_8_6_content_length_agrees_with_the_body() {
    let five = [("content-length", "5"), DATED];
    let expected = ["content-length: 5", DATE_LINE];
    assert_eq!(head(200, &five, Content::Length(5)), expected);
    assert_eq!(head(200, &five, Content::Unknown), expected);
    assert_eq!(head(200, &five, Content::Bodiless), expected);
    assert_eq!(head(304, &five, Content::Bodiless), expected);
    assert_eq!(head(204, &five, Content::Bodiless), [DATE_LINE]);
    assert_eq!(
        head(200, &five, Content::Length(6)),
        [DATE_LINE, "content-length: 6"]
    );
    let expected = [DATE_LINE, "content-length: 5"];
    assert_eq!(head(200, &[DATED], Content::Length(5)), expected);
    assert_eq!(head(200, &[DATED], Content::Length(0)), [DATE_LINE]);
}

#[test]
fn rfc9110_6_6_1_response_has_a_date() {
    let fields = head(200, &[], Content::Unknown);
    assert!(fields[0].starts_with("date: "), "{fields:?}");
    assert_eq!(head(100, &[], Content::Bodiless), [""; 0]);
}

#[test]
fn rfc9113_6_10_large_field_section_is_continued() {
    let mut headers = HeaderMap::new();
    for number in 0..100 {
        // Bytes that Huffman codes do not shorten.
        let value = format!("{number}{}", "{".repeat(498));
        headers.append("x", value.parse().unwrap());
    }
    let mut out = b"before".to_vec();
    let mut writer = Writer::new();
    writer.head(
        7,
        StatusCode::OK,
        &headers,
        Content::Unknown,
        true,
        &mut out,
    );
    let (fields, frames) = read(out.strip_prefix(b"before").unwrap());
    assert_eq!(fields.len(), 102);
    let kinds: Vec<_> = frames.iter().map(|frame| (frame.0, frame.1)).collect();
    let continued = (kind::CONTINUATION, 0);
    let last = (kind::CONTINUATION, flag::END_HEADERS);
    let first = (kind::HEADERS, flag::END_STREAM);
    assert_eq!(kinds, [first, continued, continued, last]);
    assert!(frames.iter().all(|frame| frame.2 <= 16_384));
    out.clear();
    writer.max_payload(65_536);
    writer.head(
        7,
        StatusCode::OK,
        &headers,
        Content::Unknown,
        true,
        &mut out,
    );
    assert_eq!(read(&out).1.len(), 1);
}

#[test]
fn rfc9113_8_1_trailers_end_the_stream() {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut out = Vec::new();
    Writer::new().trailers(7, &trailers, &mut out);
    let (fields, frames) = read(&out);
    assert_eq!(fields, ["grpc-status: 0"]);
    let flags = flag::END_STREAM | flag::END_HEADERS;
    assert_eq!((frames[0].0, frames[0].1), (kind::HEADERS, flags));
}
