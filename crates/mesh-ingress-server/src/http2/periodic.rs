//! Periodic checks of a connection.

use std::time::Duration;

use mesh_ingress_http2::{Reason, frame};
use tokio::time::Instant;

use super::connection::{Connection, Phase};
use super::keep_alive::Tick;
use super::stream::Blocked;
use crate::service::HttpService;

/// How long a stream may wait for a window before it is reset: Envoy's `stream_idle_timeout`.
const STREAM_STALLED: Duration = Duration::from_secs(300);
/// How long the answer to the shutdown `PING` is waited for: more than the round trip that the `PING`
/// stands for (RFC 9113 §6.8).
const SHUTDOWN_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a field section in several frames may take.
const FIELD_SECTION_TIMEOUT: Duration = Duration::from_secs(60);

impl<S: HttpService> Connection<S> {
    /// Looks after what may be stuck.
    pub(super) fn tick(&mut self, tick: Tick) {
        match tick {
            Tick::Check => {}
            Tick::Ping => frame::ping(self.send.buf.buffer(), [0; 8], false),
            Tick::Gone => {
                tracing::debug!("client connection over HTTP/2: no answer to a PING");
                self.fail(Reason::NO_ERROR);
                return;
            }
        }
        let (now, mut stuck) = (Instant::now(), Vec::new());
        // A stream is not to blame where others use up the window of the connection.
        let others_sent = std::mem::take(&mut self.send.data_sent);
        for stream in self.streams.all() {
            if stream.blocked == Blocked::Window && (stream.send_window <= 0 || !others_sent) {
                let since = *stream.stalled_since.get_or_insert(now);
                if now.duration_since(since) >= STREAM_STALLED {
                    stuck.push(stream.id);
                }
            }
        }
        for id in stuck {
            tracing::debug!("stream {id}: the client takes nothing of its response");
            self.reset(id, Reason::CANCEL);
        }
        let since = self.field_block.as_ref().map(|block| block.since);
        if since.is_some_and(|since| now.duration_since(since) >= FIELD_SECTION_TIMEOUT) {
            self.fail(Reason::ENHANCE_YOUR_CALM);
        }
        let any_open = !self.streams.is_empty();
        let is_idle = self.idle_timeout.is_over(now, any_open, self.last_stream);
        match self.phase {
            Phase::Open if is_idle => {
                tracing::debug!("client connection over HTTP/2: idle for too long");
                self.graceful_shutdown();
            }
            // A client that answers other PINGs has seen this one by now.
            Phase::ShutdownPing { since } if now.duration_since(since) >= SHUTDOWN_PING_TIMEOUT => {
                self.refuse_new_streams();
            }
            _ => {}
        }
        if !any_open {
            self.streams.shrink();
            self.session.client.shrink();
            self.send.buf.shrink();
        }
        self.read_buf.settle();
    }
}
