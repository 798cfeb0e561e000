//! Connections and streams that come back to the pool.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::limits::Permit;
use super::{Http1Connection, Pool, PooledConnection};
use crate::conn::http1::ConnectionPool;
use crate::conn::http2::{ConnectionState, StreamObserver};

impl ConnectionPool for Pool {
    type Guard = Permit<Self>;

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Keeps the connection, or closes it if there is any doubt about its state.
    fn release(&self, mut connection: Box<Http1Connection>) {
        let now = Instant::now();
        // A waiting request gets a connection that was checked. An idle one is checked when it is
        // taken, and once is enough.
        let good = if self.queue.is_empty() {
            connection.is_worth_keeping(now)
        } else {
            connection.is_usable(now)
        };
        if good && connection.generation() == self.generation() {
            connection.park(now);
            // Under a limit on all upstreams, the requests that wait longest come first.
            let total = &self.total;
            if !self.queue.is_empty()
                && total.other_is_starved(&self.this, self.queue.waiting_since())
            {
                return;
            }
            self.offer(PooledConnection::Http1(connection));
        }
    }
}

impl StreamObserver for Pool {
    fn stream_ended(&self, idle: bool) {
        self.streams_added();
        if idle {
            self.evict_for_starved();
        }
    }

    fn streams_added(&self) {
        if !self.queue.is_empty() {
            self.serve();
        }
    }

    fn connection_closed(&self, connection: &Arc<ConnectionState<Self>>) {
        self.http2.remove(connection);
    }
}
