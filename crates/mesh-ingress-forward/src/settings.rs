//! What can be set, and what is set unless somebody does.

#[cfg(feature = "tls")]
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use mesh_ingress_headers::framing::ResponseRules;

#[cfg(feature = "tls")]
use crate::TlsClient;
use crate::tunnel::Limits;
use crate::{FailureAccrual, Forwarder, RetryPolicy};

/// Which of several idle connections is used next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reuse {
    /// The one used last: the fewest connections do the work, the others age and are closed.
    #[default]
    Lifo,
    /// The one unused for longest: all are used in turn, so that load spreads over the pods they
    /// lead to, and none is closed as long as there are requests for all.
    RoundRobin,
}

/// The settings of a [`Forwarder`], fixed when it is built.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) connect_retry: Option<Duration>,
    pub(crate) queue_timeout: Option<Duration>,
    pub(crate) response_header_timeout: Option<Duration>,
    pub(crate) request_body_timeout: Option<Duration>,
    pub(crate) body_idle_timeout: Option<Duration>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) tunnels: Limits,
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
    #[cfg(feature = "tls")]
    pub(crate) tls: HashMap<String, TlsClient>,
}

impl Settings {
    /// Whether TLS can be spoken as this profile says.
    #[cfg(feature = "tls")]
    pub(crate) fn has_tls_profile(&self, name: &str) -> bool {
        self.tls.contains_key(name)
    }

    #[cfg(not(feature = "tls"))]
    pub(crate) fn has_tls_profile(&self, _: &str) -> bool {
        false
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Some(Duration::from_secs(5)),
            connect_retry: None,
            queue_timeout: Some(Duration::from_secs(5)),
            response_header_timeout: Some(Duration::from_secs(60)),
            request_body_timeout: Some(Duration::from_secs(60)),
            body_idle_timeout: Some(Duration::from_secs(300)),
            request_timeout: None,
            idle_timeout: Some(Duration::from_secs(4)),
            tunnels: Limits::default(),
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
            #[cfg(feature = "tls")]
            tls: HashMap::new(),
        }
    }
}

/// What is read of a body at once at most, and may wait in memory of one connection. With a third of
/// it a response of 1 MiB costs a third more, and with twice as much no less.
const BUFFER: usize = 416 * 1024;

impl Settings {
    /// A header section must fit in, too.
    pub(crate) fn max_buffer(&self) -> usize {
        BUFFER.max(self.max_header_size)
    }
}

/// Builds a [`Forwarder`]. Every setting has a default that fits a ClusterIP in a mesh; a timeout
/// of `None` or zero is off.
///
/// ```
/// use std::time::Duration;
/// use mesh_ingress_forward::Forwarder;
///
/// let forwarder = Forwarder::builder()
///     .connect_timeout(Duration::from_secs(1))
///     .max_lifetime(None)
///     .build();
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct ForwarderBuilder {
    settings: Settings,
}

