//! The settings of a forwarder, and their defaults.

use std::num::NonZeroUsize;
use std::time::Duration;

use mesh_ingress_headers::framing::ResponseRules;
use mesh_ingress_io::MAX_READ;

use crate::breaker::FailureAccrual;
use crate::connect::ConnectSettings;
use crate::retry::RetryPolicy;

/// Which of several idle connections is used next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reuse {
    /// The most recently used one: the fewest connections do the work, the others age and are
    /// closed.
    #[default]
    Lifo,
    /// The least recently used one: load spreads over all connections and the pods that they lead
    /// to, and none is closed as long as there are requests for all.
    RoundRobin,
}

/// The settings of a [`Forwarder`](crate::Forwarder), fixed when it is built.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) connect: ConnectSettings,
    pub(crate) queue_timeout: Option<Duration>,
    pub(crate) response_header_timeout: Option<Duration>,
    pub(crate) request_body_timeout: Option<Duration>,
    pub(crate) body_idle_timeout: Option<Duration>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) tunnels: TunnelTimeouts,
    pub(crate) reuse: Reuse,
    pub(crate) max_idle: usize,
    pub(crate) max_connections: Option<usize>,
    pub(crate) max_connections_total: Option<usize>,
    pub(crate) max_waiting: usize,
    pub(crate) max_in_flight: Option<usize>,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) failure_accrual: Option<FailureAccrual>,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) max_requests: Option<u64>,
    pub(crate) max_header_size: usize,
    pub(crate) max_headers: usize,
    /// Made of the two above when the forwarder is built.
    pub(crate) response_rules: ResponseRules,
    pub(crate) shards: NonZeroUsize,
}

impl Settings {
    /// The largest read buffer of a connection: a header section must fit in, too.
    pub(crate) fn max_buffer(&self) -> usize {
        MAX_READ.max(self.max_header_size)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect: ConnectSettings {
                timeout: Some(Duration::from_secs(5)),
                retry: None,
                #[cfg(feature = "tls")]
                tls: std::collections::HashMap::new(),
            },
            queue_timeout: Some(Duration::from_secs(5)),
            response_header_timeout: Some(Duration::from_secs(60)),
            request_body_timeout: Some(Duration::from_secs(60)),
            body_idle_timeout: Some(Duration::from_secs(300)),
            request_timeout: None,
            idle_timeout: Some(Duration::from_secs(4)),
            tunnels: TunnelTimeouts::default(),
            reuse: Reuse::Lifo,
            max_idle: 256,
            max_connections: None,
            max_connections_total: None,
            max_waiting: 1024,
            max_in_flight: None,
            retry: None,
            failure_accrual: None,
            max_lifetime: Some(Duration::from_secs(60)),
            max_requests: None,
            max_header_size: 64 * 1024,
            max_headers: 100,
            response_rules: ResponseRules::default(),
            shards: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// How long a tunnel may be without traffic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TunnelTimeouts {
    /// While both ends are open.
    pub(crate) idle: Option<Duration>,
    /// Once one end has ended.
    pub(crate) half_closed: Option<Duration>,
}

impl TunnelTimeouts {
    /// The recommendation of ingress-nginx for WebSockets; its default of 60 s cuts off those that
    /// do not ping.
    pub(crate) const IDLE: Duration = Duration::from_secs(60 * 60);
    /// Enough for an answer to the end; HAProxy's manual has 30 s for `timeout client-fin`.
    pub(crate) const HALF_CLOSED: Duration = Duration::from_secs(60);
}

impl Default for TunnelTimeouts {
    fn default() -> Self {
        Self {
            idle: Some(Self::IDLE),
            half_closed: Some(Self::HALF_CLOSED),
        }
    }
}
