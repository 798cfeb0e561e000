//! No text panics, and the resulting routes always make a table.
#![allow(clippy::unwrap_used)]

use mesh_ingress_kube::{Imported, from_yaml};
use mesh_ingress_route::RouteTable;
use proptest::prelude::*;
use proptest::sample::select;

const MANIFESTS: &[&str] = &[
    include_str!("manifests/canary.yaml"),
    include_str!("manifests/default-backend.yaml"),
    include_str!("manifests/grown.yaml"),
    include_str!("manifests/list.json"),
    include_str!("manifests/mesh.yaml"),
    include_str!("manifests/redirects.yaml"),
    include_str!("manifests/regex.yaml"),
];

fn check(text: &str) -> Result<(), TestCaseError> {
    let Ok(Imported {
        routes, findings, ..
    }) = from_yaml(text)
    else {
        return Ok(());
    };
    for finding in findings {
        let line = finding.to_string();
        prop_assert!(!line.contains('\n'), "{line:?}");
    }
    let table = RouteTable::new(routes.into_iter().map(|route| (route, ())));
    prop_assert!(table.is_ok(), "{table:?}");
    Ok(())
}

/// An annotation, or something similar.
fn annotation() -> impl Strategy<Value = String> {
    let name = select(vec![
        "canary",
        "canary-weight",
        "canary-weight-total",
        "canary-by-header",
        "canary-by-header-value",
        "canary-by-header-pattern",
        "canary-by-cookie",
        "upstream-vhost",
        "use-regex",
        "backend-protocol",
        "server-alias",
        "permanent-redirect",
        "temporal-redirect",
        "permanent-redirect-code",
        "service-upstream",
        "rewrite-target",
        "enable-cors",
    ]);
    let value = prop_oneof![
        select(vec![
            "true",
            "false",
            "10",
            "100",
            "GRPC",
            "$host",
            "https://a.example/",
            "x$request_uri"
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,12}",
        any::<String>(),
    ];
    (name, value).prop_map(|(name, value)| {
        format!(
            "    nginx.ingress.kubernetes.io/{name}: {}\n",
            quoted(&value)
        )
    })
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        quoted += &format!("\\U{:08x}", u32::from(c));
    }
    quoted + "\""
}

fn ingress() -> impl Strategy<Value = String> {
    let host = select(vec![
        "a.example",
        "*.example",
        "A.example.",
        "b.example",
        "*",
        "bad host",
        "",
    ]);
    let path = prop_oneof![
        select(vec![
            "/",
            "/a",
            "/a/",
            "/(a|b)/.*",
            "/a(?:/|$)",
            "/a.b",
            "",
            "x"
        ])
        .prop_map(str::to_owned),
        "/[ -~]{0,8}",
    ];
    let kind = select(vec!["Exact", "Prefix", "ImplementationSpecific"]);
    let service = select(vec!["web", "api", "Bad"]);
    let rule = (host, path, kind, service).prop_map(|(host, path, kind, service)| {
        format!(
            "  - host: {}\n    http: {{paths: [{{path: {}, pathType: {kind}, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}\n",
            quoted(host),
            quoted(&path)
        )
    });
    let rules = prop::collection::vec(rule, 1..5);
    let annotations = prop::collection::vec(annotation(), 0..4);
    let default = any::<bool>();
    (select(vec!["one", "two"]), annotations, rules, default).prop_map(|(name, annotations, rules, default)| {
        let mut text = format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  annotations:\n    x: y\n{}spec:\n",
            annotations.concat()
        );
        if default {
            text += "  defaultBackend: {service: {name: web, port: {name: http}}}\n";
        }
        text + "  rules:\n" + &rules.concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn text_that_looks_like_yaml(text in "([a-z]{1,3}|[ \n:\\-\\[\\]{},&*#|>!%\"'?~0-9.]){0,60}") {
        check(&text)?;
    }

    #[test]
    fn manifests_with_pieces_missing_or_out_of_place(
        which in 0..MANIFESTS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4), 1..4),
    ) {
        let mut lines: Vec<String> = MANIFESTS[which].lines().map(str::to_owned).collect();
        for (one, other, edit) in edits {
            let (one, other) = (one.index(lines.len()), other.index(lines.len()));
            match edit {
                0 => lines.swap(one, other),
                1 => lines[one] = lines[other].clone(),
                2 => lines[one].clear(),
                _ => {
                    let half = lines[one].chars().count() / 2;
                    lines[one] = lines[one].chars().skip(half).collect();
                }
            }
        }
        check(&lines.join("\n"))?;
    }

    #[test]
    fn any_mix_of_ingresses_makes_a_table(documents in prop::collection::vec(ingress(), 1..5)) {
        let text = documents.concat();
        prop_assert!(from_yaml(&text).is_ok(), "{text}");
        check(&text)?;
    }
}
