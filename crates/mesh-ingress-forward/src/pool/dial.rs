//! Opening connections, in tasks of their own.
//!
//! A request causes a dial but does not own it: the first connection that is ready, a new one or
//! one that another request gives back, serves the request that waits longest. So a dial is not
//! part of a request's future, which may end before it.

use std::sync::Arc;

use mesh_ingress_core::{Error, ErrorKind, Protocol};
use tokio::runtime::{self, Handle};
use tokio::time::Instant;

use super::idle::current_shard;
use super::limits::{LimitedPool as _, Permit};
use super::{Pool, PooledConnection};
use crate::conn::{http1, http2};
use crate::connect::{self, Stream};
use crate::error::{ForwardError, SharedError};

/// Spawns a task that opens one connection and offers it to the request that waits longest.
pub(super) fn spawn(pool: &Arc<Pool>, permit: Permit<Pool>, runtime: &Handle) {
    let id = pool.queue.begin_dial();
    let dial = Dial {
        pool: Arc::clone(pool),
        id,
        runtime: runtime.id(),
    };
    let task = runtime.spawn(dial.run(permit));
    pool.queue.set_task(id, task.abort_handle());
}

/// A dial under way.
struct Dial {
    pool: Arc<Pool>,
    id: u64,
    runtime: runtime::Id,
}

impl Dial {
    async fn run(self, permit: Permit<Pool>) {
        let since = Instant::now();
        let Self { pool, id, .. } = &self;
        match open(pool, permit).await {
            Ok(connection) => {
                pool.offer(connection);
                // Counted until after the offer: a request in between must not begin another dial.
                pool.queue.end_dial(*id);
                // The other streams of the new connection serve waiting requests.
                pool.serve();
            }
            Err(error) => {
                let timed_out = error.kind() == ErrorKind::ConnectionTimeout;
                let shared = SharedError::new(error);
                // Requests that share a connection fail together; those with one each do not.
                let since = pool.is_multiplexed().then_some(since);
                pool.queue.fail(*id, since, timed_out, || shared.error());
            }
        }
        pool.dial_for_waiting();
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        // Neither done nor aborted: its runtime is shutting down. Another dial would end there in
        // the same way, so that the requests on that runtime wait for nothing.
        if self.pool.queue.end_dial(self.id) {
            let error = || ForwardError::NoRuntime.into_error();
            self.pool.queue.fail_runtime(self.runtime, error);
            self.pool.dial_for_waiting();
        }
    }
}

/// Opens one connection, within the connect timeout.
pub(super) async fn open(
    pool: &Arc<Pool>,
    permit: Permit<Pool>,
) -> Result<PooledConnection, Error> {
    let settings = &pool.settings;
    let connecting = async {
        let stream = connect::open(&settings.connect, &pool.upstream).await?;
        let protocol = match pool.upstream.http_protocol() {
            Protocol::Alpn => stream.negotiated().unwrap_or(Protocol::Http1),
            protocol => protocol,
        };
        pool.set_negotiated(protocol);
        match protocol {
            Protocol::Http2 => open_http2(pool, stream, permit)
                .await
                .map(PooledConnection::Http2),
            // Future protocols fall back to HTTP/1.1.
            _ => Ok(PooledConnection::Http1(http1::Connection::new(
                settings,
                stream,
                pool.generation(),
                current_shard(),
                permit,
            ))),
        }
    };
    connect::within(settings.connect.timeout, pool.addr, connecting).await
}

/// Opens an HTTP/2 connection, adds it to the pool, and returns its first stream.
async fn open_http2(
    pool: &Arc<Pool>,
    stream: Stream,
    permit: Permit<Pool>,
) -> Result<http2::Stream<Pool>, Error> {
    let generation = pool.generation();
    let observer = Arc::downgrade(pool);
    let (mut connection, driver) =
        http2::Connection::handshake(&pool.settings, pool.addr, stream, permit, observer).await?;
    pool.http2.expect_streams(connection.max_streams());
    let first = connection.first_stream();
    // Added before the driver runs: a connection that ends at once must be there to be removed.
    // After a drain during the handshake, it serves only its first stream.
    if generation == pool.generation() {
        pool.http2.add(connection);
    }
    tokio::spawn(driver.run());
    Ok(first)
}
