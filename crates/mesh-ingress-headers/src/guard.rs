//! Checks the bytes of a connection before a parser makes requests of them.
//!
//! A parser does not tell where it was lenient. Once hyper's server has made a `Request`, these are no
//! longer visible:
//!
//! * a `Content-Length`, or several equal ones, beside `Transfer-Encoding`;
//! * a fragment in the target;
//! * a bare LF at the end of a line, or of the trailers (`0\r\n\n`);
//! * chunk extensions, padded chunk sizes, and more than one empty line between requests.
//!
//! For each of these, two parties can see different requests in the same bytes (RFC 9112 §11.2). So
//! [`RequestGuard`] reads the bytes first, and is strict. It makes no messages, copies nothing and
//! allocates nothing: it accepts or refuses byte by byte, and the content of a body with a length
//! costs one subtraction per piece.
//!
//! | refused | source |
//! |---|---|
//! | a line that does not end in CRLF; a bare CR (RFC 9112 §2.2 allows a bare LF, this guard does not) | RFC 9112 §2.2 |
//! | more than one empty line before a request line | RFC 9112 §2.2 |
//! | a request line other than `method SP target SP HTTP/1.0` or `HTTP/1.1` | RFC 9112 §3 |
//! | a fragment in the target | RFC 9112 §3.2 |
//! | an empty field name, whitespace before the colon, a name that is no token | RFC 9112 §5.1 |
//! | obsolete line folding | RFC 9112 §5.2 |
//! | control characters in values | RFC 9110 §5.5 |
//! | `Transfer-Encoding` in HTTP/1.0, twice, or other than `chunked` | RFC 9112 §6.1 |
//! | `Transfer-Encoding` and `Content-Length` | RFC 9112 §6.1 |
//! | `Content-Length` twice, even if equal; signs, lists, leading zeros, more than 64 bits | RFC 9110 §8.6 |
//! | a chunk size that is empty, no plain hexadecimal number, or has more than 16 digits | RFC 9112 §7.1 |
//! | chunk extensions with control characters, or of more than 256 bytes per chunk | RFC 9112 §7.1.1 |
//! | data that is not followed by CRLF, trailers that do not end in an empty line | RFC 9112 §7.1 |
//!
//! The meaning of fields is checked by [`framing`](crate::framing) and
//! [`RequestHost`](crate::RequestHost); limits on sizes are left to the parser.

mod byte_class;
mod chunked;
mod fields;
mod head;
mod name_matcher;

use self::chunked::Chunked;
use self::fields::FieldSection;
use self::head::{Framing, Line};
use crate::{InvalidRequest, RequestRule};

/// Follows the bytes of an HTTP/1 connection from request to request, and refuses the first invalid one.
///
/// Use one per connection, from its first byte on. How the bytes are split into pieces does not
/// matter.
///
/// ```
/// use mesh_ingress_headers::guard::{Part, RequestGuard};
///
/// let mut guard = RequestGuard::new();
/// let good = b"POST /cart HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 5\r\n\r\nhello";
/// assert_eq!(guard.feed(good), Ok(good.len()));
///
/// let smuggled = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n";
/// let refused = guard.feed(smuggled).unwrap_err();
/// assert_eq!(refused.part(), Part::Head);
/// assert!(smuggled[..refused.valid_up_to()].ends_with(b"Content-Length"));
/// assert_eq!(
///     refused.to_string(),
///     "there are both Transfer-Encoding and Content-Length (RFC 9112 §6.1)",
/// );
/// ```
///
/// # Upgrades
///
/// The bytes after a request to upgrade belong to the new protocol or to the next request, depending
/// on the response. After such a request (`Upgrade` in HTTP/1.1, or `CONNECT`) the guard accepts no
/// bytes until it is told:
///
/// ```
/// # use mesh_ingress_headers::guard::RequestGuard;
/// let mut guard = RequestGuard::new();
/// let request = b"GET /chat HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
/// let bytes = [&request[..], b"\x81\x85 early"].concat();
/// assert_eq!(guard.feed(&bytes), Ok(request.len()));
/// assert!(guard.is_undecided());
///
/// // The response was a 101. For any other, call `guard.stayed()`.
/// guard.switched()?;
/// assert_eq!(guard.feed(b"\x81\x85 early"), Ok(8));
/// # Ok::<(), mesh_ingress_headers::guard::Refused>(())
/// ```
#[derive(Clone, Debug)]
pub struct RequestGuard {
    state: State,
    framing: Framing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Line(Line),
    FieldSection(FieldSection),
    /// In a body with this many bytes left.
    Length(u64),
    Chunked(Chunked),
    /// After a request to upgrade.
    Undecided,
    /// In the new protocol.
    Switched,
    Refused(Refused),
}

