//! The client's connection.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// The scheme a client used towards this gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// Cleartext.
    #[default]
    Http,
    /// TLS, terminated here or at a load balancer that is trusted to say so.
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

    /// The default port: 80 or 443.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A client's connection, as the server knows it: a request extension.
///
/// `mesh-ingress-server` inserts it into each request; with another server, the code that accepts connections
/// has to. The forwarded-headers stage and access rules read it. Without it, nothing about the client is
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
///
/// Clones are of the same connection: they share what a service [remembers](Self::memo) of it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Downstream {
    /// The address of the client.
    pub peer: SocketAddr,
    /// The scheme the client used.
    pub scheme: Scheme,
    /// The address the client connected to; `None` if the server did not say.
    pub local: Option<SocketAddr>,
    /// The port of the listener, which may differ from that of `local` behind a port mapping; `None`
    /// if the server did not say.
    pub listener_port: Option<u16>,
    memo: Arc<OnceLock<Box<dyn Any + Send + Sync>>>,
}

impl Downstream {
    /// A cleartext client at `peer`.
    #[must_use]
    pub fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            scheme: Scheme::Http,
            local: None,
            listener_port: None,
            memo: Arc::default(),
        }
    }

    /// Sets the scheme the client used.
    #[must_use]
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// Sets the address the client connected to.
    #[must_use]
    pub fn local(mut self, addr: SocketAddr) -> Self {
        self.local = Some(addr);
        self
    }

    /// Sets the port of the listener.
    #[must_use]
    pub fn listener_port(mut self, port: u16) -> Self {
        self.listener_port = Some(port);
        self
    }

    /// What a service remembers about the connection, so that work is done once a connection instead of
    /// once a request. The first call decides what is remembered, by calling `make`. `None` if that
    /// was something of another type: a connection has room for one service's memory.
    ///
    /// ```
    /// use mesh_ingress_core::Downstream;
    ///
    /// let client = Downstream::new("203.0.113.7:51000".parse()?);
    /// let ip = client.memo(|| client.peer.ip().to_string());
    /// assert_eq!(ip.unwrap(), "203.0.113.7");
    /// assert!(client.clone().memo(|| 7_u8).is_none());
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[inline]
    pub fn memo<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        let memo = self.memo.get_or_init(|| Box::new(make()));
        (**memo).downcast_ref()
    }

    /// Drops what a service [remembers](Self::memo), unless a clone is in use: a server calls it for a
    /// connection that is idle.
    pub fn forget_memo(&mut self) {
        if let Some(memo) = Arc::get_mut(&mut self.memo) {
            memo.take();
        }
    }

    /// Whether both are of the same connection.
    #[inline]
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memo, &other.memo)
    }
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downstream")
            .field("peer", &self.peer)
            .field("scheme", &self.scheme)
            .field("local", &self.local)
            .field("listener_port", &self.listener_port)
            .finish_non_exhaustive()
    }
}
