//! Annotations one by one, on the same small Ingress.
#![allow(clippy::unwrap_used)]

use mesh_ingress_core::{Protocol, VhostPolicy};
use mesh_ingress_kube::{Imported, Severity, from_yaml};
use mesh_ingress_route::{Action, RouteTable};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

fn import(annotations: &[(&str, &str)], path: &str) -> Imported {
    let mut text =
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: shop\n".to_owned();
    text += "  annotations:\n    x: y\n";
    for (name, value) in annotations {
        text += &format!("    {PREFIX}{name}: {value:?}\n");
    }
    text += &format!(
        "spec:\n  rules:\n  - host: a.example\n    http:\n      paths:\n      - path: {path:?}\n        \
         pathType: ImplementationSpecific\n        backend: {{service: {{name: web, port: {{name: http}}}}}}\n"
    );
    let imported = from_yaml(&text).unwrap();
    RouteTable::new(imported.routes.iter().map(|route| (route.clone(), ()))).unwrap();
    imported
}

fn with(name: &str, value: &str) -> Imported {
    import(&[(name, value)], "/")
}

/// Severity and message of the finding about an annotation.
fn finding(imported: &Imported, name: &str) -> Option<(Severity, String)> {
    let field = format!("{PREFIX}{name}");
    let finding = imported
        .findings
        .iter()
        .find(|finding| finding.field() == field)?;
    Some((finding.severity(), finding.message().to_owned()))
}

fn is_closed(imported: &Imported) -> bool {
    let action = imported.routes[0].action();
    imported.routes.len() == 1
        && matches!(action, Action::Respond(status) if status.as_u16() == 503)
}

#[test]
fn service_upstream_is_always_on() {
    assert_eq!(
        finding(&with("service-upstream", "true"), "service-upstream"),
        None
    );
    assert_eq!(
        finding(&with("service-upstream", "T"), "service-upstream"),
        None
    );
    let (severity, message) =
        finding(&with("service-upstream", "false"), "service-upstream").unwrap();
    assert_eq!(severity, Severity::Warning);
    assert!(message.contains("ClusterIP all the same"), "{message}");
    for invalid in ["yes", "on", "", " true"] {
        let (severity, _) =
            finding(&with("service-upstream", invalid), "service-upstream").unwrap();
        assert_eq!(severity, Severity::Error, "{invalid:?}");
    }
}

#[test]
fn backend_protocol_in_any_case() {
    for (value, protocol) in [
        ("HTTP", Protocol::Http1),
        ("http", Protocol::Http1),
        ("GRPC", Protocol::Http2),
        ("grpc", Protocol::Http2),
        ("Grpc", Protocol::Http2),
    ] {
        let imported = with("backend-protocol", value);
        assert_eq!(
            imported.routes[0].backends()[0].get_protocol(),
            protocol,
            "{value}"
        );
        assert_eq!(finding(&imported, "backend-protocol"), None, "{value}");
    }
    for value in ["HTTPS", "grpcs", "FCGI"] {
        let imported = with("backend-protocol", value);
        assert!(is_closed(&imported), "{value}");
        let (severity, _) = finding(&imported, "backend-protocol").unwrap();
        assert_eq!(severity, Severity::Error, "{value}");
    }
    let imported = with("backend-protocol", "h2");
    let (severity, message) = finding(&imported, "backend-protocol").unwrap();
    assert_eq!(severity, Severity::Error);
    assert!(message.contains("\"h2\" is not one of HTTP"), "{message}");
    assert_eq!(
        imported.routes[0].backends()[0].get_protocol(),
        Protocol::Http1
    );
}

#[test]
fn upstream_vhost_and_its_lint_findings() {
    let name = "upstream-vhost";
    for (value, vhost, expected) in [
        (
            "web.default.svc.cluster.local",
            Some("web.default.svc.cluster.local"),
            None,
        ),
        ("WEB.default.svc", Some("WEB.default.svc"), None),
        ("web.default", Some("web.default"), None),
        (
            "$service_name.$namespace.svc.k8s.example",
            Some("web.default.svc.k8s.example"),
            None,
        ),
        (
            "web.default.svc.cluster.local:8080",
            Some("web.default.svc.cluster.local:8080"),
            None,
        ),
        (
            "web",
            Some("web"),
            Some((Severity::Warning, "the short name \"web\"")),
        ),
        (
            "web.other.svc.cluster.local",
            Some("web.other.svc.cluster.local"),
            Some((
                Severity::Warning,
                "traffic will go to web.other, not to web.default",
            )),
        ),
        (
            "shop.example.com",
            Some("shop.example.com"),
            Some((Severity::Warning, "lets the traffic leave the mesh")),
        ),
        (
            "$host",
            None,
            Some((Severity::Warning, "gets the client's Host")),
        ),
    ] {
        let imported = with(name, value);
        let backend = &imported.routes[0].backends()[0];
        let wanted = match vhost {
            Some(vhost) => VhostPolicy::Override(vhost.parse().unwrap()),
            None => VhostPolicy::Preserve,
        };
        assert_eq!(backend.get_vhost(), &wanted, "{value}");
        match (finding(&imported, name), expected) {
            (None, None) => {}
            (Some((severity, message)), Some((wanted, text))) => {
                assert_eq!(severity, wanted, "{value}: {message}");
                assert!(message.contains(text), "{value}: {message}");
            }
            (found, _) => panic!("{value}: {found:?}"),
        }
    }
    for value in ["$arg_x", "a b", "web.default.svc;proxy_pass", ""] {
        let imported = with(name, value);
        assert_eq!(
            imported.routes[0].backends()[0].get_vhost(),
            &VhostPolicy::Derived,
            "{value}"
        );
        let (severity, message) = finding(&imported, name).unwrap();
        assert_eq!(severity, Severity::Error, "{value}");
        assert!(message.contains("gets its own name instead"), "{message}");
    }
}

