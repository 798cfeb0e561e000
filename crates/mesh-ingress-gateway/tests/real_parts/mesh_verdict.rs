//! How much a response behind a real Envoy tells about its path: less than it seems.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_ingress::Verdict;
use mesh_ingress::headers::{Evidence, VerdictRules};

use crate::lab::{Curl, Lab, Response};
use crate::mesh::{Mesh, Outbound, OutboundPolicy, Sidecar, api, legacy, web};

const FIELD: &str = "x-istio-cluster";

/// A way to a service: what it is, where it is connected to, what `Host` says.
type Way = (&'static str, SocketAddr, String);

/// In the mesh: a named port, and an unnamed one whatever its `Host`.
fn meshed() -> [Way; 2] {
    [
        ("named port", api().vip(), api().fqdn()),
        (
            "unnamed port",
            legacy().vip(),
            "legacy.example.com".to_owned(),
        ),
    ]
}

/// Past the mesh through its catch-all virtual host.
fn wrong_host() -> Way {
    ("public Host", api().vip(), "api.example.com".to_owned())
}

/// Past the mesh without it seeing HTTP.
fn pod_address() -> Way {
    (
        "pod address",
        api().endpoints().next().unwrap(),
        api().fqdn(),
    )
}

#[test]
fn http_responses_do_not_tell_whether_they_passed_the_mesh() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let _sidecar = mesh.start_sidecar();
        let rules = VerdictRules::istio_sidecar();

        for way in meshed() {
            let headers = headers(&send(&way));
            assert_eq!(
                rules.evidence(&headers),
                Evidence::Envoy,
                "{way:?}: {headers:?}"
            );
            assert_eq!(rules.judge(&headers), Verdict::Unknown);
        }
        assert_eq!(Sidecar::stats().passthrough_connections(), 0);

        let headers_of_wrong_host = headers(&send(&wrong_host()));
        assert_eq!(Sidecar::stats().passthrough_requests(), 1);
        assert_eq!(rules.evidence(&headers_of_wrong_host), Evidence::Envoy);
        assert_eq!(rules.judge(&headers_of_wrong_host), Verdict::Unknown);

        // The sidecar only passed bytes, so nothing bears its mark.
        let headers_of_pod = headers(&send(&pod_address()));
        assert_eq!(Sidecar::stats().passthrough_connections(), 2);
        assert_eq!(
            rules.evidence(&headers_of_pod),
            Evidence::Nothing,
            "{headers_of_pod:?}"
        );
        assert_eq!(rules.judge(&headers_of_pod), Verdict::Passthrough);
    });
}

#[test]
fn a_sidecar_that_tells_its_cluster_leaves_no_doubt() {
    Lab::run(|lab| {
        let outbound = Outbound {
            cluster_field: Some(FIELD),
            ..Outbound::default()
        };
        let mesh = Mesh::start(lab, outbound);
        let _sidecar = mesh.start_sidecar();
        let rules = VerdictRules::istio_sidecar()
            .to_builder()
            .cluster_field(FIELD)
            .build()
            .unwrap();

        for (way, service) in meshed().iter().zip([api(), legacy()]) {
            let headers = headers(&send(way));
            assert_eq!(headers[FIELD], service.cluster());
            assert_eq!(rules.evidence(&headers), Evidence::MeshCluster);
            assert_eq!(rules.judge(&headers), Verdict::Meshed);
        }
        for way in [wrong_host(), pod_address()] {
            let headers = headers(&send(&way));
            assert_eq!(
                rules.judge(&headers),
                Verdict::Passthrough,
                "{way:?}: {headers:?}"
            );
        }
    });
}

#[test]
fn registry_only_refusal_is_answered_by_the_proxy() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::RegistryOnly);
        let _sidecar = mesh.start_sidecar();
        let rules = VerdictRules::istio_sidecar();

        let served = send(&("named port", web().vip(), web().fqdn()));
        assert_eq!(
            (served.status, rules.evidence(&headers(&served))),
            (200, Evidence::Envoy)
        );
        let blocked = send(&wrong_host());
        assert_eq!(
            (blocked.status, rules.evidence(&headers(&blocked))),
            (502, Evidence::ProxyReply)
        );
    });
}

/// Sends a request as a gateway would: from the application pod, so that it is captured.
fn send((_, address, host): &Way) -> Response {
    Curl::get(&format!("http://{address}/")).host(host).send()
}

fn headers(response: &Response) -> HeaderMap {
    let field = |(name, value): &(String, String)| {
        let name = name.parse::<HeaderName>().unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    };
    response.headers.iter().map(field).collect()
}
