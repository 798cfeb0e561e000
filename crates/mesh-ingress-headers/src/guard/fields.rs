//! A section of fields: the headers or, after a chunked body, the trailers.

use super::byte_class::{self, TOKEN};
use super::head::{Framing, StepResult};
use super::name_matcher::NameMatcher;
use crate::RequestRule;

/// The fields that decide where a request ends and what may follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    TransferEncoding,
    ContentLength,
    Upgrade,
}

static FIELDS: [(Field, &[u8]); 3] = [
    (Field::TransferEncoding, b"transfer-encoding"),
    (Field::ContentLength, b"content-length"),
    (Field::Upgrade, b"upgrade"),
];

const CHUNKED: &[u8] = b"chunked";

/// The position of the next byte in a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldSection {
    /// At the beginning of a line.
    Line,
    Name(NameMatcher<Field>),
    /// In a value without a meaning for framing.
    Value,
    /// In the value of `Transfer-Encoding`.
    Coding(Coding),
    /// In the value of `Content-Length`.
    Length(Length),
    Lf,
    /// In the empty line that ends the section, before its LF.
    LastLf,
    Done,
}

/// `OWS "chunked" OWS`, and how many bytes of `chunked` have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Word(usize),
    After,
}

/// `OWS`, a number without leading zeros, `OWS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Before,
    Digits(u64),
    After(u64),
}

impl FieldSection {
    pub(super) const NEW: Self = Self::Line;

    /// `framing` is `None` for trailers, which have no influence on framing.
    #[inline]
    pub(super) fn step(&mut self, bytes: &[u8], framing: Option<&mut Framing>) -> StepResult {
        let Some(&first) = bytes.first() else {
            return Ok(0);
        };
        match self {
            Self::Line => match first {
                b'\r' => match bytes.get(1) {
                    Some(b'\n') => {
                        *self = Self::Done;
                        Ok(2)
                    }
                    _ => {
                        *self = Self::LastLf;
                        Ok(1)
                    }
                },
                b'\n' => Err((0, RequestRule::LineEnd)),
                b' ' | b'\t' => Err((0, RequestRule::LineFolding)),
                _ => match (ordinary(bytes), framing) {
                    (0, Some(framing)) => match framing.takes_length().then(|| whole_length(bytes))
                    {
                        Some(Some((taken, length))) => {
                            framing.length = Some(length);
                            Ok(taken)
                        }
                        _ => self.parse_name(bytes, Some(framing)),
                    },
                    (0, None) => self.parse_name(bytes, None),
                    (length, _) => Ok(length),
                },
            },
            Self::Name(name) => {
                let length = byte_class::run(bytes, &TOKEN);
                let (piece, rest) = bytes.split_at(length);
                name.push(piece, &FIELDS);
                match rest.first() {
                    None => Ok(length),
                    Some(b':') if !name.is_empty() => {
                        let field = name.get().zip(framing);
                        *self = match field {
                            None => Self::Value,
                            Some((field, framing)) => {
                                Self::of(field, framing).map_err(|rule| (length, rule))?
                            }
                        };
                        Ok(length + 1)
                    }
                    Some(_) => Err((length, RequestRule::FieldName)),
                }
            }
            Self::Value => {
                let length = byte_class::text(bytes);
                match bytes.get(length) {
                    None => Ok(length),
                    Some(b'\r') => {
                        *self = Self::Lf;
                        Ok(length + 1)
                    }
                    Some(b'\n') => Err((length, RequestRule::LineEnd)),
                    Some(_) => Err((length, RequestRule::FieldValue)),
                }
            }
            Self::Coding(coding) => {
                if coding.ends_at(first).map_err(|rule| (0, rule))? {
                    *self = Self::Lf;
                }
                Ok(1)
            }
            Self::Length(length) => {
                if let Some(length) = length.ends_at(first).map_err(|rule| (0, rule))? {
                    if let Some(framing) = framing {
                        framing.length = Some(length);
                    }
                    *self = Self::Lf;
                }
                Ok(1)
            }
            Self::Lf | Self::LastLf if first != b'\n' => Err((0, RequestRule::LineEnd)),
            Self::Lf => {
                *self = Self::Line;
                Ok(1)
            }
            Self::LastLf => {
                *self = Self::Done;
                Ok(1)
            }
            Self::Done => Ok(0),
        }
    }

    fn parse_name(&mut self, bytes: &[u8], framing: Option<&mut Framing>) -> StepResult {
        *self = Self::Name(NameMatcher::NEW);
        self.step(bytes, framing)
    }

