//! The table of the module's documentation, row by row.

use http::HeaderValue;
use mesh_ingress_core::Verdict::{Meshed, Passthrough, Unknown};

use super::Evidence::{
    DestinationProxy, Envoy, Linkerd, LinkerdIdentity, MeshCluster, Nothing, PassthroughCluster,
    PeerMetadata, ProxyReply,
};
use super::*;

fn fields(text: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in text.split(" | ").filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once(": ").unwrap();
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers
}

#[test]
fn evidence_is_found_and_the_strongest_counts() {
    let cases: &[(&str, Evidence)] = &[
        // Responses of a real Envoy with a sidecar's routes: for a service, for PassthroughCluster (the
        // same), when it blocks, when the pod is down.
        ("server: envoy | x-envoy-upstream-service-time: 2", Envoy),
        ("server: envoy | content-length: 0", ProxyReply),
        // A response of an inbound sidecar or a waypoint, seen without a sidecar at the gateway.
        (
            "server: istio-envoy | x-envoy-upstream-service-time: 2",
            DestinationProxy,
        ),
        (
            "server: istio-envoy | x-envoy-upstream-service-time: 2 | x-envoy-decorator-operation: web.default.svc.cluster.local:80/*",
            DestinationProxy,
        ),
        (
            "server: nginx | x-envoy-decorator-operation: x",
            DestinationProxy,
        ),
        // Refused by the destination's own policy.
        ("server: istio-envoy | content-length: 19", DestinationProxy),
        (
            "server: istio-envoy | l5d-remote-ip: 10.0.0.7",
            DestinationProxy,
        ),
        // An outbound Envoy that does not trace lets the operation through.
        (
            "server: envoy | x-envoy-upstream-service-time: 2 | x-envoy-decorator-operation: x",
            Envoy,
        ),
        ("server: envoy | x-envoy-decorator-operation: x", ProxyReply),
        // `proxyHeaders.server` disabled or set.
        ("server: nginx | x-envoy-upstream-service-time: 2", Envoy),
        ("server: acme | x-envoy-attempt-count: 1", Envoy),
        ("server: envoy | x-envoy-attempt-count: 1", Envoy),
        (
            "server: envoy | x-envoy-upstream-service-time: 2 | x-envoy-peer-metadata-id: sidecar~10.0.0.7~web~x",
            PeerMetadata,
        ),
        ("x-envoy-peer-metadata: CiAK", PeerMetadata),
        (
            "server: istio-envoy | x-envoy-peer-metadata: CiAK",
            PeerMetadata,
        ),
        (
            "l5d-server-id: web.default.serviceaccount.identity.linkerd.cluster.local | l5d-remote-ip: 10.0.0.7",
            LinkerdIdentity,
        ),
        (
            "l5d-proxy-error: service in fail-fast | l5d-proxy-connection: close",
            ProxyReply,
        ),
        ("l5d-remote-ip: 10.0.0.7", Linkerd),
        (
            "server: envoy | l5d-proxy-error: x | x-envoy-upstream-service-time: 3",
            Envoy,
        ),
        ("", Nothing),
        ("server: nginx | x-envoy-ratelimited: true", Nothing),
        ("server: envoyage | x-l5d-server-id: x", Nothing),
        // Without the setting it is an ordinary field.
        ("x-istio-cluster: PassthroughCluster", Nothing),
    ];
    let rules = VerdictRules::default();
    for (text, expected) in cases {
        let headers = fields(text);
        assert_eq!(rules.evidence(&headers), *expected, "{text}");
        assert_eq!(of(&headers), rules.verdict(*expected), "{text}");
    }
}

#[test]
fn rules_of_each_data_plane_judge_the_evidence() {
    let rules = [
        VerdictRules::default(),
        VerdictRules::istio_sidecar(),
        VerdictRules::istio_ambient(),
        VerdictRules::linkerd(),
    ];
    let table: &[(Evidence, [Verdict; 4])] = &[
        (MeshCluster, [Meshed; 4]),
        (PassthroughCluster, [Passthrough; 4]),
        (LinkerdIdentity, [Meshed; 4]),
        (PeerMetadata, [Meshed; 4]),
        (DestinationProxy, [Unknown, Passthrough, Meshed, Unknown]),
        (Envoy, [Unknown; 4]),
        (ProxyReply, [Unknown; 4]),
        (Linkerd, [Unknown; 4]),
        (Nothing, [Unknown, Passthrough, Unknown, Unknown]),
    ];
    let rows: Vec<_> = table.iter().map(|(evidence, _)| *evidence).collect();
    assert_eq!(rows, Evidence::ALL);
    for (evidence, expected) in table {
        let verdicts = rules.each_ref().map(|rules| rules.verdict(*evidence));
        assert_eq!(verdicts, *expected, "{evidence}");
    }
}

#[test]
fn cluster_field_overrules_all_other_evidence() {
    let rules = VerdictRules::builder()
        .cluster_field("X-Istio-Cluster")
        .build()
        .unwrap();
    for (text, evidence) in [
        (
            "x-istio-cluster: outbound|80||web.default.svc.cluster.local",
            MeshCluster,
        ),
        (
            "x-istio-cluster: outbound|80|v2|web.default.svc.cluster.local | server: nginx",
            MeshCluster,
        ),
        (
            "x-istio-cluster: PassthroughCluster | x-envoy-peer-metadata: CiAK",
            PassthroughCluster,
        ),
        ("x-istio-cluster: BlackHoleCluster", PassthroughCluster),
        ("x-istio-cluster: inbound|80|| | server: envoy", ProxyReply),
        ("x-istio-cluster: - | server: envoy", ProxyReply),
        (
            "x-istio-cluster: outbound|80||web | x-istio-cluster: PassthroughCluster",
            Nothing,
        ),
        ("server: envoy | x-envoy-upstream-service-time: 3", Envoy),
    ] {
        assert_eq!(rules.evidence(&fields(text)), evidence, "{text}");
    }
}

#[test]
fn verdict_of_evidence_is_configurable() {
    let through = fields("server: envoy | x-envoy-upstream-service-time: 3");
    let blocked = fields("server: envoy");
    let registry_only = VerdictRules::istio_sidecar()
        .to_builder()
        .registry_only()
        .build()
        .unwrap();
    assert_eq!(registry_only.judge(&through), Meshed);
    assert_eq!(registry_only.judge(&blocked), Unknown);
    assert_eq!(registry_only.judge(&HeaderMap::new()), Passthrough);
    let quiet = registry_only.to_builder().when(Nothing, Unknown);
    let quiet = quiet.build().unwrap();
    assert_eq!(quiet.judge(&HeaderMap::new()), Unknown);
    assert_eq!(quiet.judge(&through), Meshed);

    // Changing one rule keeps the cluster field.
    let cluster = VerdictRules::builder()
        .cluster_field("x-c")
        .build()
        .unwrap();
    let changed = cluster.to_builder().registry_only().build().unwrap();
    assert_eq!(
        changed.judge(&fields("x-c: PassthroughCluster")),
        Passthrough
    );
    let error = VerdictRules::builder()
        .cluster_field("a b")
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("cluster_field"), "{error}");
}

#[test]
fn judging_allocates_nothing() {
    let headers = fields("server: istio-envoy | x-envoy-upstream-service-time: 3 | etag: x");
    let rules = VerdictRules::istio_ambient();
    let mut judged = Unknown;
    let count = allocation_counter::measure(|| judged = rules.judge(&headers)).count_total;
    assert_eq!((judged, count), (Meshed, 0));
}
