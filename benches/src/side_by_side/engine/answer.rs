//! Responses, whose bytes are counted.

use crate::BoxError;

use super::talk::{MESSAGE, Talk};

/// An answer as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The bytes of a head that is not complete yet.
    head: Vec<u8>,
    /// How much there is, and how much there is to be.
    received: usize,
    length: Option<usize>,
}

impl Answer {
    /// Takes what has come, and says whether that is all.
    pub(super) fn take(&mut self, bytes: &[u8], talk: &Talk) -> Result<bool, BoxError> {
        self.received += bytes.len();
        if self.length.is_none() {
            self.length = match talk {
                Talk::Echo => Some(MESSAGE.len()),
                // As a rule it comes at once.
                _ if self.head.is_empty() => length(bytes)?,
                _ => {
                    self.head.extend(bytes);
                    length(&self.head)?
                }
            };
            if self.length.is_none() && self.head.is_empty() {
                self.head.extend(bytes);
            }
        }
        match self.length {
            Some(length) if self.received > length => Err("more than was asked for".into()),
            length => Ok(length == Some(self.received)),
        }
    }
}

/// The length of an answer in bytes, once its head is complete.
pub(crate) fn length(received: &[u8]) -> Result<Option<usize>, BoxError> {
    let Some(head) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(received.get(..head).unwrap_or_default());
    if !text.starts_with("HTTP/1.1 200") {
        return Err(format!("not a 200: {text}").into());
    }
    let body = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>())
    });
    match body {
        Some(body) => Ok(Some(head + 4 + body?)),
        None => Err(format!("an answer without a length: {text}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        assert_eq!(length(b"HTTP/1.1 200 OK\r\ncontent-le").unwrap(), None);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab";
        assert_eq!(length(answer).unwrap(), Some(answer.len() + 3));
        assert!(length(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").is_err());
    }

    #[test]
    fn answers_may_come_in_pieces_but_not_with_more() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde";
        for cut in 1..whole.len() {
            let mut answer = Answer::default();
            let get = Talk::Get("/1k");
            assert!(!answer.take(&whole[..cut], &get).unwrap(), "{cut}");
            assert!(answer.take(&whole[cut..], &get).unwrap(), "{cut}");
            assert!(answer.take(b"f", &get).is_err());
        }
    }
}
