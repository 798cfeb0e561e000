//! Telling a few words from all others while they come in pieces.

/// One of a few words, or another: what of it has come so far.
///
/// The words begin with different letters, so that the first byte tells most others from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameMatcher<T: 'static> {
    /// What it can still become.
    candidate: Option<&'static (T, &'static [u8])>,
    length: usize,
}

impl<T: Copy> NameMatcher<T> {
    pub(super) const NEW: Self = Self {
        candidate: None,
        length: 0,
    };

    /// More of a word whose case does not matter; `words` are in lower case.
    #[inline]
    pub(super) fn push(&mut self, piece: &[u8], words: &'static [(T, &'static [u8])]) {
        let folded = |first: u8| first | 0x20;
        self.push_by(piece, words, folded, <[u8]>::eq_ignore_ascii_case);
    }

    /// More of a word whose case matters.
    #[inline]
    pub(super) fn push_exact(&mut self, piece: &[u8], words: &'static [(T, &'static [u8])]) {
        self.push_by(piece, words, |first| first, <[u8]>::eq);
    }

    #[inline]
    fn push_by(
        &mut self,
        piece: &[u8],
        words: &'static [(T, &'static [u8])],
        folded: impl Fn(u8) -> u8,
        same: impl Fn(&[u8], &[u8]) -> bool,
    ) {
        if self.length == 0
            && let Some(&first) = piece.first()
        {
            let first = folded(first);
            self.candidate = words.iter().find(|(_, word)| word.first() == Some(&first));
        }
        let length = self.length.saturating_add(piece.len());
        if let Some((_, word)) = self.candidate {
            let expected = word.get(self.length..length);
            if !expected.is_some_and(|expected| same(expected, piece)) {
                self.candidate = None;
            }
        }
        self.length = length;
    }

    /// Which word it is, now that it has ended.
    #[inline]
    pub(super) fn get(&self) -> Option<T> {
        let (which, word) = self.candidate?;
        (word.len() == self.length).then_some(*which)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static WORDS: [(u8, &[u8]); 2] = [(1, b"upgrade"), (2, b"content-length")];

    fn which(pieces: &[&str]) -> Option<u8> {
        let mut word = NameMatcher::NEW;
        assert!(word.is_empty());
        for piece in pieces {
            word.push(piece.as_bytes(), &WORDS);
        }
        word.get()
    }

    #[test]
    fn a_word_may_come_in_pieces_and_in_any_case() {
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
    fn where_case_matters_it_does() {
        static METHODS: [((), &[u8]); 1] = [((), b"CONNECT")];
        for (method, expected) in [("CONNECT", Some(())), ("connect", None), ("Connect", None)] {
            let mut word = NameMatcher::NEW;
            word.push_exact(method.as_bytes(), &METHODS);
            assert_eq!(word.get(), expected);
        }
    }
}
