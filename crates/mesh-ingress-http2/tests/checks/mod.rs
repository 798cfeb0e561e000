//! What must hold of any input. Used by the fuzz targets, and by `corpus.rs`, which replays what
//! they have found.

use http::HeaderMap;
use mesh_ingress_http2::frame::{HEAD, Head};
use mesh_ingress_http2::hpack::{Decoded, Decoder, Field};
use mesh_ingress_http2::request::{self, Refused};
use mesh_ingress_http2::response::Writer;

/// The limit to what is shown of a section.
const LIMIT: usize = 400;

/// Sections one behind the other, each with its length in front, read by decoders that see the same
/// and are asked differently.
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
        assert_eq!(read, Decoded::Whole);
        assert!(fields.starts_with(&few));
        assert_eq!(limited == Decoded::Whole, few.len() == fields.len());
        match request {
            Ok(head) => is_a_request(&head, &fields),
            Err(Refused::TooLarge) => assert_eq!(limited, Decoded::TooLarge),
            Err(_) => assert_eq!(limited, Decoded::Whole),
        }
        is_written_as_it_is(&fields);
    }
}

/// What is taken for a request has all of one, and nothing else.
fn is_a_request(head: &request::Head, fields: &[Field]) {
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
    // As it is told to others, it can be read again.
    let uri = request.uri().to_string();
    if request.method() != http::Method::CONNECT {
        assert!(uri.parse::<http::Uri>().is_ok(), "{uri}");
        assert!(request.uri().path_and_query().is_some());
    }
}

/// Fields come out as they went in.
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
    while let Some(head) = Head::read(rest) {
        section.extend_from_slice(&rest[HEAD..][..head.length]);
        rest = &rest[HEAD + head.length..];
    }
    let read = request::read_trailers(&section, &mut Decoder::new(0), usize::MAX);
    assert_eq!(read, Ok(Ok(headers)));
}
