//! The hosts and paths of a manifest, each with its target.

use std::collections::{HashMap, HashSet};

use http::StatusCode;
use mesh_ingress_route::{Action, Backend, MatchKey, PathMatch, Route};

use crate::canary::{Canary, Destination};
use crate::finding::{Findings, Severity};
use crate::settings::field;

/// A host and a path.
#[derive(Clone, Debug)]
pub(crate) struct HostPath {
    pub(crate) host: String,
    path: PathMatch,
    /// The object it belongs to.
    pub(crate) owner: String,
    pub(crate) main: MainTarget,
    pub(crate) canary: Option<(Canary, Backend)>,
}

/// The target of requests that no canary takes.
#[derive(Clone, Debug)]
pub(crate) enum MainTarget {
    Backend(Backend),
    Action(Action),
}

/// Why a host and a path cannot be claimed.
#[derive(Debug)]
pub(crate) struct ClaimError {
    pub(crate) severity: Severity,
    pub(crate) message: String,
}

/// All hosts and paths of a manifest, in the order they were claimed.
#[derive(Debug, Default)]
pub(crate) struct HostPaths {
    paths: Vec<HostPath>,
    index: HashMap<MatchKey, usize>,
}

/// The target of paths that cannot be served as they are meant.
pub(crate) fn closed() -> MainTarget {
    MainTarget::Action(Action::Respond(StatusCode::SERVICE_UNAVAILABLE))
}

pub(crate) fn same_host(one: &str, other: &str) -> bool {
    host_key(one) == host_key(other)
}

fn host_key(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

impl HostPaths {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &HostPath> {
        self.paths.iter()
    }

    pub(crate) fn get_mut(&mut self, host: &str, path: &PathMatch) -> Option<&mut HostPath> {
        let key = Route::host(host).path(path.clone()).match_key().ok()?;
        let at = *self.index.get(&key)?;
        self.paths.get_mut(at)
    }

    /// Adds a host and path, which belongs to the first object that claims it.
    pub(crate) fn claim(
        &mut self,
        host: &str,
        path: &PathMatch,
        owner: &str,
        main: MainTarget,
    ) -> Result<(), ClaimError> {
        let key = Route::host(host).path(path.clone()).match_key();
        let key = key.map_err(|error| ClaimError {
            severity: Severity::Error,
            message: format!("{error}; it is left out"),
        })?;
        if let Some(first) = self.index.get(&key).and_then(|at| self.paths.get(*at)) {
            let owner = &first.owner;
            return Err(ClaimError {
                severity: Severity::Warning,
                message: format!("{host}{path} belongs to {owner} already: this one is left out"),
            });
        }
        self.index.insert(key, self.paths.len());
        self.paths.push(HostPath {
            host: host.to_owned(),
            path: path.clone(),
            owner: owner.to_owned(),
            main,
            canary: None,
        });
        Ok(())
    }

    /// Adds all paths of an object's hosts for an alias.
    pub(crate) fn copy(&mut self, owner: &str, alias: &str) {
        let own = |entry: &&HostPath| entry.owner == owner && entry.host != "*";
        let copies: Vec<_> = self.paths.iter().filter(own).cloned().collect();
        for copy in copies {
            // Two hosts of one Ingress may have the same path; the first one wins.
            if self.claim(alias, &copy.path, owner, copy.main).is_ok()
                && let Some(last) = self.paths.last_mut()
            {
                last.canary = copy.canary;
            }
        }
    }

    pub(crate) fn into_routes(mut self, findings: &mut Findings) -> Vec<Route> {
        order_patterns(&mut self.paths);
        let mut routes = Vec::new();
        let mut seen = HashSet::new();
        for entry in self.paths {
            let route = Route::host(&*entry.host).path(entry.path.clone());
            // Different texts can be the same pattern.
            if !route.match_key().is_ok_and(|key| seen.insert(key)) {
                findings.for_object(&entry.owner).warning(
                    "spec.rules",
                    format!(
                        "another path of {} is the same pattern as {}: this one is left out",
                        entry.host, entry.path
                    ),
                );
                continue;
            }
            entry.into_routes(&route, &mut routes, findings);
        }
        routes
    }
}

impl HostPath {
    fn into_routes(self, route: &Route, routes: &mut Vec<Route>, findings: &mut Findings) {
        let route = || route.clone();
        let main = match self.main {
            MainTarget::Backend(main) => main,
            MainTarget::Action(Action::Redirect(redirect)) => {
                return routes.push(route().redirect(redirect));
            }
            MainTarget::Action(Action::Respond(status)) => {
                return routes.push(route().respond(status));
            }
            // No other action is made. If one ever is, it must not be served by accident.
            MainTarget::Action(_) => {
                return routes.push(route().respond(StatusCode::SERVICE_UNAVAILABLE));
            }
        };
        let Some((canary, backend)) = self.canary else {
            return routes.push(route().to_backend(main));
        };
        for (header, destination) in canary.rules {
            let conditional = route().header_match(header);
            if let Err(error) = conditional.match_key() {
                let message = format!("{error}; it has no effect on {}{}", self.host, self.path);
                let report = &mut findings.for_object(&self.owner);
                report.error(&field("canary-by-header"), message);
                continue;
            }
            routes.push(match destination {
                Destination::Canary => conditional.to_backend(backend.clone()),
                Destination::Main => conditional.to_backend(main.clone()),
            });
        }
        routes.push(match canary.weight {
            0 => route().to_backend(main),
            weight => {
                let main = main.weight(canary.total.saturating_sub(weight));
                route().weighted([main, backend.weight(weight)])
            }
        });
    }
}

/// On a host with a regular expression, ingress-nginx turns every prefix into one, and tries the longest
/// first. Otherwise `/` would come before every expression.
#[cfg(feature = "regex")]
fn order_patterns(paths: &mut [HostPath]) {
    use std::cmp::Reverse;

    use crate::canary::escape;

    let with_pattern = paths
        .iter()
        .filter(|entry| matches!(entry.path, PathMatch::Regex(_)));
    let hosts: HashSet<_> = with_pattern.map(|entry| host_key(&entry.host)).collect();
    if hosts.is_empty() {
        return;
    }
    let has_pattern = |entry: &HostPath| hosts.contains(&host_key(&entry.host));
    // The sort is stable, and the order of hosts does not matter.
    paths.sort_by_key(|entry| match has_pattern(entry) {
        true => Reverse(entry.path.as_str().len()),
        false => Reverse(0),
    });
    for entry in paths.iter_mut().filter(|entry| has_pattern(entry)) {
        let pattern = match &entry.path {
            PathMatch::Prefix(path) => match path.strip_suffix('/').unwrap_or(path) {
                "" => "/".to_owned(),
                path => format!("{}(?:/|$)", escape(path)),
            },
            PathMatch::StringPrefix(path) => escape(path),
            _ => continue,
        };
        entry.path = PathMatch::Regex(pattern.into());
    }
}

#[cfg(not(feature = "regex"))]
fn order_patterns(_: &mut [HostPath]) {}
