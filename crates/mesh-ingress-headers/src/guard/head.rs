//! The request line: byte by byte where it matters, in runs elsewhere.

use super::byte_class::{self, TARGET, TOKEN};
use super::name_matcher::NameMatcher;
use crate::RequestRule;

/// The number of bytes consumed, or of accepted bytes before the refused one and the broken rule.
pub(super) type StepResult = Result<usize, (usize, RequestRule)>;

/// The parts of a head that decide where its request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    pub(super) connect: bool,
    pub(super) http10: bool,
    pub(super) upgrade: bool,
    pub(super) chunked: bool,
    pub(super) length: Option<u64>,
}

impl Framing {
    pub(super) const NEW: Self = Self {
        connect: false,
        http10: false,
        upgrade: false,
        chunked: false,
        length: None,
    };

    /// Whether the head has not announced a body yet.
    pub(super) fn takes_length(&self) -> bool {
        self.length.is_none() && !self.chunked
    }
}

/// The position of the next byte in a request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Before it, and whether an empty line has been skipped.
    Before {
        empty: bool,
    },
    /// In that empty line, before its LF.
    EmptyLf,
    Method(NameMatcher<()>),
    Target {
        empty: bool,
    },
    /// In the version, after this many bytes of it.
    Version(usize),
    Cr,
    Lf,
    Done,
}

impl Line {
    pub(super) const NEW: Self = Self::Before { empty: false };

    #[inline]
    pub(super) fn step(&mut self, bytes: &[u8], framing: &mut Framing) -> StepResult {
        static CONNECT: [((), &[u8]); 1] = [((), b"CONNECT")];
        const VERSION: &[u8] = b"HTTP/1.";

        let Some(&first) = bytes.first() else {
            return Ok(0);
        };
        if let Self::Before { .. } = self
            && let Some((length, connect)) = complete_line(bytes)
        {
            framing.connect = connect;
            *self = Self::Done;
            return Ok(length);
        }
        match self {
            // RFC 9112 §2.2: at least one empty line is to be skipped; the guard skips exactly one.
            Self::Before { empty } => match first {
                b'\r' if !*empty => {
                    *self = Self::EmptyLf;
                    Ok(1)
                }
                b'\n' => Err((0, RequestRule::LineEnd)),
                _ => {
                    *self = Self::Method(NameMatcher::NEW);
                    self.step(bytes, framing)
                }
            },
            Self::EmptyLf => match first {
                b'\n' => {
                    *self = Self::Before { empty: true };
                    Ok(1)
                }
                _ => Err((0, RequestRule::LineEnd)),
            },
            Self::Method(method) => {
                let length = byte_class::run(bytes, &TOKEN);
                let (piece, rest) = bytes.split_at(length);
                method.push_exact(piece, &CONNECT);
                match rest.first() {
                    None => Ok(length),
                    Some(b' ') if !method.is_empty() => {
                        framing.connect = method.get().is_some();
                        *self = Self::Target { empty: true };
                        Ok(length + 1)
                    }
                    Some(_) => Err((length, RequestRule::RequestLine)),
                }
            }
            Self::Target { empty } => {
                let length = byte_class::run(bytes, &TARGET);
                *empty &= length == 0;
                match bytes.get(length) {
                    None => Ok(length),
                    Some(b' ') if !*empty => {
                        *self = Self::Version(0);
                        Ok(length + 1)
                    }
                    Some(b'#') => Err((length, RequestRule::Fragment)),
                    Some(_) => Err((length, RequestRule::RequestLine)),
                }
            }
            Self::Version(known) => {
                match VERSION.get(*known) {
                    Some(&expected) if first == expected => *known += 1,
                    None if first == b'1' || first == b'0' => {
                        framing.http10 = first == b'0';
                        *self = Self::Cr;
                    }
                    _ => return Err((0, RequestRule::Version)),
                }
                Ok(1)
            }
            Self::Cr => match first {
                b'\r' => {
                    *self = Self::Lf;
                    Ok(1)
                }
                b'\n' => Err((0, RequestRule::LineEnd)),
                _ => Err((0, RequestRule::RequestLine)),
            },
            Self::Lf => match first {
                b'\n' => {
                    *self = Self::Done;
                    Ok(1)
                }
                _ => Err((0, RequestRule::LineEnd)),
            },
            Self::Done => Ok(0),
        }
    }
}

/// The length of a complete HTTP/1.1 request line at the start, and whether its method is `CONNECT`.
/// `None` leaves the line to the state machine, which also finds errors.
#[inline]
fn complete_line(bytes: &[u8]) -> Option<(usize, bool)> {
    const END: &[u8] = b" HTTP/1.1\r\n";

    let method = byte_class::run(bytes, &TOKEN);
    let target = bytes.get(method + 1..)?;
    let length = byte_class::run(target, &TARGET);
    let whole = method > 0
        && bytes.get(method) == Some(&b' ')
        && length > 0
        && target.get(length..)?.starts_with(END);
    whole.then(|| {
        (
            method + 1 + length + END.len(),
            bytes.starts_with(b"CONNECT "),
        )
    })
}
