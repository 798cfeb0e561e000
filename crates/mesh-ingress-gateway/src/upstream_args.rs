//! Options of the connections to services.

use std::num::NonZeroUsize;
use std::time::Duration;

use mesh_ingress::forward::{FailureAccrual, Forwarder, RetryPolicy, Reuse};

use crate::args::DataPlane;
use crate::{Failure, duration};

/// How services are connected to, and how long for.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connections to services (times: 30, 1.5s, 500ms, 5m; 0 is off)")]
pub(crate) struct UpstreamArgs {
    /// How long connecting may take, handshakes included.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    connect_timeout: Duration,

    /// For how long a refused connection is tried again [default: 2s behind a sidecar, 0
    /// otherwise].
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    connect_retry: Option<Duration>,

    /// How long a request may wait for a connection where --max-connections keeps it from being
    /// opened.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    queue_timeout: Duration,

    /// How long a service may take to begin its response.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    response_header_timeout: Duration,

    /// How long a request's body may make no progress.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    request_body_timeout: Duration,

    /// How long a service may send nothing in the middle of a response.
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = duration::parse)]
    response_body_timeout: Duration,

    /// How long a request may take in all, its response included. Cuts long downloads and event
    /// streams.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration::parse)]
    request_timeout: Duration,

    /// How long a WebSocket or another upgraded connection may carry nothing.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration::parse)]
    tunnel_idle_timeout: Duration,

    /// How long an unused connection is kept; with 0, until the service closes it.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = duration::parse)]
    idle_timeout: Duration,

    /// Age at which a connection is replaced, so that kube-proxy chooses a pod anew.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    max_lifetime: Duration,

    /// Number of requests after which a connection is replaced; 0 is never.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_requests: u64,

    /// Connections to one service at most, WebSockets included; 0 is no limit. Further requests
    /// wait.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_connections: usize,

    /// Connections to all services together at most; 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_connections_total: usize,

    /// Requests under way at most; further ones are answered with 503 at once. 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_in_flight: usize,

    /// Use idle connections in turn instead of the one used last.
    #[arg(long)]
    round_robin: bool,

    /// How often a request of an idempotent method (GET, HEAD, OPTIONS, PUT, DELETE) is sent again
    /// after 502, 503, 504 or a broken connection. Behind a sidecar the mesh does that already, and
    /// the two multiply.
    #[arg(long, value_name = "N", default_value_t = 0)]
    retry: u32,

    /// How many retries there may be for each hundred requests.
    #[arg(long, value_name = "PERCENT", default_value_t = 20, requires = "retry")]
    retry_budget: u32,

    /// How long each try may take to bring a response; 0 is as long as --response-header-timeout.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration::parse, requires = "retry")]
    retry_try_timeout: Duration,

    /// Number of failures in a row after which a service is left alone for a while (503 at once);
    /// 0 is never.
    #[arg(long, value_name = "N", default_value_t = 0)]
    failure_accrual: u16,
}

impl UpstreamArgs {
    /// The forwarder they describe, for so many workers.
    pub(crate) fn forwarder(
        &self,
        mesh: DataPlane,
        workers: NonZeroUsize,
    ) -> Result<Forwarder, Failure> {
        let reuse = match self.round_robin {
            true => Reuse::RoundRobin,
            false => Reuse::Lifo,
        };
        Ok(Forwarder::builder()
            .connect_timeout(self.connect_timeout)
            .connect_retry(self.connect_retry(mesh))
            .queue_timeout(self.queue_timeout)
            .response_header_timeout(self.response_header_timeout)
            .request_body_timeout(self.request_body_timeout)
            .body_idle_timeout(self.response_body_timeout)
            .request_timeout(self.request_timeout)
            .tunnel_idle_timeout(self.tunnel_idle_timeout)
            .idle_timeout(self.idle_timeout)
            .max_lifetime(self.max_lifetime)
            .max_requests(self.max_requests)
            .max_connections(self.max_connections)
            .max_connections_total(self.max_connections_total)
            .max_in_flight(self.max_in_flight)
            .reuse(reuse)
            .shards(workers)
            .retry(self.retry_policy()?)
            .failure_accrual(self.accrual()?)
            .build())
    }

    /// A sidecar that refuses is starting; anything else that does has nobody to answer.
    fn connect_retry(&self, mesh: DataPlane) -> Duration {
        self.connect_retry.unwrap_or(match mesh {
            DataPlane::IstioSidecar | DataPlane::Linkerd => Duration::from_secs(2),
            DataPlane::None | DataPlane::IstioAmbient => Duration::ZERO,
        })
    }

    fn retry_policy(&self) -> Result<Option<RetryPolicy>, Failure> {
        if self.retry == 0 {
            return Ok(None);
        }
        let policy = RetryPolicy::builder()
            .attempts(self.retry.saturating_add(1))
            .budget(self.retry_budget)
            .per_try_timeout(self.retry_try_timeout);
        Ok(Some(policy.build()?))
    }

    fn accrual(&self) -> Result<Option<FailureAccrual>, Failure> {
        if self.failure_accrual == 0 {
            return Ok(None);
        }
        let accrual = FailureAccrual::builder().consecutive_failures(self.failure_accrual);
        Ok(Some(accrual.build()?))
    }
}
