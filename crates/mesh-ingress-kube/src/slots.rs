//! Hosts and paths, each with what is done with their requests.

use std::collections::{HashMap, HashSet};

use http::StatusCode;
use mesh_ingress_route::{Action, Backend, MatchKey, PathMatch, Route};

use crate::canary::{Canary, Goes};
use crate::finding::{Findings, Severity};
use crate::settings::field;

/// A host and a path.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) host: String,
    path: PathMatch,
    /// The object that claimed it.
    pub(crate) owner: String,
    pub(crate) main: Main,
    pub(crate) canary: Option<(Canary, Backend)>,
}

/// What is done with the requests that no canary gets.
#[derive(Clone, Debug)]
pub(crate) enum Main {
    Backend(Backend),
    Action(Action),
}

/// Why a host and a path cannot be claimed.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) severity: Severity,
    pub(crate) message: String,
}

/// All hosts and paths of a manifest, in the order they were claimed.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    index: HashMap<MatchKey, usize>,
}

/// What is done where nothing else can be.
pub(crate) fn closed() -> Main {
    Main::Action(Action::Respond(StatusCode::SERVICE_UNAVAILABLE))
}

pub(crate) fn same_host(one: &str, other: &str) -> bool {
    host_key(one) == host_key(other)
}

fn host_key(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

impl Slots {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    pub(crate) fn get_mut(&mut self, host: &str, path: &PathMatch) -> Option<&mut Slot> {
        let key = Route::host(host).path(path.clone()).match_key().ok()?;
        let at = *self.index.get(&key)?;
        self.slots.get_mut(at)
    }

    /// The first to claim a host and a path has it.
    pub(crate) fn claim(
        &mut self,
        host: &str,
        path: &PathMatch,
        owner: &str,
        main: Main,
    ) -> Result<(), Refused> {
        let key = Route::host(host).path(path.clone()).match_key();
        let key = key.map_err(|error| Refused {
            severity: Severity::Error,
            message: format!("{error}; it is left out"),
        })?;
        if let Some(first) = self.index.get(&key).and_then(|at| self.slots.get(*at)) {
            let owner = &first.owner;
            return Err(Refused {
                severity: Severity::Warning,
                message: format!("{host}{path} belongs to {owner} already: this one is left out"),
            });
        }
        self.index.insert(key, self.slots.len());
        self.slots.push(Slot {
            host: host.to_owned(),
            path: path.clone(),
            owner: owner.to_owned(),
            main,
            canary: None,
        });
        Ok(())
    }

    /// Gives an alias all that the hosts of an object have.
    pub(crate) fn copy(&mut self, owner: &str, alias: &str) {
        let own = |slot: &&Slot| slot.owner == owner && slot.host != "*";
        let copies: Vec<_> = self.slots.iter().filter(own).cloned().collect();
        for copy in copies {
            // Two hosts of one Ingress may have the same path; the first one counts.
            if self.claim(alias, &copy.path, owner, copy.main).is_ok()
                && let Some(last) = self.slots.last_mut()
            {
                last.canary = copy.canary;
            }
        }
    }

    pub(crate) fn into_routes(mut self, findings: &mut Findings) -> Vec<Route> {
        order_patterns(&mut self.slots);
        let mut routes = Vec::new();
        let mut seen = HashSet::new();
        for slot in self.slots {
            let route = Route::host(&*slot.host).path(slot.path.clone());
            // Texts that were different can be the same pattern.
            if !route.match_key().is_ok_and(|key| seen.insert(key)) {
                findings.about(&slot.owner).warning(
                    "spec.rules",
                    format!(
                        "another path of {} is the same pattern as {}: this one is left out",
                        slot.host, slot.path
                    ),
                );
                continue;
            }
            slot.into_routes(&route, &mut routes, findings);
        }
        routes
    }
}

impl Slot {
    fn into_routes(self, route: &Route, routes: &mut Vec<Route>, findings: &mut Findings) {
        let route = || route.clone();
        let main = match self.main {
            Main::Backend(main) => main,
            Main::Action(Action::Redirect(redirect)) => {
                return routes.push(route().redirect(redirect));
            }
            Main::Action(Action::Respond(status)) => return routes.push(route().respond(status)),
            // Nothing else is made; should it ever be, it must not be served by accident.
            Main::Action(_) => {
                return routes.push(route().respond(StatusCode::SERVICE_UNAVAILABLE));
            }
        };
        let Some((canary, backend)) = self.canary else {
            return routes.push(route().to_backend(main));
        };
        for (header, goes) in canary.told {
            let told = route().header_match(header);
            if let Err(error) = told.match_key() {
                let message = format!("{error}; it has no effect on {}{}", self.host, self.path);
                let about = &mut findings.about(&self.owner);
                about.error(&field("canary-by-header"), message);
                continue;
            }
            routes.push(match goes {
                Goes::ToCanary => told.to_backend(backend.clone()),
                Goes::ToMain => told.to_backend(main.clone()),
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

/// Once a host has a regular expression, ingress-nginx makes one of every prefix of that host, and
/// asks the longest first. Otherwise `/` would come before every expression.
#[cfg(feature = "regex")]
fn order_patterns(slots: &mut [Slot]) {
    use std::cmp::Reverse;

    use crate::canary::escape;

    let with_pattern = slots
        .iter()
        .filter(|slot| matches!(slot.path, PathMatch::Regex(_)));
    let hosts: HashSet<_> = with_pattern.map(|slot| host_key(&slot.host)).collect();
    if hosts.is_empty() {
        return;
    }
    let has_pattern = |slot: &Slot| hosts.contains(&host_key(&slot.host));
    // Stable, and the order among hosts means nothing.
    slots.sort_by_key(|slot| match has_pattern(slot) {
        true => Reverse(slot.path.as_str().len()),
        false => Reverse(0),
    });
    for slot in slots.iter_mut().filter(|slot| has_pattern(slot)) {
        let pattern = match &slot.path {
            PathMatch::Prefix(path) => match path.strip_suffix('/').unwrap_or(path) {
                "" => "/".to_owned(),
                path => format!("{}(?:/|$)", escape(path)),
            },
            PathMatch::StringPrefix(path) => escape(path),
            _ => continue,
        };
        slot.path = PathMatch::Regex(pattern.into());
    }
}

#[cfg(not(feature = "regex"))]
fn order_patterns(_: &mut [Slot]) {}
