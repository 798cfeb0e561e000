//! A route: what it matches and where it sends.

use std::sync::Arc;

use std::borrow::Cow;

use http::{Method, StatusCode};
use mesh_ingress_core::{ParseError, Protocol, ServiceRef, Tls, VhostPolicy};

use crate::action::{Action, Redirect};
use crate::backend::Backend;
use crate::condition::{Conditions, ConditionsKey, HeaderMatch, QueryMatch, ValueMatch};
use crate::host::{HostRule, WildcardScope};
use crate::path::{PathMatch, PathRule};

/// A rule for requests: the ones it matches, and its backends or action.
///
/// Built by chaining. Nothing is checked until the routes become a
/// [`RouteTable`](crate::RouteTable), which names the invalid route and part.
///
/// ```
/// use mesh_ingress_core::Protocol;
/// use mesh_ingress_route::{Backend, Route};
///
/// let web = Route::host("shop.example.com")
///     .path_prefix("/")
///     .weighted([
///         Backend::new("web.default:80".parse()?).weight(90),
///         Backend::new("web-canary.default:80".parse()?).weight(10),
///     ]);
/// let grpc = Route::host("*.example.com")
///     .path_prefix("/shop.v1.Cart")
///     .to("cart.default:grpc".parse()?)
///     .protocol(Protocol::Http2);
/// assert_eq!(web.backends().len(), 2);
/// assert_eq!(grpc.to_string(), "*.example.com/shop.v1.Cart=cart.default:grpc");
/// # Ok::<(), mesh_ingress_core::ParseError>(())
/// ```
///
/// # Text form
///
/// For command lines and tests a route can be written `HOST[PATH]=SERVICE`:
///
/// | text | means |
/// |---|---|
/// | `shop.example.com/=web.default:80` | every path of the host |
/// | `shop.example.com=web.default:80` | the same |
/// | `*.example.com/api=api.default:http` | a wildcard host, `/api` and all paths below it |
/// | `*/=web.default:80` | any host |
/// | `shop.example.com=/login=auth.default:80` | `/login` exactly (nginx: `location = /login`) |
/// | `shop.example.com/img*=img.default:80` | all paths that begin with `/img`, also `/images` |
/// | `*/=web.default:80@90,new.default:80@10` | several backends by weight |
///
/// With the feature `regex`, `shop.example.com~/v[0-9]+/=api.default:80` is a regular expression.
/// `Display` writes the same form back; method, headers and query are shown as
/// [`get_name`](Self::get_name) shows them, and cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    host: Box<str>,
    wildcard: WildcardScope,
    path: PathMatch,
    method: Option<Method>,
    headers: Vec<HeaderMatch>,
    query: Vec<QueryMatch>,
    backends: Vec<Backend>,
    vhost: VhostPolicy,
    protocol: Protocol,
    tls: Option<Arc<Tls>>,
    action: Action,
    name: Option<Box<str>>,
}

/// The comparable form of what a route matches. Made by [`Route::match_key`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MatchKey {
    host: HostRule,
    path: PathRule,
    conditions_key: ConditionsKey,
}

/// The compiled form of a route.
pub(crate) struct Compiled {
    pub(crate) key: MatchKey,
    pub(crate) host: HostRule,
    pub(crate) path: PathRule,
    pub(crate) conditions: Conditions,
}

impl Route {
    /// A route for one host, or for a wildcard such as `*.example.com`, and all its paths.
    ///
    /// Case and a trailing dot do not matter; the port of a request is ignored, so none belongs
    /// here. `*` alone is [any host](Self::any_host). Names that are not ASCII are to be written
    /// in their `xn--` form, as clients send them.
    #[must_use]
    pub fn host(host: impl Into<Box<str>>) -> Self {
        Self {
            host: host.into(),
            wildcard: WildcardScope::default(),
            path: PathMatch::default(),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            backends: Vec::new(),
            vhost: VhostPolicy::default(),
            protocol: Protocol::default(),
            tls: None,
            action: Action::default(),
            name: None,
        }
    }

    /// A route for any host, and all its paths.
    #[must_use]
    pub fn any_host() -> Self {
        Self::host("*")
    }

    /// Sets how many labels the `*` of a wildcard host covers. Default: one, as in an Ingress.
    #[must_use]
    pub fn wildcard(mut self, scope: WildcardScope) -> Self {
        self.wildcard = scope;
        self
    }

    /// Matches a path and all paths below it, element by element. The default is `/`: all paths.
    #[must_use]
    pub fn path_prefix(self, path: impl Into<Box<str>>) -> Self {
        self.path(PathMatch::Prefix(path.into()))
    }

    /// Matches one path only.
    #[must_use]
    pub fn path_exact(self, path: impl Into<Box<str>>) -> Self {
        self.path(PathMatch::Exact(path.into()))
    }

    /// Matches paths by a regular expression, from their beginning and ignoring case; tried after all
    /// exact paths and prefixes of the host.
    #[cfg(feature = "regex")]
    #[cfg_attr(docsrs, doc(cfg(feature = "regex")))]
    #[must_use]
    pub fn path_regex(self, pattern: impl Into<Box<str>>) -> Self {
        self.path(PathMatch::Regex(pattern.into()))
    }

    /// Sets how the path is matched.
    #[must_use]
    pub fn path(mut self, path: PathMatch) -> Self {
        self.path = path;
        self
    }

    /// Matches requests with this method only.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Matches requests with this header only: the name ignoring case, the value exactly.
    /// Several conditions must all be met.
    #[must_use]
    pub fn header(self, name: impl Into<Box<str>>, value: impl Into<Box<str>>) -> Self {
        self.header_match(HeaderMatch::new(name, ValueMatch::Exact(value.into())))
    }

