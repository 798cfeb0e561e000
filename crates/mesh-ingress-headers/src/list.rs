//! Comma-separated lists (RFC 9110 §5.6.1), on bytes: a value need not be UTF-8.

/// The members of a list without quoted strings, trimmed; empty members are skipped, as §5.6.1.2
/// requires of a recipient.
pub(crate) fn members(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value
        .split(|&b| b == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// Without optional whitespace (space and tab) at both ends.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_members_and_whitespace_are_skipped() {
        let list: Vec<_> = members(b" ,a,, b c\t,\t, ").collect();
        assert_eq!(list, [&b"a"[..], b"b c"]);
        assert_eq!(members(b"").count(), 0);
        assert_eq!(members(b"\xff,x").count(), 2);
    }
}
