//! Whole manifests: their routes and findings.
#![allow(clippy::panic, clippy::unwrap_used)]
#![cfg(feature = "regex")]

use mesh_ingress_core::{Protocol, VhostPolicy};
use mesh_ingress_kube::{Imported, from_yaml};
use mesh_ingress_route::{Action, Route, RouteTable};

/// The finding for every Ingress without `upstream-vhost`.
const NO_VHOST: &str = "nginx.ingress.kubernetes.io/upstream-vhost: it is not set: ingress-nginx \
    keeps the client's Host; here each backend gets its own name, as a mesh expects (set it to \
    $host to keep the client's)";

fn read(text: &str) -> Imported {
    let imported = from_yaml(text).unwrap();
    let routes = imported.routes.iter().map(|route| (route.clone(), ()));
    RouteTable::new(routes).unwrap();
    imported
}

fn routes(imported: &Imported) -> Vec<String> {
    imported.routes.iter().map(ToString::to_string).collect()
}

fn findings(imported: &Imported) -> Vec<String> {
    let findings = imported.findings.iter().map(ToString::to_string);
    findings
        .map(|line| line.replace(NO_VHOST, "NO VHOST"))
        .collect()
}

fn vhosts(route: &Route) -> Vec<String> {
    let show = |policy: &VhostPolicy| match policy {
        VhostPolicy::Derived => "derived".to_owned(),
        VhostPolicy::Override(vhost) => vhost.to_string(),
        VhostPolicy::Preserve => "preserve".to_owned(),
        other => panic!("{other:?}"),
    };
    let backends = route.backends().iter();
    backends.map(|backend| show(backend.get_vhost())).collect()
}

#[track_caller]
fn assert_lines(found: &[String], wanted: &[&str]) {
    assert_eq!(found, wanted, "\nfound:\n{}\n", found.join("\n"));
}

#[test]
fn shop_behind_a_sidecar() {
    let imported = read(include_str!("manifests/mesh.yaml"));
    assert_lines(
        &routes(&imported),
        &[
            "shop.example.com/=web.prod:80",
            "shop.example.com/api=api.prod:http-api",
            "grpc.example.com/shop.v1.Cart=cart.prod:grpc",
        ],
    );
    let vhosts_found: Vec<_> = imported.routes.iter().flat_map(vhosts).collect();
    assert_lines(
        &vhosts_found,
        &[
            "web.prod.svc.cluster.local",
            "api.prod.svc.cluster.local",
            "cart.prod.svc.cluster.local",
        ],
    );
    let spoken: Vec<_> = imported
        .routes
        .iter()
        .map(|route| route.backends()[0].get_protocol())
        .collect();
    assert_eq!(spoken, [Protocol::Http1, Protocol::Http1, Protocol::Http2]);
    assert_lines(
        &findings(&imported),
        &[
            "info: prod/shop: spec.tls[0]: certificates belong to the listener: give it Secret \
             prod/shop-tls for shop.example.com",
            "info: prod/shop: cert-manager.io/cluster-issuer: this annotation is for another program, it \
             has no effect here",
            "warning: prod/shop: nginx.ingress.kubernetes.io/proxy-read-timeout: timeouts are set for the \
             whole gateway, not for one Ingress",
        ],
    );
    assert_eq!(imported.tls.len(), 1);
    assert_eq!(imported.tls[0].namespace, "prod");
    assert_eq!(imported.tls[0].secret_name.as_deref(), Some("shop-tls"));
    assert_eq!(imported.tls[0].hosts, ["shop.example.com"]);
    assert!(!imported.has_errors());
}

#[test]
fn canary_joins_its_main_ingress_with_a_vhost_of_its_own() {
    let imported = read(include_str!("manifests/canary.yaml"));
    assert_lines(
        &routes(&imported),
        &[
            "shop.example.com/ [X-Canary=always]=web-canary.default:80",
            "shop.example.com/ [X-Canary=never]=web.default:80",
            "shop.example.com/ [cookie~(?:^|;) *canary=always *(?:;|$)]=web-canary.default:80",
            "shop.example.com/ [cookie~(?:^|;) *canary=never *(?:;|$)]=web.default:80",
            "shop.example.com/=web.default:80@90,web-canary.default:80@10",
            "shop.example.com=/about=web.default:80",
        ],
    );
    assert_lines(&vhosts(&imported.routes[0]), &["derived"]);
    assert_lines(
        &vhosts(&imported.routes[4]),
        &["web.default.svc.cluster.local", "derived"],
    );
    assert_lines(
        &findings(&imported),
        &[
            "info: default/web-canary: nginx.ingress.kubernetes.io/auth-url: a canary has those of its \
             main Ingress; it has no effect",
            "info: default/web-canary: nginx.ingress.kubernetes.io/upstream-vhost: the canary gets its \
             own name, not the one set for default/web: with that one, a sidecar would send it back \
             there, as it does with ingress-nginx",
            "error: default/lonely-canary: spec.rules[0].http.paths[0]: no other Ingress has \
             nobody.example.com/: a canary alone is left out",
        ],
    );
}

