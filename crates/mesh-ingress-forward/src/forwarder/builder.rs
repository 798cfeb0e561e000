//! Builds a forwarder.

use std::num::NonZeroUsize;
use std::time::Duration;

use mesh_ingress_headers::framing::ResponseRules;

use super::Forwarder;
#[cfg(feature = "tls")]
use crate::connect::TlsClient;
use crate::settings::{Reuse, Settings};
use crate::{FailureAccrual, RetryPolicy};

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
        self.settings.connect.timeout = non_zero(timeout);
        self
    }

    /// For how long a refused connection is tried again, with pauses of 20 ms to 200 ms, within the
    /// connect timeout. Default: `None`, a refusal is final.
    ///
    /// Behind a sidecar a refusal means that the sidecar is starting: for a Service without pods it
    /// accepts the connection and answers. Nothing has been sent, so that any request may wait.
    pub fn connect_retry(mut self, retry: impl Into<Option<Duration>>) -> Self {
        self.settings.connect.retry = non_zero(retry);
        self
    }

    /// How long the upstream may take to begin its response after it has the whole request.
    /// Default: 60 s, ingress-nginx's `proxy-read-timeout`. Beyond it: `http_response_timeout`.
    pub fn response_header_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.response_header_timeout = non_zero(timeout);
        self
    }

    /// How long a request body may make no progress. Default: 60 s, ingress-nginx's
    /// `client-body-timeout` and `proxy-send-timeout`. Beyond it: `http_request_error` (408) if the
    /// client sends nothing, `connection_write_timeout` if the upstream reads nothing.
    pub fn request_body_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.request_body_timeout = non_zero(timeout);
        self
    }

    /// How long a request may take in all, from the call to the end of the response's body.
    /// Default: `None`, because downloads and event streams have no natural limit. Beyond it:
    /// `http_response_timeout`, or a truncated response if that has begun.
    ///
    /// A gRPC client's `grpc-timeout` applies, too, if it is shorter.
    pub fn request_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.request_timeout = non_zero(timeout);
        self
    }

    /// How long the upstream may send nothing in the middle of a response body. Default: 5 min,
    /// Envoy's `stream_idle_timeout`. Beyond it: `connection_read_timeout`, and the client sees a
    /// truncated response.
    ///
    /// The clock stops while the client does not read: then the upstream is not read either.
    pub fn body_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.body_idle_timeout = non_zero(timeout);
        self
    }

    /// How long an unused connection is kept. Default: 4 s, which is below the keep-alive of
    /// common servers (Node.js closes after 5 s) and far below the 900 s after which IPVS forgets
    /// a flow. With `None` it is kept until the upstream closes it.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.idle_timeout = non_zero(timeout);
        self
    }

    /// How long an upgraded connection, such as a WebSocket, may be without traffic in both
    /// directions before it is closed on both sides. Default: 1 h, which ingress-nginx's manual
    /// recommends as `proxy-read-timeout` for WebSockets: its default of 60 s, and Envoy's of 5
    /// min, cut off those that do not ping. It may take an eighth longer.
    ///
    /// With `None`, tunnels of clients that vanished without a FIN or RST stay until the kernel
    /// gives up.
    pub fn tunnel_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.tunnels.idle = non_zero(timeout);
        self
    }

    /// The same once one side has ended. Default: 60 s; the shorter of the two timeouts applies.
    pub fn tunnel_half_closed_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.tunnels.half_closed = non_zero(timeout);
        self
    }

    /// Which idle connection is used next. Default: [`Reuse::Lifo`].
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.settings.reuse = reuse;
        self
    }

    /// How many connections may be open to one upstream: in use, idle, being opened, and upgraded.
    /// Default: `None`, no limit. Requests beyond it wait in the order they came, within
    /// [`queue_timeout`](Self::queue_timeout) and [`max_waiting`](Self::max_waiting).
    pub fn max_connections(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.settings.max_connections = connections.into().filter(|&max| max > 0);
        self
    }

    /// How many connections may be open to all upstreams of the forwarder together. Default:
    /// `None`, no limit. An idle connection to one upstream is closed for a request to another.
    pub fn max_connections_total(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.settings.max_connections_total = connections.into().filter(|&max| max > 0);
        self
    }

    /// How many requests may wait for a connection to one upstream while a limit keeps it from
    /// being opened. Default: 1024, Envoy's `max_pending_requests`. Beyond it:
    /// `connection_limit_reached` (503).
    pub fn max_waiting(mut self, requests: usize) -> Self {
        self.settings.max_waiting = requests;
        self
    }

    /// How long a request may wait for a connection while a limit keeps it from being opened.
    /// Default: 5 s. Beyond it: `connection_limit_reached` (503).
    pub fn queue_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.queue_timeout = non_zero(timeout);
        self
    }

    /// How many requests may be in flight until the end of their responses' bodies, without
    /// upgraded connections. Default: `None`, no limit. At the limit the service's `poll_ready` is
    /// pending; a request without `poll_ready`, and each through an
    /// [`UpstreamPool`](crate::UpstreamPool), fails with `connection_limit_reached` (503), so that
    /// a gateway sheds load.
    pub fn max_in_flight(mut self, requests: impl Into<Option<usize>>) -> Self {
        self.settings.max_in_flight = requests.into().filter(|&max| max > 0);
        self
    }

    /// Retries failed requests by a policy. Default: `None`, because behind a sidecar the mesh does
    /// that already: see [`RetryPolicy`]. A request that no upstream has seen is sent again without
    /// a policy.
    pub fn retry(mut self, policy: impl Into<Option<RetryPolicy>>) -> Self {
        self.settings.retry = policy.into();
        self
    }

    /// Breaks the circuit to an upstream after failures in a row: requests then fail at once, with
    /// `destination_unavailable` (503). Default: `None`, because a ClusterIP stands for many pods,
    /// and the mesh ejects the one that fails: see [`FailureAccrual`].
    pub fn failure_accrual(mut self, accrual: impl Into<Option<FailureAccrual>>) -> Self {
        self.settings.failure_accrual = accrual.into();
        self
    }

    /// How many unused connections are kept for one upstream. Default: 256. Zero turns reuse off.
    pub fn max_idle(mut self, connections: usize) -> Self {
        self.settings.max_idle = connections;
        self
    }

    /// The age after which a connection is not used for another request, less up to a tenth at
    /// random. Default: 60 s.
    ///
    /// kube-proxy chooses a pod per *connection*: if connections never end, a new pod gets no
    /// requests.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.settings.max_lifetime = non_zero(lifetime);
        self
    }

    /// The number of requests after which a connection is not used for another, less up to a tenth
    /// at random. Default: `None`, no limit.
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

    /// Into how many lists the idle connections of an upstream are divided, so that threads do not
    /// contend for one lock: as many as there are threads that send requests. Default: the number
    /// of cores. A thread prefers connections that it opened, and takes those of other threads
    /// before it opens a new one. With one list, for a single thread, it is stored inline in the
    /// pool.
    pub fn shards(mut self, shards: NonZeroUsize) -> Self {
        self.settings.shards = shards;
        self
    }

    /// How TLS is spoken to upstreams whose [`Tls`](mesh_ingress_core::Tls) names this profile;
    /// those that name none use `default`. Default: no profile, and requests to an upstream that
    /// asks for TLS fail with `proxy_configuration_error`.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_profile(mut self, name: impl Into<String>, client: TlsClient) -> Self {
        self.settings.connect.tls.insert(name.into(), client);
        self
    }

    /// The forwarder. It opens connections when requests come.
    pub fn build(mut self) -> Forwarder {
        let settings = &mut self.settings;
        let rules = ResponseRules::builder()
            .max_fields(settings.max_headers)
            .max_section(settings.max_header_size);
        // Fails only for limits so low that no response could pass; both have a minimum.
        settings.response_rules = rules.build().unwrap_or_default();
        Forwarder::new(self.settings)
    }
}

/// A timeout of zero is off.
fn non_zero(timeout: impl Into<Option<Duration>>) -> Option<Duration> {
    timeout.into().filter(|timeout| !timeout.is_zero())
}
