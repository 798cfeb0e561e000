//! The state of a circuit breaker, packed into one integer so that it changes atomically.
//!
//! From the top: 2 bits of phase, 12 of generation, 6 of trips, 44 of the phase's payload.

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedState {
    /// Counts changes of the phase, so that a request knows whether its phase goes on. Wraps; a
    /// request does not last for 4096 changes.
    pub(super) generation: u16,
    /// How often the circuit has opened since it was closed.
    pub(super) trips: u8,
    pub(super) phase: Phase,
}

/// Times are in milliseconds after the breaker was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The number of failures in a row, and the time of the first one (modulo 2³²).
    Closed { failures: u16, since: u64 },
    /// Requests are rejected until that time.
    Open { until: u64 },
    /// One request is a probe; after that time another may be.
    Probing { until: u64 },
}

const GENERATION: u64 = 0xfff;
const TRIPS: u8 = 0x3f;
const PAYLOAD_BITS: u32 = 44;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;
const FAILURES: u16 = 0xfff;

impl Phase {
    pub(super) const HEALTHY: Self = Self::Closed {
        failures: 0,
        since: 0,
    };
}

impl PackedState {
    /// The next phase.
    pub(super) fn next(self, trips: u8, phase: Phase) -> Self {
        Self {
            generation: self.generation.wrapping_add(1) & GENERATION as u16,
            trips: trips.min(TRIPS),
            phase,
        }
    }
}

impl Default for PackedState {
    fn default() -> Self {
        Self {
            generation: 0,
            trips: 0,
            phase: Phase::HEALTHY,
        }
    }
}

impl From<PackedState> for u64 {
    fn from(state: PackedState) -> Self {
        let (tag, payload) = match state.phase {
            Phase::Closed { failures, since } => {
                let failures = Self::from(failures.min(FAILURES));
                (0, failures << 32 | since & Self::from(u32::MAX))
            }
            // 557 years fit.
            Phase::Open { until } => (1, until.min(PAYLOAD)),
            Phase::Probing { until } => (2, until.min(PAYLOAD)),
        };
        let generation = Self::from(state.generation) & GENERATION;
        let trips = Self::from(state.trips.min(TRIPS));
        tag << 62 | generation << 50 | trips << PAYLOAD_BITS | payload
    }
}

impl From<u64> for PackedState {
    fn from(packed: u64) -> Self {
        let payload = packed & PAYLOAD;
        Self {
            generation: (packed >> 50 & GENERATION) as u16,
            trips: (packed >> PAYLOAD_BITS) as u8 & TRIPS,
            phase: match packed >> 62 {
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

/// The milliseconds since `then`, which was stored modulo 2³². Exact up to 49 days; older failures
/// are taken for more recent ones.
pub(super) fn since(now: u64, then: u64) -> u32 {
    (now as u32).wrapping_sub(then as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_packing() {
        let most = u64::from(u32::MAX);
        let phases = [
            Phase::HEALTHY,
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
                let state = PackedState {
                    generation,
                    trips,
                    phase,
                };
                assert_eq!(PackedState::from(u64::from(state)), state);
            }
        }
        assert_eq!(u64::from(PackedState::default()), 0);
    }

    #[test]
    fn too_large_values_saturate_within_their_bits() {
        let state = PackedState {
            generation: 5,
            trips: u8::MAX,
            phase: Phase::Closed {
                failures: u16::MAX,
                since: u64::MAX,
            },
        };
        let kept = PackedState::from(u64::from(state));
        assert_eq!((kept.generation, kept.trips), (5, TRIPS));
        let next = kept.next(u8::MAX, Phase::Open { until: u64::MAX });
        assert_eq!(
            PackedState::from(u64::from(next)).phase,
            Phase::Open { until: PAYLOAD }
        );
        assert_eq!(next.trips, TRIPS);
        let last = PackedState {
            generation: GENERATION as u16,
            ..kept
        };
        assert_eq!(last.next(0, Phase::HEALTHY).generation, 0);
    }

    #[test]
    fn elapsed_time_is_right_across_a_wrap() {
        let wrap = 1 << 32;
        assert_eq!(since(wrap + 5, wrap - 5), 10);
        assert_eq!(since(wrap + 5, (wrap - 5) & u64::from(u32::MAX)), 10);
        assert_eq!(since(100, 100), 0);
    }
}