#[test]
fn default_backends_take_the_rest() {
    let imported = read(include_str!("manifests/default-backend.yaml"));
    assert_lines(
        &routes(&imported),
        &[
            "docs.example.com/v1=docs.default:80",
            "docs.example.com/=docs-missing.default:80",
            "old-docs.example.com/=docs-missing.default:80",
            "*/=echo-service.default:8080",
        ],
    );
    assert!(!imported.has_errors());
}

#[test]
fn manifest_with_many_annotations() {
    let imported = read(include_str!("manifests/grown.yaml"));
    assert_lines(
        &routes(&imported),
        &[
            // Closed, not left to the route for `/`.
            "www.example.com/admin answers 503",
            "www.example.com/=web.default:80",
            "www.example.com/bucket answers 503",
            "www.example.com=/port answers 503",
            "www.example.com=/tls=web.default:https",
        ],
    );
    assert_lines(
        &findings(&imported),
        &[
            "info: Service default/web: kind: Service of v1 is no Ingress, it is not read",
            "error: default/ancient: apiVersion: Ingress of \"extensions/v1beta1\" is not read, expected \
             \"networking.k8s.io/v1\" (kubectl convert)",
            "info: default/admin: kubernetes.io/ingress.class: class \"nginx-internal\" is not asked for: \
             every Ingress given is read, with the annotations of ingress-nginx",
            "error: default/admin: nginx.ingress.kubernetes.io/auth-url: authentication is not supported \
             yet, put it in front as a layer; requests are answered with 503, since serving them without \
             would be wrong",
            "warning: default/admin: nginx.ingress.kubernetes.io/no-such-thing: this annotation is not \
             known, it has no effect",
            "info: default/admin: nginx.ingress.kubernetes.io/proxy-buffering: bodies are streamed, there \
             are no such buffers",
            "error: document 4 (line 32): syntax: \"name\" stands twice; the document is left out",
            "warning: default/web: nginx.ingress.kubernetes.io/enable-access-log: expected a string, found \
             a boolean: Kubernetes refuses it, quote it as \"false\"",
            "error: default/web: spec.rules[0].http.paths[3].backend.resource: resource backends are not \
             supported; requests are answered with 503",
            "error: default/web: spec.rules[0].http.paths[4].pathType: \"prefix\" is not one of Exact, \
             Prefix, ImplementationSpecific; the path is left out",
            "error: default/web: spec.rules[0].http.paths[5].backend.service.port.number: invalid service \
             port \"70000\": port 70000 is not between 1 and 65535",
            "error: default/web: spec.rules[0].http.paths[5].backend.service: there is no Service to send \
             to; requests are answered with 503",
            "warning: default/web: spec.rules[0].http.paths[6].weight: this field is not known and not read",
            "error: default/web: nginx.ingress.kubernetes.io/service-upstream: \"yes\" is not a boolean: \
             ingress-nginx takes it for \"false\", here it is always on",
            "error: default/web: nginx.ingress.kubernetes.io/configuration-snippet: nginx directives are \
             not understood, they have no effect",
            "warning: default/web: nginx.ingress.kubernetes.io/upstream-vhost: it does not name the backend \
             web.default:80: a sidecar routes by Host, so traffic will go to other.default, not to \
             web.default",
            "warning: default/web: spec.rules[0].http.paths[1]: www.example.com/admin/ belongs to \
             default/admin already: this one is left out",
            "error: default/web: spec.rules[0].http.paths[2]: invalid path \"no-slash\": it does not begin \
             with '/'; it is left out",
            "warning: default/web: nginx.ingress.kubernetes.io/upstream-vhost: it does not name the backend \
             web.default:https: a sidecar routes by Host, so traffic will go to other.default, not to \
             web.default",
            "warning: default/web: backend.service.port: port \"https\" of web.default:https is named for \
             another protocol than HTTP: a mesh sees bytes instead of requests",
            "error: default/web: spec.rules[1].http.paths[0]: invalid host \"www.example.com:8080\": leave \
             the port \":8080\" out: routes match \"www.example.com\" whatever the port; it is left out",
            "error: document 6 (line 65): document: expected a mapping, found a string; it is left out",
        ],
    );
    assert!(imported.has_errors());
}

