//! Converts Ingress objects to routes.
//!
//! All objects make one table: a canary joins the routes of its main Ingress, a path that two objects
//! claim belongs to the first, and default backends take the rest.

use mesh_ingress_core::{ServiceRef, VhostPolicy};
use mesh_ingress_route::{Action, Backend, PathMatch, Route};

use crate::canary::Canary;
use crate::finding::Findings;
use crate::host_paths::{HostPaths, MainTarget, closed, same_host};
use crate::ingress::{Ingress, PathKind, Target};
use crate::lint;
use crate::settings::{Settings, field};

/// An Ingress and its annotations.
pub(crate) type ParsedIngress = (Ingress, Settings);

/// A rule's claim to a host and a path.
#[derive(Clone, Debug)]
struct Claim<'a> {
    host: &'a str,
    path: PathMatch,
    /// The `pathType`.
    kind: PathKind,
    target: &'a Target,
    field: &'a str,
}

/// Converts all Ingresses of a manifest to routes of one table.
pub(crate) fn routes(ingresses: &[ParsedIngress], findings: &mut Findings) -> Vec<Route> {
    let mut paths = HostPaths::default();
    let mains = || {
        let all = ingresses.iter();
        all.filter(|(_, settings)| settings.canary.is_none())
    };
    for (ingress, settings) in mains() {
        for claim in claims(ingress, settings.regex) {
            claim_path(&mut paths, &claim, ingress, settings, findings);
        }
    }
    for (ingress, settings) in mains() {
        default_of_own_hosts(&mut paths, ingress, settings, findings);
    }
    for (ingress, settings) in mains() {
        default_of_all_hosts(&mut paths, ingress, settings, findings);
    }
    for (ingress, settings) in ingresses {
        if let Some(canary) = &settings.canary {
            join_canary(&mut paths, ingress, settings, canary, findings);
        }
    }
    for (ingress, settings) in mains() {
        aliases(&mut paths, ingress, settings, findings);
    }
    paths.into_routes(findings)
}

/// The claims of an Ingress's rules.
fn claims(ingress: &Ingress, regex: bool) -> impl Iterator<Item = Claim<'_>> {
    ingress.rules.iter().flat_map(move |rule| {
        rule.paths.iter().map(move |path| Claim {
            host: &rule.host,
            path: path_match(&path.path, path.kind, regex),
            kind: path.kind,
            target: &path.target,
            field: &path.field,
        })
    })
}

fn default_claim<'a>(host: &'a str, target: &'a Target) -> Claim<'a> {
    Claim {
        host,
        path: PathMatch::default(),
        kind: PathKind::Prefix,
        target,
        field: "spec.defaultBackend",
    }
}

fn path_match(path: &str, kind: PathKind, regex: bool) -> PathMatch {
    match kind {
        _ if regex && is_pattern(path, kind) => pattern(path),
        PathKind::Exact => PathMatch::Exact(path.into()),
        PathKind::Prefix => PathMatch::Prefix(path.into()),
        PathKind::ImplementationSpecific => PathMatch::StringPrefix(path.into()),
    }
}

/// Whether a path as a regular expression differs from the path as text.
///
/// ingress-nginx treats paths of any `pathType` as expressions; with `Exact` or `Prefix`, a dot alone is
/// more likely meant as a dot.
fn is_pattern(path: &str, kind: PathKind) -> bool {
    let signs = match kind {
        PathKind::Exact | PathKind::Prefix => r"\^$*+?()[]{}|",
        PathKind::ImplementationSpecific => r"\^$*+?()[]{}|.",
    };
    path.contains(|c| signs.contains(c))
}

#[cfg(feature = "regex")]
fn pattern(path: &str) -> PathMatch {
    PathMatch::Regex(path.into())
}

/// A placeholder: [`claim_path`] leaves the path out.
#[cfg(not(feature = "regex"))]
fn pattern(path: &str) -> PathMatch {
    PathMatch::StringPrefix(path.into())
}

/// Claims a host and path for an Ingress, or reports why not.
fn claim_path(
    paths: &mut HostPaths,
    claim: &Claim<'_>,
    ingress: &Ingress,
    settings: &Settings,
    findings: &mut Findings,
) {
    let Claim {
        host, path, kind, ..
    } = claim;
    let is_pattern = settings.regex && is_pattern(path.as_str(), *kind);
    if cfg!(not(feature = "regex")) && is_pattern {
        findings.for_object(&ingress.object).error(
            claim.field,
            "it is a regular expression, and those are not built in (cargo feature \"regex\"); it is \
             left out",
        );
        return;
    }
    if is_pattern && *kind != PathKind::ImplementationSpecific {
        findings.for_object(&ingress.object).warning(
            claim.field,
            format!(
                "{:?} is taken for a regular expression, as in ingress-nginx, and should have pathType \
                 ImplementationSpecific",
                path.as_str()
            ),
        );
    }
    let main = match (&settings.action, claim.target) {
        (Action::Forward, Target::Service(service)) => {
            MainTarget::Backend(backend(service, ingress, settings, findings))
        }
        (Action::Forward, Target::Unusable) => closed(),
        (action, _) => MainTarget::Action(action.clone()),
    };
    let report = &mut findings.for_object(&ingress.object);
    match paths.claim(host, path, &ingress.object, main.clone()) {
        Ok(()) => {
            if let MainTarget::Backend(backend) = &main {
                lint::backend(backend, report);
            }
        }
        Err(refused) => report.add(refused.severity, claim.field, refused.message),
    }
}

