//! Integers of HPACK (RFC 7541 §5.1).

use super::DecodeError;

/// The largest accepted integer, above any accepted length or index.
const MAX: usize = 1 << 24;

/// Reads an integer with a prefix in the low `bits` of `first`.
pub(super) fn read(first: u8, bits: u32, rest: &mut &[u8]) -> Result<usize, DecodeError> {
    let prefix_max = (1_usize << bits) - 1;
    let mut value = usize::from(first) & prefix_max;
    if value < prefix_max {
        return Ok(value);
    }
    let mut shift = 0;
    loop {
        let (&byte, left) = rest
            .split_first()
            .ok_or(DecodeError("a number has no end"))?;
        *rest = left;
        value += usize::from(byte & 0x7f) << shift;
        if value > MAX || shift > 21 && byte & 0x80 != 0 {
            return Err(DecodeError("a number is too large"));
        }
        if byte & 0x80 == 0 {
            return Ok(value);
        }
        shift += 7;
    }
}

/// Writes an integer with a prefix in the low `bits` of `first`.
pub(super) fn write(first: u8, bits: u32, mut value: usize, out: &mut Vec<u8>) {
    let prefix_max = (1_usize << bits) - 1;
    if value < prefix_max {
        out.push(first | value as u8);
        return;
    }
    out.push(first | prefix_max as u8);
    value -= prefix_max;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(bits: u32, value: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write(0, bits, value, &mut out);
        out
    }

    #[test]
    fn rfc7541_c_1_examples() {
        assert_eq!(written(5, 10), [10]);
        assert_eq!(written(5, 1337), [31, 154, 10]);
        assert_eq!(written(8, 42), [42]);
    }

    #[test]
    fn rfc7541_5_1_numbers_are_bounded() {
        assert!(read(0xff, 7, &mut &[0xff; 30][..]).is_err());
        assert!(read(0xff, 7, &mut &[0x80; 30][..]).is_err());
        assert!(read(0xff, 7, &mut &[0xff, 0xff, 0xff, 0x7f][..]).is_err());
        assert!(read(0xff, 7, &mut &[0x80][..]).is_err());
        assert_eq!(read(0xff, 7, &mut &[0x80, 0][..]).unwrap(), 127);
    }

    proptest! {
        #[test]
        fn encoded_text_decodes(value in 0..1_usize << 20, bits in 4_u32..8) {
            let out = written(bits, value);
            let (first, mut rest) = out.split_first().unwrap();
            prop_assert_eq!(read(*first, bits, &mut rest).unwrap(), value);
            prop_assert!(rest.is_empty());
        }
    }
}