    /// The state for the value of a field with a meaning for framing.
    fn of(field: Field, framing: &mut Framing) -> Result<Self, RequestRule> {
        match field {
            Field::Upgrade => {
                framing.upgrade = true;
                Ok(Self::Value)
            }
            Field::TransferEncoding if framing.http10 => Err(RequestRule::TransferEncodingInHttp10),
            Field::TransferEncoding if framing.chunked => Err(RequestRule::TransferEncoding),
            Field::ContentLength if framing.length.is_some() => {
                Err(RequestRule::ContentLengthRepeated)
            }
            Field::TransferEncoding if framing.length.is_some() => {
                Err(RequestRule::TransferEncodingAndContentLength)
            }
            Field::ContentLength if framing.chunked => {
                Err(RequestRule::TransferEncodingAndContentLength)
            }
            Field::TransferEncoding => {
                framing.chunked = true;
                Ok(Self::Coding(Coding::Word(0)))
            }
            Field::ContentLength => Ok(Self::Length(Length::Before)),
        }
    }
}

/// The length of the complete field lines without a meaning for framing, checked as a whole. At the
/// first other line the state machine takes over, which also finds errors.
#[inline]
fn ordinary(bytes: &[u8]) -> usize {
    let mut length = 0;
    loop {
        let line = bytes.get(length..).unwrap_or_default();
        let name = byte_class::run(line, &TOKEN);
        let Some((b':', value)) = line.get(name..).and_then(<[u8]>::split_first) else {
            return length;
        };
        let listed = || {
            let name = line.get(..name).unwrap_or_default();
            FIELDS
                .iter()
                .any(|(_, field)| name.eq_ignore_ascii_case(field))
        };
        let end = byte_class::text(value);
        let ends = value.get(end..).is_some_and(|end| end.starts_with(b"\r\n"));
        if name == 0 || !ends || matches!(name, 7 | 14 | 17) && listed() {
            return length;
        }
        length += name + 1 + end + 2;
    }
}

/// The length of the first line, if it is a complete and ordinary `Content-Length`, and its value.
/// `None` leaves the line to the state machine, which also finds errors.
fn whole_length(bytes: &[u8]) -> Option<(usize, u64)> {
    const NAME: &[u8] = b"content-length:";
    /// More digits might exceed 64 bits.
    const DIGITS: usize = 19;

    let (name, value) = bytes.split_at_checked(NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let number = value.trim_ascii_start();
    let digits = number.iter().take_while(|digit| digit.is_ascii_digit());
    let digits = digits.count();
    let (number, end) = number.split_at_checked(digits)?;
    let space = value.len() - number.len() - end.len();
    let plain = value
        .get(..space)?
        .iter()
        .all(|o| matches!(o, b' ' | b'\t'))
        && matches!(digits, 1..=DIGITS)
        && (digits == 1 || number.first() != Some(&b'0'))
        && end.starts_with(b"\r\n");
    plain.then(|| {
        let more = |length: u64, digit: &u8| length * 10 + u64::from(digit - b'0');
        let length = number.iter().fold(0, more);
        (NAME.len() + space + digits + 2, length)
    })
}

impl Coding {
    /// Whether this byte is the CR after the value.
    fn ends_at(&mut self, byte: u8) -> Result<bool, RequestRule> {
        let known = match self {
            Self::Word(known) => *known,
            Self::After => CHUNKED.len(),
        };
        *self = match byte {
            b' ' | b'\t' if known == 0 => return Ok(false),
            b' ' | b'\t' if known == CHUNKED.len() => Self::After,
            b'\r' if known == CHUNKED.len() => return Ok(true),
            b'\n' if known == CHUNKED.len() => return Err(RequestRule::LineEnd),
            _ if CHUNKED.get(known) == Some(&byte.to_ascii_lowercase()) => Self::Word(known + 1),
            _ => return Err(RequestRule::TransferEncoding),
        };
        Ok(false)
    }
}

impl Length {
    /// The number, if this byte is the CR after it.
    fn ends_at(&mut self, byte: u8) -> Result<Option<u64>, RequestRule> {
        *self = match (*self, byte) {
            (Self::Before, b' ' | b'\t') => Self::Before,
            (Self::Before, b'0'..=b'9') => Self::Digits(u64::from(byte - b'0')),
            // No leading zeros: no digit follows a first 0.
            (Self::Digits(1..), b'0'..=b'9') => Self::Digits(self.times_ten(byte)?),
            (Self::Digits(length) | Self::After(length), b' ' | b'\t') => Self::After(length),
            (Self::Digits(length) | Self::After(length), b'\r') => return Ok(Some(length)),
            (Self::Digits(_) | Self::After(_), b'\n') => return Err(RequestRule::LineEnd),
            _ => return Err(RequestRule::ContentLength),
        };
        Ok(None)
    }

    fn times_ten(self, digit: u8) -> Result<u64, RequestRule> {
        let Self::Digits(length) = self else {
            return Err(RequestRule::ContentLength);
        };
        let tens = length.checked_mul(10);
        tens.and_then(|tens| tens.checked_add(u64::from(digit - b'0')))
            .ok_or(RequestRule::ContentLength)
    }
}
