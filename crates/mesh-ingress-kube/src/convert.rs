//! From Ingress objects to routes.
//!
//! Several objects make one table: canaries join the routes they are canaries of, a path that two
//! objects claim belongs to the first, and default backends take what nobody claims.

use mesh_ingress_core::{ServiceRef, VhostPolicy};
use mesh_ingress_route::{Action, Backend, PathMatch, Route};

use crate::canary::Canary;
use crate::finding::Findings;
use crate::ingress::{Ingress, PathKind, Target};
use crate::lint;
use crate::settings::{Settings, field};
use crate::slots::{Main, Slots, closed, same_host};

/// An Ingress and its annotations.
pub(crate) type Read = (Ingress, Settings);

/// What claims a host and a path.
#[derive(Clone, Debug)]
struct Claim<'a> {
    host: &'a str,
    path: PathMatch,
    /// What the path was said to be.
    kind: PathKind,
    target: &'a Target,
    field: &'a str,
}

/// Makes routes of all Ingresses of a manifest, which together are one table.
pub(crate) fn routes(ingresses: &[Read], findings: &mut Findings) -> Vec<Route> {
    let mut slots = Slots::default();
    let mains = || {
        let all = ingresses.iter();
        all.filter(|(_, settings)| settings.canary.is_none())
    };
    for (ingress, settings) in mains() {
        for claim in claims(ingress, settings.regex) {
            fill(&mut slots, &claim, ingress, settings, findings);
        }
    }
    for (ingress, settings) in mains() {
        default_of_own_hosts(&mut slots, ingress, settings, findings);
    }
    for (ingress, settings) in mains() {
        default_of_all_hosts(&mut slots, ingress, settings, findings);
    }
    for (ingress, settings) in ingresses {
        if let Some(canary) = &settings.canary {
            join_canary(&mut slots, ingress, settings, canary, findings);
        }
    }
    for (ingress, settings) in mains() {
        aliases(&mut slots, ingress, settings, findings);
    }
    slots.into_routes(findings)
}

/// What the rules of an Ingress claim.
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

/// Whether a path means something else as a regular expression than as a text.
///
/// ingress-nginx makes expressions of paths whatever their `pathType`; where that says `Exact` or
/// `Prefix`, a dot alone is more likely to be a dot.
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

/// Not what is meant: [`fill`] leaves it out.
#[cfg(not(feature = "regex"))]
fn pattern(path: &str) -> PathMatch {
    PathMatch::StringPrefix(path.into())
}

/// Claims a slot for an Ingress, or says why not.
fn fill(
    slots: &mut Slots,
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
        findings.about(&ingress.object).error(
            claim.field,
            "it is a regular expression, and those are not built in (cargo feature \"regex\"); it is \
             left out",
        );
        return;
    }
    if is_pattern && *kind != PathKind::ImplementationSpecific {
        findings.about(&ingress.object).warning(
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
            Main::Backend(backend(service, ingress, settings, findings))
        }
        (Action::Forward, Target::Unusable) => closed(),
        (action, _) => Main::Action(action.clone()),
    };
    let about = &mut findings.about(&ingress.object);
    match slots.claim(host, path, &ingress.object, main.clone()) {
        Ok(()) => {
            if let Main::Backend(backend) = &main {
                lint::backend(backend, about);
            }
        }
        Err(refused) => about.add(refused.severity, claim.field, refused.message),
    }
}

/// ingress-nginx: the default backend of an Ingress takes what is left of the hosts in its rules.
fn default_of_own_hosts(
    slots: &mut Slots,
    ingress: &Ingress,
    settings: &Settings,
    findings: &mut Findings,
) {
    let Some(target) = &ingress.default_backend else {
        for rule in ingress.rules.iter().filter(|rule| rule.paths.is_empty()) {
            let message = "it has no paths, and the Ingress no defaultBackend: nothing is routed";
            findings
                .about(&ingress.object)
                .warning(&rule.field, message);
        }
        return;
    };
    for rule in &ingress.rules {
        let claim = default_claim(&rule.host, target);
        if slots.get_mut(claim.host, &claim.path).is_none() {
            fill(slots, &claim, ingress, settings, findings);
        }
    }
}

/// Kubernetes: the default backend takes what matches no rule of any Ingress.
fn default_of_all_hosts(
    slots: &mut Slots,
    ingress: &Ingress,
    settings: &Settings,
    findings: &mut Findings,
) {
    let Some(target) = &ingress.default_backend else {
        return;
    };
    let claim = default_claim("*", target);
    // An Ingress with rules has its own hosts served already: that another one has the rest is as
    // it should be.
    if ingress.rules.is_empty() || slots.get_mut(claim.host, &claim.path).is_none() {
        fill(slots, &claim, ingress, settings, findings);
    }
}

/// A canary takes a share of the routes with the same host and path; it makes none of its own.
fn join_canary(
    slots: &mut Slots,
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
    // Whether a path is a regular expression is for the main Ingress to say.
    let as_text = claims(ingress, false).chain(default.clone());
    let as_pattern = claims(ingress, true).chain(default);
    for (text, pattern) in as_text.zip(as_pattern) {
        let Target::Service(service) = text.target else {
            continue;
        };
        let backend = backend(service, ingress, settings, findings);
        let about = &mut findings.about(&ingress.object);
        let (host, path) = (text.host, &text.path);
        let path = match slots.get_mut(host, path) {
            Some(_) => path,
            None => &pattern.path,
        };
        let Some(slot) = slots.get_mut(host, path) else {
            about.error(
                text.field,
                format!("no other Ingress has {host}{path}: a canary alone is left out"),
            );
            continue;
        };
        let Main::Backend(main) = &slot.main else {
            about.warning(
                text.field,
                format!(
                    "{} sends {host}{path} to no backend: the canary is left out",
                    slot.owner
                ),
            );
            continue;
        };
        if slot.canary.is_some() {
            about.error(
                text.field,
                format!("{host}{path} has a canary already: this one is left out"),
            );
            continue;
        }
        if settings.vhost.is_none() && matches!(main.get_vhost(), VhostPolicy::Override(_)) {
            about.info(
                &field("upstream-vhost"),
                format!(
                    "the canary is told its own name, not the one set for {}: told that one, a \
                     sidecar would send it back there, as it does with ingress-nginx",
                    slot.owner
                ),
            );
        }
        lint::backend(&backend, about);
        slot.canary = Some((canary.clone(), backend));
    }
}

/// As ingress-nginx has it: another name for the hosts of an Ingress, unless it has rules itself.
fn aliases(slots: &mut Slots, ingress: &Ingress, settings: &Settings, findings: &mut Findings) {
    let alias_field = field("server-alias");
    for alias in &settings.aliases {
        let about = &mut findings.about(&ingress.object);
        if slots.iter().any(|slot| same_host(&slot.host, alias)) {
            about.warning(
                &alias_field,
                format!("{alias:?} has rules of its own: the alias is left out"),
            );
            continue;
        }
        if let Err(error) = Route::host(&**alias).match_key() {
            about.error(&alias_field, format!("{error}; it is left out"));
            continue;
        }
        slots.copy(&ingress.object, alias);
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
            findings.about(&ingress.object).error(
                &field("upstream-vhost"),
                format!("{reason}; {service} is told its own name instead"),
            );
            backend
        }
    }
}
