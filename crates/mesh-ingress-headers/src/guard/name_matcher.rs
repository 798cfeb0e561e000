//! Recognises a few names while they arrive in pieces.

/// The match of an arriving name against a few known ones.
///
/// The known names begin with different letters, so that the first byte rules out most others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameMatcher<T: 'static> {
    /// The name that it can still become.
    candidate: Option<&'static (T, &'static [u8])>,
    length: usize,
}

impl<T: Copy> NameMatcher<T> {
    pub(super) const NEW: Self = Self {
        candidate: None,
        length: 0,
    };

    /// The next piece of a name, compared without case; `names` are in lower case.
    #[inline]
    pub(super) fn push(&mut self, piece: &[u8], names: &'static [(T, &'static [u8])]) {
        let folded = |first: u8| first | 0x20;
        self.push_by(piece, names, folded, <[u8]>::eq_ignore_ascii_case);
    }

    /// The next piece of a name, compared exactly.
    #[inline]
    pub(super) fn push_exact(&mut self, piece: &[u8], names: &'static [(T, &'static [u8])]) {
        self.push_by(piece, names, |first| first, <[u8]>::eq);
    }

    #[inline]
    fn push_by(
        &mut self,
        piece: &[u8],
        names: &'static [(T, &'static [u8])],
        folded: impl Fn(u8) -> u8,
        same: impl Fn(&[u8], &[u8]) -> bool,
    ) {
        if self.length == 0
            && let Some(&first) = piece.first()
        {
            let first = folded(first);
            self.candidate = names.iter().find(|(_, name)| name.first() == Some(&first));
        }
        let length = self.length.saturating_add(piece.len());
        if let Some((_, name)) = self.candidate {
            let expected = name.get(self.length..length);
            if !expected.is_some_and(|expected| same(expected, piece)) {
                self.candidate = None;
            }
        }
        self.length = length;
    }

    /// The known name that it is, now that it is complete.
    #[inline]
    pub(super) fn get(&self) -> Option<T> {
        let (which, name) = self.candidate?;
        (name.len() == self.length).then_some(*which)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NAMES: [(u8, &[u8]); 2] = [(1, b"upgrade"), (2, b"content-length")];

    fn which(pieces: &[&str]) -> Option<u8> {
        let mut name = NameMatcher::NEW;
        assert!(name.is_empty());
        for piece in pieces {
            name.push(piece.as_bytes(), &NAMES);
        }
        name.get()
    }

    #[test]
    fn name_matches_in_pieces_and_in_any_case() {
        assert_eq!(which(&["Upgrade"]), Some(1));
        assert_eq!(which(&["", "c", "ONTENT", "", "-length"]), Some(2));
        for other in [
            "",
            "u",
            "upgrad",
            "upgradee",
            "xupgrade",
            "content_length",
            "\u{15}pgrade",
        ] {
            assert_eq!(which(&[other]), None, "{other}");
        }
        assert_eq!(which(&["upgrade", "s"]), None);
        assert_eq!(which(&["upx", "rade"]), None);
    }

    #[test]
    fn exact_match_respects_case() {
        static METHODS: [((), &[u8]); 1] = [((), b"CONNECT")];
        for (method, expected) in [("CONNECT", Some(())), ("connect", None), ("Connect", None)] {
            let mut name = NameMatcher::NEW;
            name.push_exact(method.as_bytes(), &METHODS);
            assert_eq!(name.get(), expected);
        }
    }
}
