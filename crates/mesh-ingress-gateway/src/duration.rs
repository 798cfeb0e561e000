//! Time spans on the command line.

use std::time::Duration;

/// Parses `30` or `30s` as seconds, `500ms` as milliseconds, `5m` as minutes, `1h` as an hour;
/// `0` means off.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("expected seconds such as 30 or 1.5s, or 500ms, or 5m, or 1h, got {text:?}");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(expected());
    }
    let number: f64 = digits.parse().map_err(|_| expected())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(parse("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        for bad in [
            "", "s", "-1", "1d", "1 s", "NaN", "inf", "1e3", "ms", "1.2.3", "é",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