/// The part of a request that is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The request line or the fields: there is no request yet. Answer with 400 and close.
    Head,
    /// The body or the trailers: the request is already under way and has no valid end. Close both
    /// sides, so that no party takes it for complete.
    Content,
}

/// The guard refuses the stream, which must not be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", InvalidRequest::from(*.rule))]
pub struct Refused {
    rule: RequestRule,
    part: Part,
    valid_up_to: usize,
}

impl Refused {
    /// The broken rule.
    #[must_use]
    pub fn rule(&self) -> RequestRule {
        self.rule
    }

    /// The invalid part.
    #[must_use]
    pub fn part(&self) -> Part {
        self.part
    }

    /// The number of accepted bytes before the refused one.
    #[must_use]
    pub fn valid_up_to(&self) -> usize {
        self.valid_up_to
    }
}

impl From<Refused> for InvalidRequest {
    fn from(refused: Refused) -> Self {
        refused.rule.into()
    }
}

impl RequestGuard {
    /// A guard for a new connection.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Line(Line::NEW),
            framing: Framing::NEW,
        }
    }

    /// Reads on, and returns how many of the bytes are accepted: all of them, unless the guard
    /// [is undecided](Self::is_undecided) after a request to upgrade.
    ///
    /// # Errors
    /// When a byte breaks a rule. From then on every call fails.
    #[inline]
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (step, part) = match &mut self.state {
                State::Line(line) => (line.step(rest, &mut self.framing), Part::Head),
                State::FieldSection(fields) => {
                    (fields.step(rest, Some(&mut self.framing)), Part::Head)
                }
                State::Chunked(chunked) => (chunked.step(rest), Part::Content),
                State::Length(left) => {
                    let taken =
                        usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left -= taken as u64;
                    (Ok(taken), Part::Content)
                }
                State::Undecided => break,
                State::Switched => return Ok(bytes.len()),
                State::Refused(refused) => return Err(*refused),
            };
            match step {
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err((taken, rule)) => {
                    let refused = Refused {
                        rule,
                        part,
                        valid_up_to: 0,
                    };
                    self.state = State::Refused(refused);
                    return Err(Refused {
                        valid_up_to: bytes.len() - rest.len() + taken,
                        ..refused
                    });
                }
            }
            self.advance();
        }
        Ok(bytes.len() - rest.len())
    }

    /// Moves from one part of a request to the next.
    #[inline]
    fn advance(&mut self) {
        match self.state {
            State::Line(Line::Done) => self.state = State::FieldSection(FieldSection::NEW),
            State::FieldSection(FieldSection::Done) => match self.framing.length {
                _ if self.framing.chunked => self.state = State::Chunked(Chunked::NEW),
                Some(length @ 1..) => self.state = State::Length(length),
                _ => self.end(),
            },
            State::Length(0) => self.end(),
            State::Chunked(chunked) if chunked.is_done() => self.end(),
            _ => {}
        }
    }

    fn end(&mut self) {
        // HTTP/1.0 has no Upgrade (RFC 9110 §7.8).
        let undecided = self.framing.connect || self.framing.upgrade && !self.framing.http10;
        self.state = match undecided {
            true => State::Undecided,
            false => State::Line(Line::NEW),
        };
        self.framing = Framing::NEW;
    }

    /// Whether no byte of a next request has come, except an empty line: the client may close the
    /// connection here.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Line(Line::Before { .. } | Line::EmptyLf))
    }

    /// Whether the last request asked to upgrade and awaits its response.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.state == State::Undecided
    }

    /// The response was a 101: all further bytes are accepted.
    ///
    /// # Errors
    /// When the guard is not [undecided](Self::is_undecided): the answered request is not complete, and
    /// its rest would be taken for the new protocol.
    pub fn switched(&mut self) -> Result<(), Refused> {
        match self.state {
            State::Undecided => {
                self.state = State::Switched;
                Ok(())
            }
            State::Refused(refused) => Err(refused),
            _ => {
                let refused = Refused {
                    rule: RequestRule::SwitchedTooEarly,
                    part: Part::Content,
                    valid_up_to: 0,
                };
                self.state = State::Refused(refused);
                Err(refused)
            }
        }
    }

    /// The protocol stays HTTP/1: the next request follows. Does nothing unless the guard is
    /// [undecided](Self::is_undecided).
    pub fn stayed(&mut self) {
        if self.is_undecided() {
            self.state = State::Line(Line::NEW);
        }
    }
}

impl Default for RequestGuard {
    fn default() -> Self {
        Self::new()
    }
}