    /// Adds a condition on a header.
    #[must_use]
    pub fn header_match(mut self, condition: HeaderMatch) -> Self {
        self.headers.push(condition);
        self
    }

    /// Matches requests with this query parameter only. Several conditions must all be met.
    #[must_use]
    pub fn query(self, name: impl Into<Box<str>>, value: impl Into<Box<str>>) -> Self {
        self.query_match(QueryMatch::new(name, ValueMatch::Exact(value.into())))
    }

    /// Adds a condition on a query parameter.
    #[must_use]
    pub fn query_match(mut self, condition: QueryMatch) -> Self {
        self.query.push(condition);
        self
    }

    /// Forwards to a Service. Another call adds a backend of the same weight.
    #[must_use]
    pub fn to(self, service: ServiceRef) -> Self {
        self.to_backend(Backend::new(service))
    }

    /// Adds a backend.
    #[must_use]
    pub fn to_backend(mut self, mut backend: Backend) -> Self {
        backend.inherit(&self.vhost, self.protocol, self.tls.as_ref());
        self.backends.push(backend);
        self
    }

    /// Adds several backends.
    #[must_use]
    pub fn weighted(self, backends: impl IntoIterator<Item = Backend>) -> Self {
        backends.into_iter().fold(self, Self::to_backend)
    }

    /// Answers with a redirect instead of forwarding.
    #[must_use]
    pub fn redirect(mut self, redirect: Redirect) -> Self {
        self.action = Action::Redirect(redirect);
        self
    }

    /// Answers with a status instead of forwarding.
    ///
    /// For paths that are closed on purpose: matching requests do not fall through to a broader route.
    #[must_use]
    pub fn respond(mut self, status: StatusCode) -> Self {
        self.action = Action::Respond(status);
        self
    }

    /// Sets the `Host` / `:authority` for all backends, added before or after, except those with a
    /// [policy of their own](Backend::vhost). Default:
    /// [`VhostPolicy::Derived`].
    #[must_use]
    pub fn vhost(mut self, policy: VhostPolicy) -> Self {
        self.vhost = policy;
        self.pass_on();
        self
    }

    /// Sets the protocol for the backends, as [`vhost`](Self::vhost) does. Default: HTTP/1.1.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self.pass_on();
        self
    }

    /// Sets the TLS options for the backends, as [`vhost`](Self::vhost) does; `None` is cleartext.
    /// See [`Backend::tls`]. Default: cleartext.
    #[must_use]
    pub fn tls(mut self, tls: impl Into<Option<Tls>>) -> Self {
        self.tls = tls.into().map(Arc::new);
        self.pass_on();
        self
    }

    /// Sets the name used in logs, metrics and errors. Default: host, path and conditions, such as
    /// `shop.example.com/`.
    #[must_use]
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The host as given; `*` for any.
    #[must_use]
    pub fn get_host(&self) -> &str {
        &self.host
    }

    /// How many labels the `*` of a wildcard host covers.
    #[must_use]
    pub fn get_wildcard(&self) -> WildcardScope {
        self.wildcard
    }

    /// How the path is matched.
    #[must_use]
    pub fn get_path(&self) -> &PathMatch {
        &self.path
    }

    /// The method it matches; `None` for any.
    #[must_use]
    pub fn get_method(&self) -> Option<&Method> {
        self.method.as_ref()
    }

    /// The conditions on headers.
    #[must_use]
    pub fn get_headers(&self) -> &[HeaderMatch] {
        &self.headers
    }

    /// The conditions on the query.
    #[must_use]
    pub fn get_query(&self) -> &[QueryMatch] {
        &self.query
    }

    /// The backends; one of them gets each request ([`Backend::pick`]).
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// The action for a matching request.
    #[must_use]
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// The name, for logs and metrics. It allocates nothing for a route in a table, which stores the
    /// default name.
    #[must_use]
    pub fn get_name(&self) -> Cow<'_, str> {
        match &self.name {
            Some(name) => name.as_ref().into(),
            None => self.default_name().into(),
        }
    }

    /// What the route matches, in comparable form: two routes with equal keys match the same requests.
    ///
    /// ```
    /// use mesh_ingress_route::Route;
    ///
    /// let one = Route::host("Shop.example.com").path_prefix("/cart/");
    /// let other = Route::host("shop.example.com.").path_prefix("/cart");
    /// assert_eq!(one.match_key()?, other.match_key()?);
    /// # Ok::<(), mesh_ingress_core::ParseError>(())
    /// ```
    ///
    /// # Errors
    /// When host, path, a condition or the redirect is invalid, as in
    /// [`RouteTable::new`](crate::RouteTable::new).
    pub fn match_key(&self) -> Result<MatchKey, ParseError> {
        self.compile().map(|compiled| compiled.key)
    }

    pub(crate) fn compile(&self) -> Result<Compiled, ParseError> {
        let host = HostRule::parse(&self.host, self.wildcard)?;
        let path = self.path.compile()?;
        let (conditions, conditions_key) =
            Conditions::compile(self.method.as_ref(), &self.headers, &self.query)?;
        self.action.check()?;
        Ok(Compiled {
            key: MatchKey {
                host: host.clone(),
                path: path.clone(),
                conditions_key,
            },
            host,
            path,
            conditions,
        })
    }

    pub(crate) fn write_name_down(&mut self) {
        if self.name.is_none() {
            self.name = Some(self.default_name().into());
        }
    }

    fn pass_on(&mut self) {
        for backend in &mut self.backends {
            backend.inherit(&self.vhost, self.protocol, self.tls.as_ref());
        }
    }
}
