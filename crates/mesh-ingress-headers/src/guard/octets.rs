//! Classes of octets, and how far a run of one class goes.

/// A class of octets.
pub(super) type Class = [bool; 256];

/// `tchar` (RFC 9110 §5.6.2): what methods and field names are made of.
pub(super) static TOKEN: Class = token();

/// What a request target is made of: no white space, no control octet, and no `#`, which begins a
/// fragment. Octets above 0x7F have no place in a URI, but they are sent, and have one meaning.
pub(super) static TARGET: Class = target();

const fn token() -> Class {
    let mut class = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        class[octet] = matches!(
            octet as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
                | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'
                | b'_' | b'`' | b'|' | b'~'
        );
        octet += 1;
    }
    class
}

const fn target() -> Class {
    let mut class = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        class[octet] = octet > 0x20 && octet != 0x7f && octet != b'#' as usize;
        octet += 1;
    }
    class
}

/// How many octets from the first on are of a class.
#[inline]
pub(super) fn run(octets: &[u8], class: &Class) -> usize {
    octets
        .iter()
        .position(|&octet| !class[usize::from(octet)])
        .unwrap_or(octets.len())
}

/// How many octets from the first on may be in a field value: HTAB, SP, and all that is not a
/// control octet (RFC 9110 §5.5).
#[inline]
pub(super) fn text(octets: &[u8]) -> usize {
    let mut length = 0;
    loop {
        length += printed(octets.get(length..).unwrap_or_default());
        match octets.get(length) {
            Some(b'\t') => length += 1,
            _ => return length,
        }
    }
}

/// How many octets from the first on are no control octets, eight at a time.
#[inline]
fn printed(octets: &[u8]) -> usize {
    const EACH: u64 = u64::MAX / 0xff;
    let (words, tail) = octets.as_chunks();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The high bit of each octet below 0x20, and of each that is 0x7F. A borrow goes upward
        // only, so the lowest octet that is marked is marked rightly.
        let below = word.wrapping_sub(EACH * 0x20) & !word;
        let delete = word ^ (EACH * 0x7f);
        let delete = delete.wrapping_sub(EACH) & !delete;
        let marked = (below | delete) & (EACH * 0x80);
        if marked != 0 {
            return at * 8 + marked.trailing_zeros() as usize / 8;
        }
    }
    let control = |octet: &u8| *octet < 0x20 || *octet == 0x7f;
    octets.len() - tail.len() + tail.iter().position(control).unwrap_or(tail.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_at_the_first_octet_of_another_class() {
        for length in 0..40 {
            for octet in 0..=255_u8 {
                for fill in [b'a', b'~', 0x80, 0xff] {
                    let mut octets = vec![fill; length + 20];
                    octets[length] = octet;
                    let plain = matches!(octet, b'\t' | b' '..=b'~' | 0x80..);
                    let expected = if plain { octets.len() } else { length };
                    assert_eq!(text(&octets), expected, "{octet:#x} at {length}");
                    // One octet behind another that is marked.
                    octets[length + 1] = 0x7f;
                    let expected = if plain { length + 1 } else { length };
                    assert_eq!(text(&octets), expected, "{octet:#x} at {length}");
                }
            }
        }
        assert_eq!(text(b"\t\ta\t\n"), 4);
        assert_eq!(run(b"Content-Length:", &TOKEN), 14);
        assert_eq!(run(b"/a?b#c", &TARGET), 4);
        assert_eq!(run(b"", &TARGET), 0);
    }

    #[test]
    fn the_classes_are_those_of_the_rfcs() {
        for octet in 0..=255_u8 {
            let name = http::HeaderName::from_bytes(&[octet]).is_ok();
            assert_eq!(TOKEN[usize::from(octet)], name, "{octet:#x}");
            let method = http::Method::from_bytes(&[octet]).is_ok();
            assert_eq!(TOKEN[usize::from(octet)], method, "{octet:#x}");
        }
        assert_eq!(TARGET.iter().filter(|in_it| !**in_it).count(), 0x21 + 2);
    }
}