impl ForwarderBuilder {
    /// How long connecting may take, all addresses and the HTTP/2 preface included. Default: 5 s,
    /// ingress-nginx's `proxy-connect-timeout`. Beyond it: `connection_timeout`.
    pub fn connect_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.connect_timeout = on(timeout);
        self
    }

    /// For how long a connection that is refused is tried again, with pauses of 20 ms to 200 ms,
    /// within the connect timeout. Default: `None`, a refusal is final.
    ///
    /// Behind a sidecar a refusal means that the sidecar is (re)starting: Services without pods are
    /// answered by it, not refused. Nothing has been sent, so that any request may wait.
    pub fn connect_retry(mut self, retry: impl Into<Option<Duration>>) -> Self {
        self.settings.connect_retry = on(retry);
        self
    }

    /// How long the upstream may take to begin its response once it has the whole request.
    /// Default: 60 s, ingress-nginx's `proxy-read-timeout`. Beyond it: `http_response_timeout`.
    pub fn response_header_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.response_header_timeout = on(timeout);
        self
    }

    /// How long a request body may make no progress. Default: 60 s, ingress-nginx's
    /// `client-body-timeout` and `proxy-send-timeout`. Beyond it: `http_request_error` (408) where
    /// the client sends nothing, `connection_write_timeout` where the upstream takes nothing.
    pub fn request_body_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.request_body_timeout = on(timeout);
        self
    }

    /// How long a request may take in all, from when it is sent off to the end of the response's
    /// body. Default: `None`: downloads and event streams last as long as they last. Beyond it:
    /// `http_response_timeout`, or a truncated response if that has begun.
    ///
    /// A gRPC client's `grpc-timeout` counts, too, where it is shorter.
    pub fn request_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.request_timeout = on(timeout);
        self
    }

    /// How long the upstream may send nothing in the middle of a response body. Default: 5 min,
    /// Envoy's `stream_idle_timeout`. Beyond it: `connection_read_timeout`, and the client sees a
    /// truncated response.
    ///
    /// A client that does not read does not count: then nothing is asked of the upstream.
    pub fn body_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.body_idle_timeout = on(timeout);
        self
    }

    /// How long an unused connection is kept. Default: 4 s, which is below the keep-alive of
    /// common servers (Node.js closes after 5 s) and far below the 900 s after which IPVS forgets
    /// a flow. With `None` it is kept until the upstream closes it.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.idle_timeout = on(timeout);
        self
    }

    /// How long nothing may go through an upgraded connection, such as a WebSocket, in either
    /// direction, before it is closed on both sides. Default: 1 h, what ingress-nginx's manual
    /// recommends as `proxy-read-timeout` for WebSockets: its own 60 s, and the 5 min of Envoy,
    /// cut off those that do not ping. It may take an eighth longer.
    ///
    /// With `None`, tunnels of clients that vanished without a word stay until the kernel finds out.
    pub fn tunnel_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.tunnels.idle = on(timeout);
        self
    }

    /// The same once one side has ended and the other may still have something to say. Default:
    /// 60 s; the shorter of the two counts.
    pub fn tunnel_half_closed_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.tunnels.half_closed = on(timeout);
        self
    }

    /// Which idle connection is used next. Default: [`Reuse::Lifo`].
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.settings.reuse = reuse;
        self
    }

    /// How many connections may be open to one upstream: used, idle, being opened, and upgraded
    /// ones. Default: `None`, no bound. Requests beyond it wait in the order they came, within
    /// [`queue_timeout`](Self::queue_timeout) and [`max_waiting`](Self::max_waiting).
    pub fn max_connections(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.settings.max_connections = connections.into().filter(|&max| max > 0);
        self
    }

    /// How many connections may be open to all upstreams of the forwarder together. Default:
    /// `None`, no bound. An idle connection to one upstream is closed for a request to another.
    pub fn max_connections_total(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.settings.max_connections_total = connections.into().filter(|&max| max > 0);
        self
    }

    /// How many requests may wait for a connection to one upstream where a bound keeps it from
    /// being opened. Default: 1024, Envoy's `max_pending_requests`. Beyond it:
    /// `connection_limit_reached` (503).
    pub fn max_waiting(mut self, requests: usize) -> Self {
        self.settings.max_waiting = requests;
        self
    }

    /// How long a request may wait for a connection where a bound keeps it from being opened.
    /// Default: 5 s. Beyond it: `connection_limit_reached` (503).
    pub fn queue_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.queue_timeout = on(timeout);
        self
    }

    /// How many requests may be in flight, their responses' bodies included, upgraded connections
    /// not. Default: `None`, no bound. At the bound the service's `poll_ready` is pending; a
    /// request that is sent without asking it, and each that is sent to a pool of one's own, fails
    /// with `connection_limit_reached` (503): a gateway sheds it.
    pub fn max_in_flight(mut self, requests: impl Into<Option<usize>>) -> Self {
        self.settings.max_in_flight = requests.into().filter(|&max| max > 0);
        self
    }

    /// Sends failed requests again as the policy says. Default: `None`, because behind a sidecar
    /// the mesh does that already: see [`RetryPolicy`]. What nobody has seen is sent again without
    /// any policy.
    pub fn retry(mut self, policy: impl Into<Option<RetryPolicy>>) -> Self {
        self.settings.retry = policy.into();
        self
    }

    /// Leaves an upstream alone for a while after so many failures in a row: requests then fail at
    /// once, with `destination_unavailable` (503). Default: `None`, because a ClusterIP stands for
    /// many pods, and the mesh leaves alone the one that fails: see [`FailureAccrual`].
    pub fn failure_accrual(mut self, accrual: impl Into<Option<FailureAccrual>>) -> Self {
        self.settings.failure_accrual = accrual.into();
        self
    }

    /// How many unused connections are kept for one upstream. Default: 256. Zero turns reuse off.
    pub fn max_idle(mut self, connections: usize) -> Self {
        self.settings.max_idle = connections;
        self
    }

    /// After what age a connection is not used for another request, less up to a tenth at random.
    /// Default: 60 s.
    ///
    /// kube-proxy chooses a pod per *connection*: without an end to them, one pod gets everything
    /// and a new pod gets nothing.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.settings.max_lifetime = on(lifetime);
        self
    }

    /// After how many requests a connection is not used for another, less up to a tenth at random.
    /// Default: `None`, no limit.
    pub fn max_requests(mut self, requests: impl Into<Option<u64>>) -> Self {
        self.settings.max_requests = requests.into().filter(|&requests| requests > 0);
        self
    }

    /// The largest header section of a response, in bytes. Default: 64 KiB; at least 8 KiB.
    /// Beyond it: `http_response_header_section_size`.
    pub fn max_header_size(mut self, bytes: usize) -> Self {
        self.settings.max_header_size = bytes.max(8 * 1024);
        self
    }

    /// The largest number of fields in a response's header section. Default: 100; at most 10,000.
    /// Beyond it: `http_response_header_section_size`.
    pub fn max_headers(mut self, fields: usize) -> Self {
        self.settings.max_headers = fields.clamp(1, 10_000);
        self
    }

    /// Into how many parts the idle connections of an upstream are divided, so that threads do not
    /// wait for each other: as many as there are threads that send requests. Default: the number of
    /// cores. A thread prefers connections that it opened, and takes those of others before it opens a
    /// new one. One is for one thread: they are then where the rest of what it looks at is.
    pub fn shards(mut self, shards: NonZeroUsize) -> Self {
        self.settings.shards = shards;
        self
    }

    /// How TLS is spoken to upstreams whose [`Tls`](mesh_ingress_core::Tls) names this profile;
    /// `default` is the one of those that name none. Default: there is no profile, and an upstream
    /// that asks for TLS fails with `proxy_configuration_error`.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_profile(mut self, name: impl Into<String>, client: TlsClient) -> Self {
        self.settings.tls.insert(name.into(), client);
        self
    }

    /// The forwarder. Connections are opened when requests come.
    pub fn build(mut self) -> Forwarder {
        let settings = &mut self.settings;
        let rules = ResponseRules::builder()
            .max_fields(settings.max_headers)
            .max_section(settings.max_header_size);
        // Fails where nothing could pass, and both have a floor.
        settings.response_rules = rules.build().unwrap_or_default();
        Forwarder::new(self.settings)
    }
}

fn on(timeout: impl Into<Option<Duration>>) -> Option<Duration> {
    timeout.into().filter(|timeout| !timeout.is_zero())
}
