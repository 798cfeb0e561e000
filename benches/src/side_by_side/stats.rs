//! Medians and the like.

/// The statistics of a few numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Between these two the median of all rounds that there could be is, with 95 % confidence.
    /// Where there are fewer than six, the least and the greatest.
    pub(crate) interval: (f64, f64),
}

impl Summary {
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = match sorted.len() % 2 {
            0 => (sorted.get(middle - 1)? + upper) / 2.0,
            _ => upper,
        };
        let outliers = outliers(sorted.len());
        let low = *sorted.get(outliers)?;
        let high = *sorted.get(sorted.len() - 1 - outliers)?;
        Some(Self {
            median,
            min,
            max,
            interval: (low, high),
        })
    }

    /// The median and its interval: `0.91 (0.89–0.94)`
    pub(crate) fn with_interval(&self, digits: usize) -> String {
        let (median, (low, high)) = (self.median, self.interval);
        format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }

    /// The least and the greatest: `0.71–1.08`
    pub(crate) fn range(&self, digits: usize) -> String {
        format!("{:.digits$}–{:.digits$}", self.min, self.max)
    }
}

/// How many of so many numbers may be left out at each end, so that the median of what they are
/// drawn from is still among the others with 95 % confidence, whatever the distribution: each
/// number is below it as often as a coin shows heads.
fn outliers(count: usize) -> usize {
    let all = 2_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let (mut ways, mut below) = (1.0, 0.0);
    for heads in 0..count {
        below += ways;
        if 2.0 * below / all > 0.05 {
            return heads.saturating_sub(1);
        }
        ways *= (count - heads) as f64 / (heads + 1) as f64;
    }
    0
}

/// The number that `share` (0 to 1) of the sorted ones do not exceed.
pub(crate) fn quantile(sorted: &[u64], share: f64) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Summary::of([]), None);
        let odd = Summary::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    }

    /// The tables of the sign test: 9 of 9 to 96.1 %, 15 to 96.5 %.
    #[test]
    fn one_disturbed_round_of_many_decides_nothing() {
        let left_out: Vec<usize> = (1..=16).map(outliers).collect();
        assert_eq!(left_out, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]);
        let nine = Summary::of([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 80.0]).unwrap();
        assert_eq!((nine.min, nine.max, nine.interval), (1.0, 80.0, (2.0, 9.0)));
        let three = Summary::of([1.0, 2.0, 3.0]).unwrap();
        assert_eq!(three.interval, (1.0, 3.0));
    }

    #[test]
    fn quantiles() {
        let numbers: Vec<u64> = (0..=100).collect();
        assert_eq!(quantile(&numbers, 0.5), Some(50));
        assert_eq!(quantile(&numbers, 0.99), Some(99));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
