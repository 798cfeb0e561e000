//! What can be set, and what is set unless somebody does.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::Forwarder;

/// The settings of a [`Forwarder`], fixed when it is built.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) connect_retry: Option<Duration>,
    pub(crate) response_header_timeout: Option<Duration>,
    pub(crate) body_idle_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_idle: usize,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) max_requests: Option<u64>,
    pub(crate) max_header_size: usize,
    pub(crate) max_headers: usize,
    pub(crate) shards: NonZeroUsize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Some(Duration::from_secs(5)),
            connect_retry: None,
            response_header_timeout: Some(Duration::from_secs(60)),
            body_idle_timeout: Some(Duration::from_secs(300)),
            idle_timeout: Some(Duration::from_secs(4)),
            max_idle: 256,
            max_lifetime: Some(Duration::from_secs(60)),
            max_requests: None,
            max_header_size: 64 * 1024,
            max_headers: 100,
            shards: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// What may wait in memory of a body on one connection, and what is read at once. Small enough for
/// thousands of clients that read slowly, large enough to fill a fast connection.
const BUFFER: usize = 128 * 1024;

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
    ///
    /// While a request body is still streaming in, the clock starts anew with every piece of it.
    pub fn response_header_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.response_header_timeout = on(timeout);
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

    /// The largest number of fields in a response's header section. Default: 100.
    pub fn max_headers(mut self, fields: usize) -> Self {
        self.settings.max_headers = fields.max(1);
        self
    }

    /// Into how many parts the idle connections of an upstream are divided, so that threads do not
    /// wait for each other. Default: the number of cores. A thread prefers connections that it
    /// opened, and takes those of others before it opens a new one.
    pub fn shards(mut self, shards: NonZeroUsize) -> Self {
        self.settings.shards = shards;
        self
    }

    /// The forwarder. Connections are opened when requests come.
    pub fn build(self) -> Forwarder {
        Forwarder::new(self.settings)
    }
}

fn on(timeout: impl Into<Option<Duration>>) -> Option<Duration> {
    timeout.into().filter(|timeout| !timeout.is_zero())
}