#[test]
fn unsupported_protection_closes_the_routes() {
    for (name, value) in [
        ("auth-url", "https://auth.example/check"),
        ("auth-type", "basic"),
        ("auth-tls-secret", "default/ca"),
        ("whitelist-source-range", "10.0.0.0/8"),
        ("denylist-source-range", "192.0.2.0/24"),
        ("enable-modsecurity", "true"),
        ("rewrite-target", "/$1"),
        ("configuration-snippet", "location /metrics { deny all; }"),
        ("server-snippet", "return 403;"),
    ] {
        let imported = with(name, value);
        assert!(is_closed(&imported), "{name}");
        let (severity, message) = finding(&imported, name).unwrap();
        assert_eq!(severity, Severity::Error, "{name}");
        assert!(message.contains("answered with 503"), "{name}: {message}");
    }
    // A redirect must not reopen what is closed.
    let both = [
        ("permanent-redirect", "https://b.example"),
        ("auth-url", "https://auth.example"),
    ];
    assert!(is_closed(&import(&both, "/")));
    let both = [
        ("auth-url", "https://auth.example"),
        ("permanent-redirect", "https://b.example"),
    ];
    assert!(is_closed(&import(&both, "/")));
}

#[test]
fn other_annotations_are_served_and_reported() {
    for (name, value, severity) in [
        ("enable-cors", "true", Severity::Error),
        ("limit-rps", "5", Severity::Error),
        (
            "configuration-snippet",
            "more_set_headers \"a: b\";",
            Severity::Error,
        ),
        ("affinity", "cookie", Severity::Warning),
        ("ssl-redirect", "true", Severity::Warning),
        ("proxy-body-size", "8m", Severity::Warning),
        ("no-such-annotation", "1", Severity::Warning),
        ("proxy-buffering", "on", Severity::Info),
        ("proxy-redirect-from", "default", Severity::Info),
    ] {
        let imported = with(name, value);
        assert_eq!(*imported.routes[0].action(), Action::Forward, "{name}");
        let (found, _) = finding(&imported, name).unwrap();
        assert_eq!(found, severity, "{name}");
    }
}

#[test]
fn switched_off_annotation_is_not_reported() {
    for name in [
        "enable-cors",
        "ssl-redirect",
        "enable-modsecurity",
        "ssl-passthrough",
        "use-regex",
    ] {
        let imported = with(name, "false");
        assert_eq!(finding(&imported, name), None, "{name}");
        assert_eq!(*imported.routes[0].action(), Action::Forward, "{name}");
    }
    let imported = with("enable-modsecurity", "on");
    assert!(
        is_closed(&imported),
        "what is no boolean is not taken for off"
    );
    let (severity, message) = finding(&imported, "enable-modsecurity").unwrap();
    assert_eq!(severity, Severity::Error);
    assert!(message.contains("\"on\" is not a boolean"), "{message}");
}

#[test]
fn annotations_of_other_controllers_are_reported() {
    let imported = with("service-upstream", "true");
    let other = imported
        .findings
        .iter()
        .find(|finding| finding.field() == "x");
    assert_eq!(
        other.map(mesh_ingress_kube::Finding::severity),
        Some(Severity::Info)
    );
}

