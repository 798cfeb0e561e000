//! Who asked.

use std::net::SocketAddr;

/// The scheme a client used towards this gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Cleartext.
    #[default]
    Http,
    /// TLS, ended here or at a load balancer that is believed to say so.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that goes without saying: 80 or 443.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What the acceptor of a connection knows about it: a request extension.
///
/// Whoever accepts connections inserts it (or hands it to the facade once per connection); the
/// forwarded-headers stage and access rules read it. Without it, nothing about the client is
/// claimed to the upstream.
///
/// ```
/// use mesh_ingress_core::{Downstream, Scheme};
///
/// let client = Downstream::new("203.0.113.7:51000".parse()?)
///     .scheme(Scheme::Https)
///     .listener_port(443);
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(client);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Downstream {
    /// The address of the client, after PROXY protocol if that is in use.
    pub peer: SocketAddr,
    /// The scheme the client used.
    pub scheme: Scheme,
    /// The port the client connected to; `None` if the acceptor did not say.
    pub listener_port: Option<u16>,
}

impl Downstream {
    /// A cleartext client at `peer`.
    #[must_use]
    pub fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            scheme: Scheme::Http,
            listener_port: None,
        }
    }

    /// Sets the scheme the client used.
    #[must_use]
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// Sets the port the client connected to.
    #[must_use]
    pub fn listener_port(mut self, port: u16) -> Self {
        self.listener_port = Some(port);
        self
    }
}
