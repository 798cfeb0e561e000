//! Classes of bytes, and the lengths of runs of one class.

/// A class of bytes.
pub(super) type Class = [bool; 256];

/// `tchar` (RFC 9110 §5.6.2): the characters of methods and field names.
pub(super) static TOKEN: Class = token();

/// The characters of a request target: no whitespace, no control character, and no `#`, which begins a
/// fragment. A URI has no bytes above 0x7F, but clients send them, and they are not ambiguous.
pub(super) static TARGET: Class = target();

const fn token() -> Class {
    let mut class = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = matches!(
            byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
                | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'
                | b'_' | b'`' | b'|' | b'~'
        );
        byte += 1;
    }
    class
}

const fn target() -> Class {
    let mut class = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = byte > 0x20 && byte != 0x7f && byte != b'#' as usize;
        byte += 1;
    }
    class
}

/// The length of the run of a class at the start.
#[inline]
pub(super) fn run(bytes: &[u8], class: &Class) -> usize {
    bytes
        .iter()
        .position(|&byte| !class[usize::from(byte)])
        .unwrap_or(bytes.len())
}

/// The length of the run of field value characters at the start: HTAB, SP, and all that are no control
/// characters (RFC 9110 §5.5).
#[inline]
pub(super) fn text(bytes: &[u8]) -> usize {
    let mut length = 0;
    loop {
        length += non_control(bytes.get(length..).unwrap_or_default());
        match bytes.get(length) {
            Some(b'\t') => length += 1,
            _ => return length,
        }
    }
}

/// The length of the run of bytes that are no control characters, eight at a time.
#[inline]
fn non_control(bytes: &[u8]) -> usize {
    const EACH: u64 = u64::MAX / 0xff;
    let (words, tail) = bytes.as_chunks();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The high bit of each byte below 0x20, and of each 0x7F. A borrow goes upward only, so the
        // lowest mark is right.
        let below = word.wrapping_sub(EACH * 0x20) & !word;
        let delete = word ^ (EACH * 0x7f);
        let delete = delete.wrapping_sub(EACH) & !delete;
        let marked = (below | delete) & (EACH * 0x80);
        if marked != 0 {
            return at * 8 + marked.trailing_zeros() as usize / 8;
        }
    }
    let control = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
    bytes.len() - tail.len() + tail.iter().position(control).unwrap_or(tail.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ends_at_the_first_byte_of_another_class() {
        for length in 0..40 {
            for byte in 0..=255_u8 {
                for fill in [b'a', b'~', 0x80, 0xff] {
                    let mut bytes = vec![fill; length + 20];
                    bytes[length] = byte;
                    let plain = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
                    let expected = if plain { bytes.len() } else { length };
                    assert_eq!(text(&bytes), expected, "{byte:#x} at {length}");
                    // A marked byte after another.
                    bytes[length + 1] = 0x7f;
                    let expected = if plain { length + 1 } else { length };
                    assert_eq!(text(&bytes), expected, "{byte:#x} at {length}");
                }
            }
        }
        assert_eq!(text(b"\t\ta\t\n"), 4);
        assert_eq!(run(b"Content-Length:", &TOKEN), 14);
        assert_eq!(run(b"/a?b#c", &TARGET), 4);
        assert_eq!(run(b"", &TARGET), 0);
    }

    #[test]
    fn byte_classes_match_those_of_the_http_crate() {
        for byte in 0..=255_u8 {
            let name = http::HeaderName::from_bytes(&[byte]).is_ok();
            assert_eq!(TOKEN[usize::from(byte)], name, "{byte:#x}");
            let method = http::Method::from_bytes(&[byte]).is_ok();
            assert_eq!(TOKEN[usize::from(byte)], method, "{byte:#x}");
        }
        assert_eq!(TARGET.iter().filter(|in_it| !**in_it).count(), 0x21 + 2);
    }
}