#[test]
fn canary_settings() {
    let main = import(&[], "/").routes[0].to_string();
    assert_eq!(main, "a.example/*=web.default:http");
    let canary = |annotations: &[(&str, &str)]| {
        let mut text = String::new();
        for (name, extra) in [("web", &[][..]), ("canary", annotations)] {
            text += "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n";
            text += &format!("  name: {name}\n  annotations:\n    x: y\n");
            for (name, value) in extra {
                text += &format!("    {PREFIX}{name}: {value:?}\n");
            }
            text += "spec:\n  rules:\n  - host: a.example\n    http:\n      paths:\n";
            text += "      - path: /\n        pathType: Prefix\n        backend:\n";
            text += &format!("          service: {{name: {name}, port: {{number: 80}}}}\n");
        }
        let imported = from_yaml(&text).unwrap();
        RouteTable::new(imported.routes.iter().map(|route| (route.clone(), ()))).unwrap();
        imported
    };
    let on = ("canary", "true");
    for (annotations, wanted) in [
        (
            vec![on, ("canary-weight", "30")],
            "a.example/=web.default:80@70,canary.default:80@30",
        ),
        (
            vec![on, ("canary-weight", "1"), ("canary-weight-total", "1000")],
            "a.example/=web.default:80@999,canary.default:80@1",
        ),
        (
            vec![on, ("canary-weight", "100")],
            "a.example/=web.default:80@0,canary.default:80@100",
        ),
        (
            vec![on, ("canary-weight", "0")],
            "a.example/=web.default:80",
        ),
        (
            vec![on, ("canary-weight", "500")],
            "a.example/=web.default:80@0,canary.default:80@100",
        ),
        (
            vec![on, ("canary-weight", "ten")],
            "a.example/=web.default:80",
        ),
        // An invalid boolean must not turn a canary into a main Ingress.
        (
            vec![("canary", "yes"), ("canary-weight", "5")],
            "a.example/=web.default:80@95,canary.default:80@5",
        ),
        (
            vec![
                on,
                ("canary-by-header", "X-V"),
                ("canary-by-header-value", "2"),
            ],
            "a.example/ [X-V=2]=canary.default:80\na.example/=web.default:80",
        ),
        (
            vec![on, ("canary-by-header", "bad name")],
            "a.example/=web.default:80",
        ),
        (
            vec![on, ("canary-weight", "5"), ("backend-protocol", "HTTPS")],
            "a.example/=web.default:80",
        ),
    ] {
        let imported = canary(&annotations);
        let routes: Vec<_> = imported.routes.iter().map(ToString::to_string).collect();
        assert_eq!(routes.join("\n"), wanted, "{annotations:?}");
    }
    let off = canary(&[("canary", "false"), ("canary-weight", "5")]);
    let (severity, message) = finding(&off, "canary-weight").unwrap();
    assert_eq!(severity, Severity::Warning);
    assert!(message.contains("no effect without canary"), "{message}");
    let two = canary(&[
        on,
        ("canary-weight", "5"),
        ("upstream-vhost", "$service_name.$namespace.svc.x"),
    ]);
    let vhost = two.routes[0].backends()[1].get_vhost();
    assert_eq!(
        *vhost,
        VhostPolicy::Override("canary.default.svc.x".parse().unwrap())
    );
}

/// Old manifests write `Prefix` for an expression. As text, the path would be closed for that text only,
/// and `/public/x` would fall through to a broader route.
#[cfg(feature = "regex")]
#[test]
fn rewritten_path_is_closed_as_a_regular_expression() {
    let text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: a\n  annotations:\n    \
         {PREFIX}rewrite-target: /$2\nspec:\n  rules:\n  - host: a.example\n    http:\n      paths:\n      \
         - path: /public(/|$)(.*)\n        pathType: Prefix\n        \
         backend: {{service: {{name: web, port: {{number: 80}}}}}}\n"
    );
    let imported = from_yaml(&text).unwrap();
    assert!(is_closed(&imported));
    assert_eq!(
        imported.routes[0].to_string(),
        "a.example~/public(/|$)(.*) answers 503"
    );
    let finding = imported
        .findings
        .iter()
        .find(|f| f.field().ends_with("paths[0]"));
    assert_eq!(
        finding.map(mesh_ingress_kube::Finding::severity),
        Some(Severity::Warning)
    );
}

#[cfg(not(feature = "regex"))]
#[test]
fn regular_expressions_without_the_feature_are_errors() {
    let imported = import(&[("use-regex", "true")], "/v[0-9]+/");
    assert!(imported.routes.is_empty());
    assert!(imported.has_errors());
    let plain = import(&[("use-regex", "true")], "/v1/");
    assert_eq!(plain.routes.len(), 1);
}

#[cfg(feature = "regex")]
#[test]
fn patterns_on_headers() {
    let text = include_str!("manifests/canary.yaml").replace(
        "canary-by-cookie: canary",
        "canary-by-header-pattern: \"eu-[0-9]+\"",
    );
    let imported = from_yaml(&text).unwrap();
    assert_eq!(
        imported.routes[0].to_string(),
        "shop.example.com/ [X-Canary~eu-[0-9]+]=web-canary.default:80"
    );
    let bad = text.replace("eu-[0-9]+", "eu-(");
    let imported = from_yaml(&bad).unwrap();
    assert!(
        imported
            .routes
            .iter()
            .all(|route| route.get_headers().is_empty())
    );
    assert!(imported.has_errors());
}
