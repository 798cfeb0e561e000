//! The state of a breaker in one word, so that it changes at once or not at all.
//!
//! From the top: 2 bits of phase, 12 of generation, 6 of trips, 44 of what the phase needs.

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Counts changes of the phase, so that a request knows whether its period goes on. Wraps; a
    /// request does not live for 4096 changes.
    pub(super) generation: u16,
    /// How often the target has been left alone since it was well.
    pub(super) trips: u8,
    pub(super) phase: Phase,
}

/// Times are in milliseconds after the breaker was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// All is well, or nearly: so many failures in a row, the first one then (modulo 2³²).
    Closed { failures: u16, since: u64 },
    /// The target is left alone.
    Open { until: u64 },
    /// One request is out to see; another may be after that time.
    Probing { until: u64 },
}

const GENERATION: u64 = 0xfff;
const TRIPS: u8 = 0x3f;
const PAYLOAD_BITS: u32 = 44;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;
const FAILURES: u16 = 0xfff;

impl Phase {
    pub(super) const WELL: Self = Self::Closed {
        failures: 0,
        since: 0,
    };
}

impl Word {
    /// The begin of another period.
    pub(super) fn next(self, trips: u8, phase: Phase) -> Self {
        Self {
            generation: self.generation.wrapping_add(1) & GENERATION as u16,
            trips: trips.min(TRIPS),
            phase,
        }
    }
}

impl Default for Word {
    fn default() -> Self {
        Self {
            generation: 0,
            trips: 0,
            phase: Phase::WELL,
        }
    }
}

impl From<Word> for u64 {
    fn from(word: Word) -> Self {
        let (tag, payload) = match word.phase {
            Phase::Closed { failures, since } => {
                let failures = Self::from(failures.min(FAILURES));
                (0, failures << 32 | since & Self::from(u32::MAX))
            }
            // 557 years fit.
            Phase::Open { until } => (1, until.min(PAYLOAD)),
            Phase::Probing { until } => (2, until.min(PAYLOAD)),
        };
        let generation = Self::from(word.generation) & GENERATION;
        let trips = Self::from(word.trips.min(TRIPS));
        tag << 62 | generation << 50 | trips << PAYLOAD_BITS | payload
    }
}

impl From<u64> for Word {
    fn from(word: u64) -> Self {
        let payload = word & PAYLOAD;
        Self {
            generation: (word >> 50 & GENERATION) as u16,
            trips: (word >> PAYLOAD_BITS) as u8 & TRIPS,
            phase: match word >> 62 {
                1 => Phase::Open { until: payload },
                2 => Phase::Probing { until: payload },
                _ => Phase::Closed {
                    failures: (payload >> 32) as u16,
                    since: payload & u64::from(u32::MAX),
                },
            },
        }
    }
}

/// How long ago, in milliseconds, something was that was noted modulo 2³². Good for 49 days; a row
/// of failures that takes longer is taken for a younger one, and goes on.
pub(super) fn since(now: u64, then: u64) -> u32 {
    (now as u32).wrapping_sub(then as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits() {
        let most = u64::from(u32::MAX);
        let phases = [
            Phase::WELL,
            Phase::Closed {
                failures: FAILURES,
                since: most,
            },
            Phase::Open { until: 0 },
            Phase::Open { until: PAYLOAD },
            Phase::Probing { until: 1 },
            Phase::Probing { until: PAYLOAD },
        ];
        for phase in phases {
            for (generation, trips) in [(0, 0), (1, TRIPS), (GENERATION as u16, 0), (7, 1)] {
                let word = Word {
                    generation,
                    trips,
                    phase,
                };
                assert_eq!(Word::from(u64::from(word)), word);
            }
        }
        assert_eq!(u64::from(Word::default()), 0);
    }

    #[test]
    fn too_much_is_the_most_and_spills_nowhere() {
        let word = Word {
            generation: 5,
            trips: u8::MAX,
            phase: Phase::Closed {
                failures: u16::MAX,
                since: u64::MAX,
            },
        };
        let kept = Word::from(u64::from(word));
        assert_eq!((kept.generation, kept.trips), (5, TRIPS));
        let next = kept.next(u8::MAX, Phase::Open { until: u64::MAX });
        assert_eq!(
            Word::from(u64::from(next)).phase,
            Phase::Open { until: PAYLOAD }
        );
        assert_eq!(next.trips, TRIPS);
        let last = Word {
            generation: GENERATION as u16,
            ..kept
        };
        assert_eq!(last.next(0, Phase::WELL).generation, 0);
    }

    #[test]
    fn time_goes_on_where_the_counter_wraps() {
        let wrap = 1 << 32;
        assert_eq!(since(wrap + 5, wrap - 5), 10);
        assert_eq!(since(wrap + 5, (wrap - 5) & u64::from(u32::MAX)), 10);
        assert_eq!(since(100, 100), 0);
    }
}
