//! Lenient readers of HTTP/1, each lenient in another way, as real ones are. They must all agree on a
//! stream that the guard accepts.

/// The leniencies of a reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    /// A line ends in LF; a CR before it belongs to the end.
    lf_ends_lines: bool,
    /// `Content-Length` wins over `Transfer-Encoding`.
    length_wins: bool,
    /// The last of several lines counts, not the first.
    last_line_counts: bool,
    /// `chunked` anywhere in `Transfer-Encoding` is enough; otherwise it must come last.
    chunked_anywhere: bool,
    /// A line that begins with whitespace continues the previous one.
    unfolds: bool,
    /// Whitespace before a colon is no part of the name.
    trims_names: bool,
    /// `Transfer-Encoding` counts in HTTP/1.0, too.
    chunks_in_http10: bool,
    /// Searches for the line end after a chunk; otherwise skips two bytes.
    seeks_chunk_end: bool,
}

impl Reader {
    /// All readers.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(|bits| {
            let bit = |at: u8| bits >> at & 1 == 1;
            Self {
                lf_ends_lines: bit(0),
                length_wins: bit(1),
                last_line_counts: bit(2),
                chunked_anywhere: bit(3),
                unfolds: bit(4),
                trims_names: bit(5),
                chunks_in_http10: bit(6),
                seeks_chunk_end: bit(7),
            }
        })
    }

    /// The ends of the complete requests.
    pub(crate) fn ends(self, bytes: &[u8]) -> Vec<usize> {
        let mut ends = Vec::new();
        let mut at = 0;
        while let Some(end) = self.request(bytes, at) {
            ends.push(end);
            at = end;
        }
        ends
    }

    /// The line at this position without its end, and the position of the next one.
    fn line(self, bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
        let rest = bytes.get(at..)?;
        if self.lf_ends_lines {
            let length = rest.iter().position(|&byte| byte == b'\n')?;
            let line = &rest[..length];
            return Some((line.strip_suffix(b"\r").unwrap_or(line), at + length + 1));
        }
        let length = rest.windows(2).position(|two| two == b"\r\n")?;
        Some((&rest[..length], at + length + 2))
    }

    fn section(self, bytes: &[u8], mut at: usize) -> Option<(Vec<Vec<u8>>, usize)> {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        loop {
            let (line, next) = self.line(bytes, at)?;
            at = next;
            match lines.last_mut() {
                _ if line.is_empty() => return Some((lines, at)),
                Some(last) if self.unfolds && line[0].is_ascii_whitespace() => {
                    last.extend_from_slice(line);
                }
                _ => lines.push(line.to_owned()),
            }
        }
    }

    fn request(self, bytes: &[u8], at: usize) -> Option<usize> {
        let (mut line, mut at) = self.line(bytes, at)?;
        while line.is_empty() {
            (line, at) = self.line(bytes, at)?;
        }
        let http10 = line.ends_with(b"HTTP/1.0");
        let (fields, at) = self.section(bytes, at)?;
        let values = |name: &str| -> Vec<String> {
            let named = fields.iter().filter_map(|field| {
                let colon = field.iter().position(|&byte| byte == b':')?;
                let (field, value) = field.split_at(colon);
                let field = if self.trims_names {
                    field.trim_ascii()
                } else {
                    field
                };
                let value = String::from_utf8_lossy(value[1..].trim_ascii()).into_owned();
                field.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
            });
            named.collect()
        };
        let counting = |values: Vec<String>| match self.last_line_counts {
            true => values.last().cloned(),
            false => values.first().cloned(),
        };
        let coding =
            counting(values("transfer-encoding")).map(|coding| coding.to_ascii_lowercase());
        let chunked = coding.is_some_and(|coding| match self.chunked_anywhere {
            true => coding.contains("chunked"),
            false => coding.ends_with("chunked"),
        }) && (self.chunks_in_http10 || !http10);
        let length = counting(values("content-length")).map(|length| {
            // Like atoi(3).
            let digits = length
                .trim_start_matches('+')
                .split(|c: char| !c.is_ascii_digit());
            digits
                .take(1)
                .collect::<String>()
                .parse::<usize>()
                .unwrap_or(0)
        });
        match length {
            Some(length) if self.length_wins || !chunked => {
                at.checked_add(length).filter(|end| *end <= bytes.len())
            }
            _ if chunked => self.chunks(bytes, at),
            _ => Some(at),
        }
    }

    fn chunks(self, bytes: &[u8], mut at: usize) -> Option<usize> {
        loop {
            let (line, next) = self.line(bytes, at)?;
            // Like strtoul(3).
            let text = String::from_utf8_lossy(line).to_ascii_lowercase();
            let text = text.trim_start();
            let text = text.strip_prefix("0x").unwrap_or(text);
            let mut digits = text.split(|c: char| !c.is_ascii_hexdigit());
            let size = usize::from_str_radix(digits.next()?, 16).unwrap_or(0);
            if size == 0 {
                return Some(self.section(bytes, next)?.1);
            }
            let end = next.checked_add(size).filter(|end| *end <= bytes.len())?;
            at = match self.seeks_chunk_end {
                true => self.line(bytes, end)?.1,
                false => end.checked_add(2).filter(|end| *end <= bytes.len())?,
            };
        }
    }
}
