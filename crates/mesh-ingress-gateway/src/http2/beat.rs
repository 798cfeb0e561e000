//! What a connection looks after from time to time.

use std::time::Duration;

use mesh_ingress_http2::{Reason, frame};
use tokio::time::Instant;

use super::connection::{Connection, Phase};
use super::pulse::Beat;
use super::stream::Blocked;

/// How long a stream may be found waiting for a window before it is given up: Envoy's
/// `stream_idle_timeout`.
const STALLED: Duration = Duration::from_secs(300);
/// For how long the answer to the last call is waited for: more than a round trip, which is what the
/// call is for (RFC 9113 §6.8).
const UNHEARD: Duration = Duration::from_secs(10);
/// How long a field section may take that comes in pieces.
const UNFINISHED: Duration = Duration::from_secs(60);

impl Connection {
    /// Looks after what may be stuck.
    pub(super) fn beat(&mut self, beat: Beat) {
        match beat {
            Beat::Look => {}
            Beat::Ask => frame::ping(self.out.outbox.buffer(), [0; 8], false),
            Beat::Gone => {
                tracing::debug!("client connection over HTTP/2: no answer to a PING");
                self.fail(Reason::NO_ERROR);
                return;
            }
        }
        let (now, mut stuck) = (Instant::now(), Vec::new());
        // Where others use up the window of the connection, that is not the stream's doing.
        let others = std::mem::take(&mut self.out.sent);
        for slot in self.streams.all() {
            if slot.blocked == Blocked::Window && (slot.window <= 0 || !others) {
                let since = *slot.stalled.get_or_insert(now);
                if now.duration_since(since) >= STALLED {
                    stuck.push(slot.id);
                }
            }
        }
        for id in stuck {
            tracing::debug!("stream {id}: the client takes nothing of its response");
            self.reset(id, Reason::CANCEL);
        }
        let since = self.block.as_ref().map(|block| block.since);
        if since.is_some_and(|since| now.duration_since(since) >= UNFINISHED) {
            self.fail(Reason::ENHANCE_YOUR_CALM);
        }
        let is_idle = self.idle.is_over(now, !self.streams.is_empty(), self.last);
        match self.phase {
            Phase::Open if is_idle => {
                tracing::debug!("client connection over HTTP/2: idle for too long");
                self.graceful_shutdown();
            }
            // A client that answers other questions has heard of it by now.
            Phase::LastCall { since } if now.duration_since(since) >= UNHEARD => {
                self.last_called();
            }
            _ => {}
        }
        self.streams.rest();
        self.inbox.settle();
    }
}
