//! The Huffman code of HPACK (RFC 7541 §5.2 and Appendix B).
//!
//! The code is canonical: shorter codes come first, and codes of one length are in the order of their
//! symbols. So it follows from the lengths, and the compiler builds the tables.

use bytes::{BufMut as _, BytesMut};

/// All bytes, and EOS.
const SYMBOLS: usize = 257;
/// The end-of-string symbol, which no string contains.
const EOS: usize = 256;
const LONGEST: usize = 30;

/// The code length of each symbol in bits.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The codes of one length.
#[derive(Clone, Copy)]
struct Level {
    /// The first code.
    first: u32,
    /// The upper bound of these and all shorter codes, left-aligned in 32 bits.
    bound: u64,
    /// The index of their first symbol in `sorted`.
    offset: usize,
}

struct Code {
    codes: [u32; SYMBOLS],
    /// All symbols, in the order of their codes.
    sorted: [u16; SYMBOLS],
    levels: [Level; LONGEST + 1],
    /// The symbol at the start of eight bits and its code length; 0 for a longer code.
    short: [(u8, u8); 256],
}

const CODE: Code = code();

const fn code() -> Code {
    let mut made = Code {
        codes: [0; SYMBOLS],
        sorted: [0; SYMBOLS],
        levels: [Level {
            first: 0,
            bound: 0,
            offset: 0,
        }; LONGEST + 1],
        short: [(0, 0); 256],
    };
    let mut next: u32 = 0;
    let mut placed = 0;
    let mut length = 1;
    while length <= LONGEST {
        next <<= 1;
        made.levels[length].first = next;
        made.levels[length].offset = placed;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                made.codes[symbol] = next;
                made.sorted[placed] = symbol as u16;
                if length <= 8 {
                    let begin = (next << (8 - length)) as usize;
                    let mut rest = 0;
                    while rest < 1 << (8 - length) {
                        made.short[begin + rest] = (symbol as u8, length as u8);
                        rest += 1;
                    }
                }
                next += 1;
                placed += 1;
            }
            symbol += 1;
        }
        made.levels[length].bound = (next as u64) << (32 - length);
        length += 1;
    }
    made
}

static DECODED: Code = CODE;

/// The Huffman-coded length of a text in bytes.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits = text
        .iter()
        .map(|&byte| usize::from(LENGTHS[usize::from(byte)]));
    bits.sum::<usize>().div_ceil(8)
}

/// Huffman-codes a text.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0_u64, 0_u32);
    for &byte in text {
        let symbol = usize::from(byte);
        let length = u32::from(LENGTHS[symbol]);
        bits = bits << length | u64::from(DECODED.codes[symbol]);
        count += length;
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((bits >> count) as u32).to_be_bytes());
        }
    }
    // The last byte is padded with the start of EOS, which is all ones.
    let spare = (8 - count % 8) % 8;
    bits = bits << spare | ((1 << spare) - 1);
    count += spare;
    while count > 0 {
        count -= 8;
        out.push((bits >> count) as u8);
    }
}

/// Decodes a text; `None` if it is not Huffman-coded.
pub(super) fn decode(codes: &[u8], text: &mut BytesMut) -> Option<()> {
    // No code is shorter than five bits.
    text.reserve(codes.len() * 8 / 5);
    let (mut bits, mut count) = (0_u64, 0_u32);
    let mut codes = codes.iter();
    loop {
        while count <= 56
            && let Some(&byte) = codes.next()
        {
            bits = bits << 8 | u64::from(byte);
            count += 8;
        }
        if count == 0 {
            return Some(());
        }
        // The next 32 bits, padded with ones.
        let window = match count.checked_sub(32) {
            Some(more) => (bits >> more) as u32,
            None => {
                let missing = 32 - count;
                ((bits << missing) | ((1 << missing) - 1)) as u32
            }
        };
        let (symbol, length) = DECODED.short[(window >> 24) as usize];
        let length = match length {
            0 => match long(window) {
                Some((symbol, length)) if length <= count => {
                    text.put_u8(symbol);
                    length
                }
                _ => return is_padding(window, count).then_some(()),
            },
            length if u32::from(length) <= count => {
                text.put_u8(symbol);
                u32::from(length)
            }
            _ => return is_padding(window, count).then_some(()),
        };
        count -= length;
    }
}

/// The symbol of a code of more than eight bits; `None` for EOS.
fn long(window: u32) -> Option<(u8, u32)> {
    let length = (9..=LONGEST).find(|&length| u64::from(window) < DECODED.levels[length].bound)?;
    let level = DECODED.levels[length];
    let place = level.offset + ((window >> (32 - length)) - level.first) as usize;
    let symbol = usize::from(DECODED.sorted[place]);
    (symbol != EOS).then_some((symbol as u8, length as u32))
}

/// Whether the rest is padding: fewer than eight ones.
fn is_padding(window: u32, count: u32) -> bool {
    count < 8 && window == u32::MAX
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(codes: &[u8]) -> Option<Vec<u8>> {
        let mut text = BytesMut::new();
        decode(codes, &mut text).map(|()| text.to_vec())
    }

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut codes = Vec::new();
        encode(text, &mut codes);
        codes
    }

    #[test]
    fn rfc7541_c_4_1_example_string() {
        let codes = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(encoded(b"www.example.com"), codes);
        assert_eq!(decoded(&codes).unwrap(), b"www.example.com");
    }

    /// Some lines of Appendix B.
    #[test]
    fn rfc7541_b_codes_follow_from_their_lengths() {
        let lines = [
            (0, 0x1ff8, 13),
            (1, 0x7fffd8, 23),
            (b' '.into(), 0x14, 6),
            (b'0'.into(), 0x0, 5),
            (b':'.into(), 0x5c, 7),
            (b'X'.into(), 0xfc, 8),
            (b'a'.into(), 0x3, 5),
            (b'z'.into(), 0x7b, 7),
            (b'~'.into(), 0x1ffd, 13),
            (127, 0xffffffc, 28),
            (199, 0x1ffffec, 25),
            (220, 0xffffffd, 28),
            (255, 0x3ffffee, 26),
            (256, 0x3fffffff, 30),
        ];
        for (symbol, code, length) in lines {
            assert_eq!(CODE.codes[symbol], code, "{symbol}");
            assert_eq!(LENGTHS[symbol], length, "{symbol}");
        }
    }

    #[test]
    fn rfc7541_5_2_padding_is_at_most_seven_ones() {
        assert_eq!(decoded(&[]).unwrap(), b"");
        // "0" and five, six, seven bits.
        assert_eq!(decoded(&[0b0000_0111]).unwrap(), b"0");
        assert_eq!(decoded(&[0b0000_0110]), None);
        assert_eq!(decoded(&[0b0000_0111, 0xff]), None, "a whole byte");
        assert_eq!(decoded(&[0xff]), None);
        assert_eq!(decoded(&[0xff; 4]), None, "the end of the text");
    }

    proptest! {
        #[test]
        fn encoded_text_decodes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let codes = encoded(&text);
            prop_assert_eq!(codes.len(), encoded_len(&text));
            prop_assert_eq!(decoded(&codes).unwrap(), text);
        }

        /// A text has exactly one encoding.
        #[test]
        fn decoded_text_encodes_to_the_same_bytes(codes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(text) = decoded(&codes) {
                prop_assert_eq!(encoded(&text), codes);
            }
        }
    }
}
