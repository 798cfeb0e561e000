//! Checks for any input, run by the fuzz target and by `corpus.rs`, which replays its corpus.

use http::HeaderMap;
use mesh_ingress_http2::frame::{FrameHeader, HEADER_LEN};
use mesh_ingress_http2::hpack::{Decoded, Decoder, Field};
use mesh_ingress_http2::request::{self, RequestError};
use mesh_ingress_http2::response::Writer;

/// The limit on a section's size.
const LIMIT: usize = 400;

/// Decodes sections, each after its length, with decoders that get the same bytes in different ways.
pub(crate) fn field_sections(mut input: &[u8]) {
    let (mut all, mut some) = (Decoder::new(200), Decoder::new(200));
    let (mut requests, mut trailers) = (Decoder::new(200), Decoder::new(200));
    while let Some((&length, rest)) = input.split_first() {
        let (section, rest) = rest.split_at(rest.len().min(length.into()));
        input = rest;
        let (mut fields, mut few) = (Vec::new(), Vec::new());
        let read = all.decode(section, usize::MAX, |field| fields.push(field));
        let limited = some.decode(section, LIMIT, |field| few.push(field));
        let request = request::read(section, &mut requests, LIMIT, &mut HeaderMap::new());
        let trailer = request::read_trailers(section, &mut trailers, LIMIT);
        assert_eq!(read.is_ok(), limited.is_ok());
        assert_eq!(read.is_ok(), request.is_ok());
        assert_eq!(read.is_ok(), trailer.is_ok());
        let (Ok(read), Ok(limited), Ok(request)) = (read, limited, request) else {
            return;
        };
        assert_eq!(read, Decoded::Complete);
        assert!(fields.starts_with(&few));
        assert_eq!(limited == Decoded::Complete, few.len() == fields.len());
        match request {
            Ok(head) => is_a_request(&head, &fields),
            Err(RequestError::TooLarge) => assert_eq!(limited, Decoded::TooLarge),
            Err(_) => assert_eq!(limited, Decoded::Complete),
        }
        is_written_as_it_is(&fields);
    }
}

/// An accepted request has all required parts, and no others.
fn is_a_request(head: &request::RequestHead, fields: &[Field]) {
    let pseudo = |field: &Field| !matches!(field, Field::Regular(..));
    let begin = fields.iter().take_while(|field| pseudo(field)).count();
    assert!(!fields[begin..].iter().any(pseudo), "behind fields");
    assert!(
        !fields
            .iter()
            .any(|field| matches!(field, Field::Malformed(_)))
    );
    let request = &head.request;
    assert_eq!(request.headers().len(), fields.len() - begin);
    // The URI's text parses again.
    let uri = request.uri().to_string();
    if request.method() != http::Method::CONNECT {
        assert!(uri.parse::<http::Uri>().is_ok(), "{uri}");
        assert!(request.uri().path_and_query().is_some());
    }
}

/// Written fields decode to the same fields.
fn is_written_as_it_is(fields: &[Field]) {
    let mut headers = HeaderMap::new();
    for field in fields {
        if let Field::Regular(name, value) = field
            && *name != http::header::TE
        {
            headers.append(name, value.clone());
        }
    }
    let mut out = Vec::new();
    Writer::new().trailers(1, &headers, &mut out);
    let (mut section, mut rest) = (Vec::new(), &out[..]);
    while let Some(head) = FrameHeader::read(rest) {
        section.extend_from_slice(&rest[HEADER_LEN..][..head.length]);
        rest = &rest[HEADER_LEN + head.length..];
    }
    let read = request::read_trailers(&section, &mut Decoder::new(0), usize::MAX);
    assert_eq!(read, Ok(Ok(headers)));
}
