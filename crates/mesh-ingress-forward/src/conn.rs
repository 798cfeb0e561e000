//! One connection to an upstream, and the exchanges on it.
//!
//! A connection knows its stream and its settings, not the pool it belongs to. It notifies the pool
//! through a trait of each protocol: [`http1::ConnectionPool`] and [`http2::StreamObserver`].

pub(crate) mod http1;
pub(crate) mod http2;

use std::time::Duration;

/// A lifetime, less up to a tenth at random, so that connections opened together do not end
/// together.
fn jittered(lifetime: Duration) -> Duration {
    lifetime.mul_f64(1.0 - 0.1 * fastrand::f64())
}

/// A number of requests, less up to a tenth at random.
fn jittered_count(count: u64) -> u64 {
    count - fastrand::u64(0..=count / 10)
}
