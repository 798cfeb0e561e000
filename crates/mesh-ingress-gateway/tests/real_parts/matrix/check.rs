//! The comparisons of a cell, and their error messages.

use http::HeaderMap;

/// The value that was found, or what is wrong.
pub(crate) type Checked<T = ()> = Result<T, String>;

/// All 256 bytes, in no order that a framing defect could hide behind.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    std::iter::repeat_with(move || next()[0])
        .take(length)
        .collect()
}

pub(crate) fn values<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok()).collect()
}

pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Checked {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what}: {got:?} instead of {expected:?}"))
}

pub(crate) fn expect_bytes(what: &str, got: &[u8], expected: &[u8]) -> Checked {
    if got == expected {
        return Ok(());
    }
    let same = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    Err(format!(
        "{what}: {} bytes instead of {}, the first {same} the same",
        got.len(),
        expected.len()
    ))
}
