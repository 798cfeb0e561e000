//! Requests as they come over a connection, before a parser makes messages of them.
//!
//! A parser hands over what it has understood, and keeps to itself what it was lenient about. Of
//! hyper's server side one cannot see any more, once there is a `Request`:
//!
//! * that a request with `Transfer-Encoding` had a `Content-Length`, too, or several equal ones;
//! * that the target had a fragment;
//! * that lines, or the last line of the trailers (`0\r\n\n`), ended in a bare LF;
//! * that a chunk had extensions, its size was padded, or there were more empty lines between
//!   requests than one.
//!
//! Each of these is a place where two parties that read the same bytes can see different requests
//! (RFC 9112 §11.2). So [`RequestGuard`] reads the bytes first, and refuses them strictly. It
//! makes no messages, copies nothing and allocates nothing: it knows at each byte whether that is
//! a good one, and the rest of an announced body costs it one subtraction.
//!
//! | refused | source |
//! |---|---|
//! | a line that does not end in CRLF; a bare CR (RFC 9112 §2.2 allows to accept a bare LF, we do not) | RFC 9112 §2.2 |
//! | more than one empty line before a request line | RFC 9112 §2.2 |
//! | a request line other than `method SP target SP HTTP/1.0` or `HTTP/1.1` | RFC 9112 §3 |
//! | a fragment in the target | RFC 9112 §3.2 |
//! | an empty field name, white space before the colon, a name that is no token | RFC 9112 §5.1 |
//! | obsolete line folding | RFC 9112 §5.2 |
//! | control bytes in values | RFC 9110 §5.5 |
//! | `Transfer-Encoding` in HTTP/1.0, twice, or other than `chunked` | RFC 9112 §6.1 |
//! | `Transfer-Encoding` and `Content-Length` | RFC 9112 §6.1 |
//! | `Content-Length` twice, even if equal; signs, lists, leading zeros, more than 64 bits | RFC 9110 §8.6 |
//! | a chunk size that is empty, no plain hexadecimal number, or has more than 16 digits | RFC 9112 §7.1 |
//! | chunk extensions with control bytes, or of more than 256 bytes a chunk | RFC 9112 §7.1.1 |
//! | data that is not followed by CRLF, trailers that do not end in an empty line | RFC 9112 §7.1 |
//!
//! What a message says is left to [`framing`](crate::framing) and [`RequestHost`](crate::RequestHost),
//! which also say what its fields may be; how much of it there may be is left to the parser.

mod byte_class;
mod chunked;
mod fields;
mod head;
mod name_matcher;

use self::chunked::Chunked;
use self::fields::FieldSection;
use self::head::{Framing, Line};
use crate::{InvalidRequest, RequestRule};

/// Follows the bytes of an HTTP/1 connection from request to request, and tells the first that is
/// not to be read as part of one.
///
/// One a connection, from its first byte on. What comes in what pieces makes no difference.
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
/// assert!(smuggled[..refused.good()].ends_with(b"Content-Length"));
/// assert_eq!(
///     refused.to_string(),
///     "there are both Transfer-Encoding and Content-Length (RFC 9112 §6.1)",
/// );
/// ```
///
/// # Upgrades
///
/// What follows a request that asks for another protocol is of that protocol or the next request,
/// which nobody knows before it is answered. After such a request (`Upgrade` in HTTP/1.1, or
/// `CONNECT`) the guard takes nothing more until it is told:
///
/// ```
/// # use mesh_ingress_headers::guard::RequestGuard;
/// let mut guard = RequestGuard::new();
/// let request = b"GET /chat HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
/// let bytes = [&request[..], b"\x81\x85 early"].concat();
/// assert_eq!(guard.feed(&bytes), Ok(request.len()));
/// assert!(guard.is_undecided());
///
/// // Answered with 101. All else would be `guard.stayed()`.
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
    /// In a body of which so much is to come.
    Length(u64),
    Chunked(Chunked),
    /// Behind a request that asks for another protocol.
    Undecided,
    /// In that other protocol.
    Switched,
    Refused(Refused),
}

/// What part of a request is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Its request line or its fields: there is no request. Answer with 400 and close.
    Head,
    /// Its body or its trailers: there is a request already, and it has no end. It must be cut off
    /// on both sides, so that nobody takes it for whole.
    Content,
}

/// The request stream is not to be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", InvalidRequest::from(*.rule))]
pub struct Refused {
    rule: RequestRule,
    part: Part,
    good: usize,
}

impl Refused {
    /// The rule that is broken.
    #[must_use]
    pub fn rule(&self) -> RequestRule {
        self.rule
    }

    /// Where the request is broken.
    #[must_use]
    pub fn part(&self) -> Part {
        self.part
    }

    /// How many of the bytes were good, before the one that is refused.
    #[must_use]
    pub fn good(&self) -> usize {
        self.good
    }
}

impl From<Refused> for InvalidRequest {
    fn from(refused: Refused) -> Self {
        refused.rule.into()
    }
}

impl RequestGuard {
    /// For a connection that has just begun.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Line(Line::NEW),
            framing: Framing::NEW,
        }
    }

    /// Reads on, and tells how many of the bytes are good: all of them, unless the guard
    /// [is undecided](Self::is_undecided) about what follows a request to change the protocol.
    ///
    /// # Errors
    /// When a byte breaks a rule. From then on nothing is good.
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
                        good: 0,
                    };
                    self.state = State::Refused(refused);
                    return Err(Refused {
                        good: bytes.len() - rest.len() + taken,
                        ..refused
                    });
                }
            }
            self.advance();
        }
        Ok(bytes.len() - rest.len())
    }

    /// From one part of a request to the next.
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
        // In HTTP/1.0 there is no Upgrade (RFC 9110 §7.8).
        let undecided = self.framing.connect || self.framing.upgrade && !self.framing.http10;
        self.state = match undecided {
            true => State::Undecided,
            false => State::Line(Line::NEW),
        };
        self.framing = Framing::NEW;
    }

    /// Whether nothing of a next request has come, but an empty line perhaps: a connection that
    /// ends here has been ended well.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Line(Line::Before { .. } | Line::EmptyLf))
    }

    /// Whether a request has been read that asks for another protocol, so that nobody knows yet
    /// what follows.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.state == State::Undecided
    }

    /// The protocol has been changed: all that follows is good.
    ///
    /// # Errors
    /// When the guard is not [undecided](Self::is_undecided): the request that was answered is not
    /// complete, and the rest of it would be taken for the other protocol.
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
                    good: 0,
                };
                self.state = State::Refused(refused);
                Err(refused)
            }
        }
    }

    /// The protocol has not been changed: what follows is the next request. Does nothing unless
    /// the guard is [undecided](Self::is_undecided).
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
