//! `X-Request-ID` in the form that meshes expect.

use std::fmt::{self, Write as _};

use http::header::{HeaderMap, HeaderValue};

use crate::HeaderPresence;
use crate::header_presence::FieldSet;
use crate::names::X_REQUEST_ID;

/// How `X-Request-ID` is treated.
///
/// Envoy, and so Istio, reads it as a UUID and keeps its sampling decision in it: the first digit
/// of the third group is `4` in a fresh one, and `9`, `a` or `b` in one whose request is traced.
/// ingress-nginx sent 32 digits without dashes there, and traces were never sampled.
///
/// The id of a trusted peer is kept, and a missing one is generated; the policies differ in how they
/// treat the id of an untrusted peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestIdPolicy {
    /// Kept if it is one UUID of version 4, so that a client can find its request again; replaced
    /// otherwise. A version-4 UUID carries no sampling decision: a client cannot have itself
    /// traced.
    #[default]
    KeepUuid,
    /// Replaced, always.
    Fresh,
    /// Kept, in any form.
    Keep,
    /// Not touched, and not generated.
    Ignore,
}

/// A generated request id: a UUID of version 4 (RFC 9562 §5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct RequestId([u64; 2]);

impl RequestId {
    /// A random id. It need not be unpredictable: an id is no secret.
    fn random() -> Self {
        Self([fastrand::u64(..), fastrand::u64(..)])
    }

    /// In its canonical form.
    pub(crate) fn text(self) -> [u8; 36] {
        let [high, low] = self.0;
        uuid_v4(u128::from(high) << 64 | u128::from(low))
    }

    /// Sets `X-Request-ID`.
    pub fn insert_into(self, headers: &mut HeaderMap) {
        // 36 digits and dashes are always a value.
        if let Ok(id) = HeaderValue::from_bytes(&self.text()) {
            headers.insert(&X_REQUEST_ID, id);
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text()
            .iter()
            .try_for_each(|byte| f.write_char(char::from(*byte)))
    }
}

impl RequestIdPolicy {
    /// Removes an id that the policy does not keep, and returns the generated one that replaces it or
    /// a missing one; `None` if the request keeps its id.
    pub(super) fn replace(
        self,
        headers: &mut HeaderMap,
        presence: &HeaderPresence,
        trusted: bool,
    ) -> Option<RequestId> {
        if self == Self::Ignore {
            return None;
        }
        if presence.has(FieldSet::X_REQUEST_ID) {
            if self.keeps(headers, trusted) {
                return None;
            }
            headers.remove(&X_REQUEST_ID);
        }
        Some(RequestId::random())
    }

    fn keeps(self, headers: &HeaderMap, trusted: bool) -> bool {
        let mut lines = headers.get_all(&X_REQUEST_ID).iter();
        match (lines.next(), self) {
            (_, Self::Ignore) => true,
            (None, _) => false,
            (Some(_), Self::Keep) => true,
            (Some(_), _) if trusted => true,
            (Some(id), Self::KeepUuid) => lines.next().is_none() && is_uuid_v4(id.as_bytes()),
            (Some(_), Self::Fresh) => false,
        }
    }
}

/// The positions of the dashes between groups of 8, 4, 4, 4 and 12 digits.
const DASHES: [usize; 4] = [8, 13, 18, 23];

/// RFC 9562 §5.4.
fn uuid_v4(random: u128) -> [u8; 36] {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let bits = random & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62;
    let mut text = [b'-'; 36];
    let (first, second) = (hex((bits >> 96) as u32), hex((bits >> 64) as u32));
    let (third, fourth) = (hex((bits >> 32) as u32), hex(bits as u32));
    text[..8].copy_from_slice(&first);
    text[9..13].copy_from_slice(&second[..4]);
    text[14..18].copy_from_slice(&second[4..]);
    text[19..23].copy_from_slice(&third[..4]);
    text[24..28].copy_from_slice(&third[4..]);
    text[28..].copy_from_slice(&fourth);
    text
}

/// Eight digits at a time: each half byte to a byte of its own, then to its digit.
fn hex(number: u32) -> [u8; 8] {
    const EACH: u64 = u64::MAX / 0xff;
    let mut digits = u64::from(number);
    digits = (digits & 0xffff_0000) << 16 | digits & 0xffff;
    digits = (digits << 8 | digits) & 0x00ff_00ff_00ff_00ff;
    digits = (digits << 4 | digits) & 0x0f0f_0f0f_0f0f_0f0f;
    // `a` is 39 more than the byte after `9`.
    let letters = (digits + EACH * 6) >> 4 & EACH;
    (digits + EACH * u64::from(b'0') + letters * 39).to_be_bytes()
}

/// A UUID of version 4 in its canonical form, in any case.
fn is_uuid_v4(text: &[u8]) -> bool {
    text.len() == 36
        && text
            .iter()
            .enumerate()
            .all(|(position, byte)| match position {
                14 => *byte == b'4',
                19 => matches!(byte, b'8' | b'9' | b'a' | b'b' | b'A' | b'B'),
                _ if DASHES.contains(&position) => *byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9562_5_4_layout() {
        assert_eq!(&uuid_v4(0), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(&uuid_v4(u128::MAX), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(
            &uuid_v4(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            b"01234567-89ab-4def-8123-456789abcdef"
        );
        assert_ne!(uuid_v4(fastrand::u128(..)), uuid_v4(fastrand::u128(..)));
    }

    #[test]
    fn only_uuids_of_version_4_are_kept() {
        for good in [
            "01234567-89ab-4def-8123-456789abcdef",
            "01234567-89AB-4DEF-B123-456789ABCDEF",
        ] {
            assert!(is_uuid_v4(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "1",
            "0123456789ab4def8123456789abcdef",
            // Envoy's marks for "traced", forced by a client, by a server, by sampling.
            "01234567-89ab-bdef-8123-456789abcdef",
            "01234567-89ab-adef-8123-456789abcdef",
            "01234567-89ab-9def-8123-456789abcdef",
            "01234567-89ab-1def-8123-456789abcdef",
            "01234567-89ab-4def-7123-456789abcdef",
            "01234567-89ab-4def-8123-456789abcdeg",
            "01234567-89ab-4def-8123-456789abcdef0",
            "01234567_89ab_4def_8123_456789abcdef",
            "{1234567-89ab-4def-8123-456789abcde}",
        ] {
            assert!(!is_uuid_v4(bad.as_bytes()), "{bad}");
        }
    }
}
