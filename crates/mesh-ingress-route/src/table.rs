//! The route table, and the lookup in it.

use std::collections::HashMap;
use std::fmt;

use http::{HeaderMap, Method};

use crate::action::Action;
use crate::compact::Text;
use crate::error::{Miss, RouteError};
use crate::hash::BuildHasher;
use crate::host::{HostBuffer, HostKey, HostRule, WildcardScope};
use crate::path::has_dot_segments;
use crate::paths::{Candidate, Paths};
use crate::route::Route;

/// The parts of a request that routes match.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RouteQuery<'a> {
    /// The public authority: the client's `Host`, `:authority` or absolute target. A port is ignored.
    pub host: &'a str,
    /// The path as sent, not decoded.
    pub path: &'a str,
    /// The query as sent, without the `?`.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

impl<'a> RouteQuery<'a> {
    /// The query for a request, given its public authority.
    #[must_use]
    pub fn new(
        host: &'a str,
        method: &'a Method,
        uri: &'a http::Uri,
        headers: &'a HeaderMap,
    ) -> Self {
        Self {
            host,
            path: uri.path(),
            query: uri.query(),
            method,
            headers,
        }
    }
}

/// How a table treats a path with [dot segments](crate::path::has_dot_segments).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DotSegments {
    /// It matches no route: [`Miss::DotSegments`].
    #[default]
    Reject,
    /// It is matched as sent. For embedders that have resolved the dot segments, and forward the
    /// resolved path.
    AsSent,
}

/// Routes, each with a value of the caller: a prebuilt stack, a name, an index.
///
/// See the [crate documentation](crate) for the precedence of routes. A table is immutable; to change
/// routes, build another table and swap it in.
#[derive(Clone)]
pub struct RouteTable<T> {
    routes: Vec<Route>,
    /// Separate from the routes, because most requests need only the value.
    values: Vec<T>,
    exact: Hosts,
    one_label: Hosts,
    many_labels: Hosts,
    any: Option<Paths>,
    dot_segments: DotSegments,
}

type Hosts = HashMap<Text<38>, Paths, BuildHasher>;

impl<T> RouteTable<T> {
    /// Checks routes and builds their table. A table without routes is valid: it finds nothing.
    ///
    /// # Errors
    /// When a host, path or condition could match no request; when a route has no backend, or
    /// only backends with weight 0; when two routes match the same requests.
    pub fn new(routes: impl IntoIterator<Item = (Route, T)>) -> Result<Self, RouteError> {
        let mut table = Self {
            routes: Vec::new(),
            values: Vec::new(),
            exact: HashMap::default(),
            one_label: HashMap::default(),
            many_labels: HashMap::default(),
            any: None,
            dot_segments: DotSegments::default(),
        };
        let mut seen = HashMap::new();
        for (mut route, value) in routes {
            route.write_name_down();
            let index = table.routes.len();
            let position = index + 1;
            check_backends(position, &route)?;
            let invalid = |source| RouteError::Invalid {
                position,
                name: route.get_name().into_owned(),
                source,
            };
            let compiled = route.compile().map_err(invalid)?;
            if let Some(first) = seen.insert(compiled.key, index) {
                return Err(RouteError::Duplicate {
                    first_position: first + 1,
                    first: table.name_of(first),
                    second_position: position,
                    second: route.get_name().into_owned(),
                });
            }
            let candidate = Candidate {
                conditions: compiled.conditions,
                route: index,
                by_element: false,
            };
            let paths = table.paths_of(compiled.host);
            paths.add(&compiled.path, candidate).map_err(invalid)?;
            table.routes.push(route);
            table.values.push(value);
        }
        let hosts = table.exact.values_mut();
        let hosts = hosts.chain(table.one_label.values_mut());
        let hosts = hosts.chain(table.many_labels.values_mut());
        hosts.chain(&mut table.any).for_each(Paths::finish);
        Ok(table)
    }

    /// Sets how paths with dot segments are treated. Default: they match nothing.
    #[must_use]
    pub fn dot_segments(mut self, policy: DotSegments) -> Self {
        self.dot_segments = policy;
        self
    }

    /// The value of the route that matches, if one does. Does not allocate.
    #[must_use]
    pub fn find(&self, query: &RouteQuery<'_>) -> Option<&T> {
        self.lookup(query).ok().map(|(_, value)| value)
    }

    /// The route that matches and its value. Does not allocate.
    ///
    /// # Errors
    /// The reason why no route matches, which decides the status of the response.
    pub fn lookup(&self, query: &RouteQuery<'_>) -> Result<(&Route, &T), Miss> {
        if self.dot_segments == DotSegments::Reject && has_dot_segments(query.path) {
            return Err(Miss::DotSegments);
        }
        let mut known_host = false;
        let index = self.search(query, &mut known_host);
        let entry = index.and_then(|index| self.routes.get(index).zip(self.values.get(index)));
        match entry {
            Some(entry) => Ok(entry),
            None if known_host => Err(Miss::NoRoute),
            None => Err(Miss::UnknownHost),
        }
    }

    /// All routes and their values, in the order they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Route, &T)> {
        self.routes.iter().zip(&self.values)
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are no routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    fn search(&self, query: &RouteQuery<'_>, known_host: &mut bool) -> Option<usize> {
        // The targets of CONNECT and `OPTIONS *` have no path (RFC 9112 §3.2).
        let has_path = query.path.starts_with('/');
        let mut ask = |paths: Option<&Paths>| {
            *known_host |= paths.is_some();
            paths.filter(|_| has_path)?.find(query)
        };
        let mut buffer: HostBuffer = [0; _];
        if let Some(host) = HostKey::of(query.host, &mut buffer) {
            if let Some(found) = ask(self.exact.get(host.as_bytes())) {
                return Some(found);
            }
            for (depth, parent) in host.parents().enumerate() {
                // The narrower of two wildcards for the same parent comes first.
                let one_label = (depth == 0).then(|| self.one_label.get(parent)).flatten();
                if let Some(found) = ask(one_label) {
                    return Some(found);
                }
                if self.many_labels.is_empty() {
                    break;
                }
                if let Some(found) = ask(self.many_labels.get(parent)) {
                    return Some(found);
                }
            }
        }
        ask(self.any.as_ref())
    }

    fn paths_of(&mut self, host: HostRule) -> &mut Paths {
        match host {
            HostRule::Any => self.any.get_or_insert_default(),
            HostRule::Exact(name) => self.exact.entry(Text::new(&name)).or_default(),
            HostRule::Wildcard(parent, WildcardScope::OneLabel) => {
                self.one_label.entry(Text::new(&parent)).or_default()
            }
            HostRule::Wildcard(parent, WildcardScope::ManyLabels) => {
                self.many_labels.entry(Text::new(&parent)).or_default()
            }
        }
    }

    fn name_of(&self, index: usize) -> String {
        let route = self.routes.get(index);
        route.map_or_else(String::new, |route| route.get_name().into_owned())
    }
}

fn check_backends(position: usize, route: &Route) -> Result<(), RouteError> {
    if *route.action() != Action::Forward {
        return Ok(());
    }
    let name = || route.get_name().into_owned();
    let backends = route.backends();
    if backends.is_empty() {
        return Err(RouteError::NoBackend {
            position,
            name: name(),
        });
    }
    if backends.iter().all(|backend| backend.get_weight() == 0) {
        return Err(RouteError::NoWeight {
            position,
            name: name(),
            backends: backends.len(),
        });
    }
    Ok(())
}

impl<T> fmt::Debug for RouteTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.routes.iter().map(Route::to_string))
            .finish()
    }
}
