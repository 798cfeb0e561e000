//! Figures of a pool, and the errors that report them.

use std::fmt;
use std::time::Duration;

use mesh_ingress_core::Error;

use super::Pool;
use crate::error::ForwardError;

impl Pool {
    /// Whether no connection is open, apart from HTTP/1.1 connections in use.
    pub(super) fn is_empty(&self) -> bool {
        self.idle_len() == 0 && self.http2.is_empty()
    }

    /// Idle HTTP/1.1 connections.
    pub(crate) fn idle_len(&self) -> usize {
        self.idle.len()
    }

    /// Connections that are open or being opened.
    pub(crate) fn open_len(&self) -> usize {
        self.limit.len()
    }

    /// The error of a request that may not even wait.
    pub(super) fn limit_reached(&self) -> Error {
        ForwardError::LimitReached {
            addr: self.addr,
            open: self.open_len(),
            waiting: self.queue.len(),
        }
        .into_error()
    }

    /// The error of a request that has waited too long.
    pub(super) fn queue_timeout(&self, waited: Duration) -> Error {
        let addr = self.addr;
        let open = self.open_len();
        ForwardError::QueueTimeout { addr, waited, open }.into_error()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("upstream", &self.upstream)
            .field("open", &self.open_len())
            .field("idle", &self.idle_len())
            .field("waiting", &self.queue.len())
            .finish_non_exhaustive()
    }
}
