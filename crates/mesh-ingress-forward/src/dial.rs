//! Opening connections, in tasks of their own.
//!
//! A connection is opened *because* of a request, not *for* it: whatever is ready first, a new
//! connection or one that another request gives back, serves whoever waits longest. Therefore the
//! opening must not be part of a request's future, which may end before it.

use std::sync::Arc;

use mesh_ingress_core::{Error, ErrorKind, Protocol};
use tokio::runtime::{self, Handle};
use tokio::time::Instant;

use crate::connect;
use crate::error::{Failure, Shared};
use crate::lease::Lease;
use crate::permit::Permit;
use crate::pool::Pool;
use crate::{h1, h2};

/// Starts a task that opens one connection and hands it to whoever waits longest.
pub(crate) fn spawn(pool: &Arc<Pool>, permit: Permit, runtime: &Handle) {
    let number = pool.queue.begin();
    let dial = Dial {
        pool: Arc::clone(pool),
        number,
        runtime: runtime.id(),
    };
    let task = runtime.spawn(dial.run(permit));
    pool.queue.begun(number, task.abort_handle());
}

/// A dial under way.
struct Dial {
    pool: Arc<Pool>,
    number: u64,
    runtime: runtime::Id,
}

impl Dial {
    async fn run(self, permit: Permit) {
        let since = Instant::now();
        let Self { pool, number, .. } = &self;
        match open(pool, permit).await {
            Ok(lease) => {
                pool.hand(lease);
                // Only now: whoever looks in between must not miss one under way.
                pool.queue.ended(*number);
                // Its further streams.
                pool.serve();
            }
            Err(error) => {
                let overdue = error.kind() == ErrorKind::ConnectionTimeout;
                let shared = Shared::new(error);
                // Who shares a connection shares its fate; who has one of his own does not.
                let since = pool.shares().then_some(since);
                pool.queue.fail(*number, since, overdue, || shared.error());
            }
        }
        pool.dial_for_waiting();
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        // Neither done nor called off: its runtime is shutting down. Another dial would end there
        // as this one did, so those who wait there wait for nothing.
        if self.pool.queue.ended(self.number) {
            let error = || Failure::NoRuntime.into_error();
            self.pool.queue.forsake(self.runtime, error);
            self.pool.dial_for_waiting();
        }
    }
}

/// Opens one connection, within the connect timeout.
pub(crate) async fn open(pool: &Arc<Pool>, permit: Permit) -> Result<Lease, Error> {
    let connecting = async {
        let stream = connect::open(pool).await?;
        let protocol = match pool.upstream.http_protocol() {
            Protocol::Alpn => stream.negotiated().unwrap_or(Protocol::Http1),
            protocol => protocol,
        };
        pool.learn(protocol);
        match protocol {
            Protocol::Http2 => h2::open(pool, stream, permit).await.map(Lease::Http2),
            // Protocols to come are spoken as what every origin understands.
            _ => Ok(Lease::Http1(h1::open(pool, stream, permit))),
        }
    };
    connect::within(pool.settings.connect_timeout, pool.addr, connecting).await
}