/// ingress-nginx: the default backend of an Ingress takes the other paths of the hosts in its rules.
fn default_of_own_hosts(
    paths: &mut HostPaths,
    ingress: &Ingress,
    settings: &Settings,
    findings: &mut Findings,
) {
    let Some(target) = &ingress.default_backend else {
        for rule in ingress.rules.iter().filter(|rule| rule.paths.is_empty()) {
            let message = "it has no paths, and the Ingress no defaultBackend: nothing is routed";
            findings
                .for_object(&ingress.object)
                .warning(&rule.field, message);
        }
        return;
    };
    for rule in &ingress.rules {
        let claim = default_claim(&rule.host, target);
        if paths.get_mut(claim.host, &claim.path).is_none() {
            claim_path(paths, &claim, ingress, settings, findings);
        }
    }
}

/// Kubernetes: the default backend takes requests that match no rule of any Ingress.
fn default_of_all_hosts(
    paths: &mut HostPaths,
    ingress: &Ingress,
    settings: &Settings,
    findings: &mut Findings,
) {
    let Some(target) = &ingress.default_backend else {
        return;
    };
    let claim = default_claim("*", target);
    // The hosts of an Ingress with rules are served already, so another default backend for the rest
    // is no conflict.
    if ingress.rules.is_empty() || paths.get_mut(claim.host, &claim.path).is_none() {
        claim_path(paths, &claim, ingress, settings, findings);
    }
}

/// A canary takes a share of the routes with the same host and path; it makes none of its own.
fn join_canary(
    paths: &mut HostPaths,
    ingress: &Ingress,
    settings: &Settings,
    canary: &Canary,
    findings: &mut Findings,
) {
    if settings.is_closed() {
        // The reason has been reported; all requests stay with the main Ingress.
        return;
    }
    let default = ingress.default_backend.as_ref();
    let default = default.map(|target| default_claim("*", target));
    // The main Ingress decides whether a path is a regular expression.
    let as_text = claims(ingress, false).chain(default.clone());
    let as_pattern = claims(ingress, true).chain(default);
    for (text, pattern) in as_text.zip(as_pattern) {
        let Target::Service(service) = text.target else {
            continue;
        };
        let backend = backend(service, ingress, settings, findings);
        let report = &mut findings.for_object(&ingress.object);
        let (host, path) = (text.host, &text.path);
        let path = match paths.get_mut(host, path) {
            Some(_) => path,
            None => &pattern.path,
        };
        let Some(entry) = paths.get_mut(host, path) else {
            report.error(
                text.field,
                format!("no other Ingress has {host}{path}: a canary alone is left out"),
            );
            continue;
        };
        let MainTarget::Backend(main) = &entry.main else {
            report.warning(
                text.field,
                format!(
                    "{} sends {host}{path} to no backend: the canary is left out",
                    entry.owner
                ),
            );
            continue;
        };
        if entry.canary.is_some() {
            report.error(
                text.field,
                format!("{host}{path} has a canary already: this one is left out"),
            );
            continue;
        }
        if settings.vhost.is_none() && matches!(main.get_vhost(), VhostPolicy::Override(_)) {
            report.info(
                &field("upstream-vhost"),
                format!(
                    "the canary gets its own name, not the one set for {}: with that one, a \
                     sidecar would send it back there, as it does with ingress-nginx",
                    entry.owner
                ),
            );
        }
        lint::backend(&backend, report);
        entry.canary = Some((canary.clone(), backend));
    }
}

/// As in ingress-nginx: an alias is another name for the hosts of an Ingress, unless it has rules of its
/// own.
fn aliases(paths: &mut HostPaths, ingress: &Ingress, settings: &Settings, findings: &mut Findings) {
    let alias_field = field("server-alias");
    for alias in &settings.aliases {
        let report = &mut findings.for_object(&ingress.object);
        if paths.iter().any(|entry| same_host(&entry.host, alias)) {
            report.warning(
                &alias_field,
                format!("{alias:?} has rules of its own: the alias is left out"),
            );
            continue;
        }
        if let Err(error) = Route::host(&**alias).match_key() {
            report.error(&alias_field, format!("{error}; it is left out"));
            continue;
        }
        paths.copy(&ingress.object, alias);
    }
}

fn backend(
    service: &ServiceRef,
    ingress: &Ingress,
    settings: &Settings,
    findings: &mut Findings,
) -> Backend {
    let backend = Backend::new(service.clone()).protocol(settings.protocol);
    let vhost = settings.vhost.as_ref();
    match vhost.map(|vhost| vhost.of(service, &ingress.name)) {
        None => backend,
        Some(Ok(policy)) => backend.vhost(policy),
        Some(Err(reason)) => {
            findings.for_object(&ingress.object).error(
                &field("upstream-vhost"),
                format!("{reason}; {service} gets its own name instead"),
            );
            backend
        }
    }
}