#[test]
fn regular_expressions_come_before_a_root_prefix() {
    let imported = read(include_str!("manifests/regex.yaml"));
    assert_lines(
        &routes(&imported),
        &[
            "api.example.com~/v[0-9]+/users=users.default:80",
            "api.example.com~/v2/users/.*=users-v2.default:80",
            "api.example.com=/exact=exact.default:80",
            "api.example.com~/a\\.b(?:/|$)=dots.default:80",
            "api.example.com~/=web.default:80",
        ],
    );
    assert_lines(
        &findings(&imported),
        &[
            "info: default/versions: NO VHOST",
            "error: default/versions: spec.rules[0].http.paths[2]: invalid regular expression \"/(?=x)\": \
             look-around, including look-ahead and look-behind, is not supported; it is left out",
            "info: default/rest: NO VHOST",
            "warning: default/rest: spec.rules: another path of api.example.com is the same pattern as ~/: \
             this one is left out",
        ],
    );
}

#[test]
fn redirects_and_aliases() {
    let imported = read(include_str!("manifests/redirects.yaml"));
    assert_lines(
        &routes(&imported),
        &[
            "old.example.com/* answers 308",
            "taken.example.com/* answers 302",
            "odd.example.com/ answers 503",
            "www.old.example.com/* answers 308",
        ],
    );
    let location = |route: &Route| match route.action() {
        Action::Redirect(redirect) => {
            let scheme = mesh_ingress_core::Scheme::Http;
            redirect.location(scheme, "old.example.com:8080", "/a%2Fb?c=d")
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        location(&imported.routes[0]),
        "https://new.example.com/a%2Fb?c=d"
    );
    assert_eq!(
        location(&imported.routes[1]),
        "https://status.example.com/?from=shop"
    );
    assert_lines(
        &findings(&imported),
        &[
            "error: default/moved: nginx.ingress.kubernetes.io/server-alias: \"~^x.*$\": aliases by regular \
             expression are not supported, it is left out",
            "warning: default/moved: nginx.ingress.kubernetes.io/server-alias: \"taken.example.com\" has \
             rules of its own: the alias is left out",
            "error: default/holiday: nginx.ingress.kubernetes.io/temporal-redirect-code: \"200\" is not one \
             of 301, 302, 303, 307, 308; 302 is used",
            "error: default/odd: nginx.ingress.kubernetes.io/permanent-redirect: \
             \"https://x.example.com/$arg_to\" is not understood, expected a URI, or a scheme and host \
             before $request_uri; requests are answered with 503",
        ],
    );
}

#[test]
fn list_of_kubectl_is_read() {
    let imported = read(include_str!("manifests/list.json"));
    assert_lines(&routes(&imported), &["shop.example.com/=web.shop:80"]);
    assert_lines(
        &findings(&imported),
        &["info: ConfigMap shop/settings: kind: ConfigMap of v1 is no Ingress, it is not read"],
    );
}

#[test]
fn items_of_an_ingress_list_need_no_type() {
    let imported = read(
        "apiVersion: networking.k8s.io/v1\nkind: IngressList\nitems:\n\
         - metadata: {name: a}\n  spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}\n\
         - {}\n",
    );
    assert_lines(&routes(&imported), &["*/=web.default:80"]);
    assert_lines(
        &findings(&imported),
        &[
            "info: default/a: NO VHOST",
            "error: document 1 (line 1) item 2: metadata.name: it is missing",
            "error: document 1 (line 1) item 2: spec: it is missing: there is nothing to route",
            "info: document 1 (line 1) item 2: NO VHOST",
        ],
    );
}

#[test]
fn syntax_error_names_its_location() {
    let text =
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n namespace: x\n";
    let error = from_yaml(text).unwrap_err().to_string();
    assert!(error.starts_with("line 5, column "), "{error}");
}

#[test]
fn text_without_an_ingress_is_reported() {
    for text in ["", "# nothing\n", "---\n"] {
        let imported = read(text);
        assert_lines(
            &findings(&imported),
            &["warning: manifest: kind: there is no Ingress of networking.k8s.io/v1 in it"],
        );
    }
}
