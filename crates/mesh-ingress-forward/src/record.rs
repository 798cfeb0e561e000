//! What was sent on a connection of HTTP/1.1, to be sent once more.
//!
//! A kept connection may turn out to have been closed just when a request went out on it. To have
//! the request at hand then, the transport notes down the octets it is given: one copy of a few
//! hundred octets, where a copy of the head as it was would cost reference counts on every name
//! and value. In the rare case that it is needed, it is read back.

use std::io::IoSlice;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::body::RequestBody;

/// Room for it that is kept for the next request; longer ones are rare.
const KEPT: usize = 8 * 1024;

/// What the transport was given to send since the last request began.
#[derive(Debug, Default)]
pub(crate) struct Record {
    octets: Vec<u8>,
    /// How many of them the transport has taken.
    taken: usize,
}

impl Record {
    /// Another request begins.
    pub(crate) fn begin(&mut self) {
        self.octets.clear();
        self.octets.shrink_to(KEPT);
        self.taken = 0;
    }

    /// These are to be sent now. What was not taken before comes again.
    pub(crate) fn offer(&mut self, octets: &[u8]) {
        self.octets.truncate(self.taken);
        self.octets.extend_from_slice(octets);
    }

    /// The same for several pieces.
    pub(crate) fn offer_vectored(&mut self, pieces: &[IoSlice<'_>]) {
        self.octets.truncate(self.taken);
        for piece in pieces {
            self.octets.extend_from_slice(piece);
        }
    }

    /// So many of what was offered have been taken.
    pub(crate) fn take(&mut self, octets: usize) {
        self.taken += octets;
    }

    /// The request, which had no body.
    pub(crate) fn into_request(self) -> Option<Request<RequestBody>> {
        // As hyper writes it: `GET /path HTTP/1.1`, `name: value` …, an empty line.
        let octets = Bytes::from(self.octets);
        let mut lines = Lines(octets);
        let first = lines.next()?;
        let mut words = first.splitn(3, |&octet| octet == b' ');
        let method = Method::from_bytes(words.next()?).ok()?;
        let target = PathAndQuery::from_maybe_shared(first.slice_ref(words.next()?)).ok()?;
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(target);
        for line in &mut lines {
            if line.is_empty() {
                return lines.0.is_empty().then_some(request);
            }
            let colon = line.iter().position(|&octet| octet == b':')?;
            let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
            let value = line.get(colon + 1..)?.trim_ascii_start();
            let value = HeaderValue::from_maybe_shared(line.slice_ref(value)).ok()?;
            request.headers_mut().append(name, value);
        }
        None
    }
}

/// Lines that end with CRLF.
struct Lines(Bytes);

impl Iterator for Lines {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let end = self.0.windows(2).position(|pair| pair == b"\r\n")?;
        let line = self.0.split_to(end);
        let _ = self.0.split_to(2);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(pieces: &[&str]) -> Record {
        let mut record = Record::default();
        record.begin();
        for piece in pieces {
            record.offer(piece.as_bytes());
            record.take(piece.len());
        }
        record
    }

    #[test]
    fn what_was_sent_is_sent_again() {
        let mut record = recorded(&["GET /a%2Fb?c=d HTT"]);
        // Nothing of it was taken, and it is offered once more with what follows.
        record.offer(b"P/1.1\r\nhost: a.");
        let rest = "P/1.1\r\nhost: a.example\r\nx-two: 1\r\nx-two: 2: é\r\nx-empty: \r\n\r\n";
        let pieces: Vec<_> = rest.as_bytes().chunks(7).map(IoSlice::new).collect();
        record.offer_vectored(&pieces);
        record.take(rest.len());
        let request = record.into_request().unwrap();
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.uri(), "/a%2Fb?c=d");
        let headers = request.headers();
        assert_eq!(headers["host"], "a.example");
        let two: Vec<_> = headers.get_all("x-two").iter().collect();
        assert_eq!(two, ["1".as_bytes(), "2: é".as_bytes()]);
        assert_eq!(headers["x-empty"], "");
        assert_eq!(headers.len(), 4);
    }

    #[test]
    fn what_is_no_whole_head_is_no_request() {
        assert!(Record::default().into_request().is_none());
        let head = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        for end in 0..head.len() {
            assert!(recorded(&[&head[..end]]).into_request().is_none(), "{end}");
        }
        // A body is none of its business.
        assert!(recorded(&[head, "x"]).into_request().is_none());
    }

    #[test]
    fn another_request_begins_anew() {
        let mut record = recorded(&["HEAD /old HTTP/1.1\r\n"]);
        record.begin();
        record.offer(b"OPTIONS * HTTP/1.1\r\n\r\n");
        let request = record.into_request().unwrap();
        assert_eq!(
            (request.method(), request.uri().path()),
            (&Method::OPTIONS, "*")
        );
    }
}
