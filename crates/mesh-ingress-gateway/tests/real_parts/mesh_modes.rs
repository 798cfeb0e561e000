//! A gateway in a mesh with HTTP/1.0, strict policies, split traffic.

use std::collections::BTreeMap;

use mesh_ingress::{Backend, MeshIngress, VhostPolicy};

use crate::lab::{Curl, Gateway, Lab};
use crate::mesh::{
    Call, Embedded, Kind, Load, Mesh, OutboundPolicy, Sidecar, api, builder, cluster_dns, legacy,
    orders, route, shop_api, vault, web,
};
use crate::mesh_contract::{
    API, LEGACY, ORDERS, PodAddresses, SHOP_API, WEB, assert_all_served, calls, preserving,
};

/// A sidecar answers HTTP/1.0 with 426 (Upgrade Required); the gateway speaks 1.1 to it.
#[test]
fn http_1_0_clients_are_served() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let _sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| builder().build().unwrap());

        let refused = Curl::get(&format!("http://{}/", web().vip()))
            .host(&web().fqdn())
            .flag("--http1.0");
        assert_eq!(
            refused.send().status,
            426,
            "this is what the sidecar does to HTTP/1.0"
        );

        for (_, host, _) in [WEB, API, SHOP_API, LEGACY] {
            let response = Curl::get(Gateway::URL).host(host).flag("--http1.0").send();
            assert_eq!(response.status, 200, "{response:?}");
            let posted = Curl::get(Gateway::URL)
                .host(host)
                .flag("--http1.0")
                .option("-d", "x")
                .send();
            assert_eq!(posted.status, 200, "{posted:?}");
        }
        let stats = Sidecar::stats();
        assert_eq!(
            [web(), api(), shop_api(), legacy()].map(|service| stats.meshed(&service)),
            [2; 4]
        );
        assert_eq!(stats.passthrough_connections(), 0);
    });
}

/// Under REGISTRY_ONLY the mesh serves what it knows and nothing else. It knows what we send.
#[test]
fn registry_only_serves_what_is_addressed_as_the_mesh_expects() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::RegistryOnly);
        let sidecar = mesh.start_sidecar();
        let mix = [
            (200, Kind::Get, WEB),
            (200, Kind::Post, API),
            (50, Kind::WebSocket, SHOP_API),
            (200, Kind::Grpc, ORDERS),
            (200, Kind::Get, LEGACY),
        ];
        {
            let _gateway = Embedded::start(|| builder().build().unwrap());
            assert_all_served(&Load::run(calls(&mix), 8));
        }
        let stats = Sidecar::stats();
        assert_eq!(
            [web(), api(), shop_api(), orders(), legacy()].map(|service| stats.meshed(&service)),
            [200, 200, 50, 200, 200]
        );
        let requests = sidecar.wait_for_requests(850);
        assert!(
            requests.iter().all(|request| request.status < 400),
            "none was blocked"
        );
        {
            let _gateway = Embedded::start(|| preserving().build().unwrap());
            let response = Curl::get(Gateway::URL).host(WEB.1).send();
            assert_eq!(
                response.status, 502,
                "the public Host is blocked: {response:?}"
            );
            assert_eq!(Curl::get(Gateway::URL).host(LEGACY.1).send().status, 200);
        }
        {
            let _gateway = Embedded::start(|| builder().resolver(PodAddresses).build().unwrap());
            let response = Curl::get(Gateway::URL).host(WEB.1).send();
            assert_eq!(
                response.status, 502,
                "pods are in a black hole: {response:?}"
            );
            let status = response.header("proxy-status").unwrap_or_default();
            assert!(
                status.contains("error=connection_terminated"),
                "{response:?}"
            );
        }
        let stats = Sidecar::stats();
        println!(
            "black hole: {} connections",
            stats.black_holed_connections()
        );
        assert!(stats.black_holed_connections() >= 1);
    });
}

/// Each backend of a split carries its own name and its own ClusterIP; with one of them for both,
/// the mesh would undo the split.
#[test]
fn weighted_backends_carry_their_own_host_and_cluster_ip() {
    const SENT: usize = 2000;
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| {
            let backend =
                |service: String, weight| Backend::new(service.parse().unwrap()).weight(weight);
            let split = mesh_ingress::Route::host("shop.example.com")
                .to_backend(backend(api().reference(), 70))
                .to_backend(backend(legacy().reference(), 30));
            MeshIngress::builder()
                .resolver(cluster_dns())
                .route(split)
                .build()
                .unwrap()
        });

        let call = Call {
            kind: Kind::Get,
            host: "shop.example.com",
            origins: &["api.default", "legacy.shop"],
        };
        let outcomes = Load::run(vec![call; SENT], 8);
        assert_all_served(&outcomes);

        let mut answered: BTreeMap<(String, String), u64> = BTreeMap::new();
        for answer in outcomes
            .iter()
            .filter_map(|outcome| outcome.result.as_ref().ok())
        {
            *answered
                .entry((answer.origin.clone(), answer.host.clone()))
                .or_default() += 1;
        }
        println!("answered by and asked as: {answered:?}");
        let share = |origin: &str, host: String| {
            answered
                .get(&(origin.to_owned(), host))
                .copied()
                .unwrap_or(0)
        };
        let (main, canary) = (
            share("api.default", api().fqdn()),
            share("legacy.shop", legacy().fqdn()),
        );
        assert_eq!(
            main + canary,
            SENT as u64,
            "nobody was asked under another's name"
        );
        // Five standard deviations of a binomial distribution are 102.
        assert!(
            main.abs_diff(1400) < 110,
            "{main} of {SENT} for a weight of 70 %"
        );

        let stats = Sidecar::stats();
        assert_eq!(
            (stats.meshed(&api()), stats.meshed(&legacy())),
            (main, canary)
        );
        assert_eq!(stats.passthrough_connections(), 0);
        for request in sidecar.wait_for_requests(SENT) {
            let own = [api(), legacy()].map(|service| (service.vip().to_string(), service.fqdn()));
            assert!(
                own.contains(&(request.destination.clone(), request.authority.clone())),
                "{request:?}"
            );
        }
    });
}

/// The mode belongs to the route, not to the service: in ingress-nginx the oldest Ingress decides
/// for all.
#[test]
fn one_service_keeps_the_mode_of_each_of_its_routes() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| {
            let derived = route("shop.example.com", &web());
            let preserved = route("old.example.com", &web()).vhost(VhostPolicy::Preserve);
            let overridden = route("other.example.com", &web())
                .vhost(VhostPolicy::Override(api().fqdn().parse().unwrap()));
            let routes = [derived, preserved, overridden];
            MeshIngress::builder()
                .resolver(cluster_dns())
                .routes(routes)
                .build()
                .unwrap()
        });

        let mut calls = Vec::new();
        for _ in 0..100 {
            for (host, origins) in [
                ("shop.example.com", &["web.default"]),
                ("old.example.com", &["web.default"]),
                // The mesh routes by Host alone here.
                ("other.example.com", &["api.default"]),
            ] {
                calls.push(Call {
                    kind: Kind::Get,
                    host,
                    origins,
                });
            }
        }
        assert_all_served(&Load::run(calls, 4));

        let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
        for request in sidecar.wait_for_requests(300) {
            assert_eq!(request.destination, web().vip().to_string());
            *seen
                .entry((request.authority, request.cluster))
                .or_default() += 1;
        }
        let expected = [
            ((api().fqdn(), api().cluster()), 100),
            (
                (
                    "old.example.com".to_owned(),
                    "PassthroughCluster".to_owned(),
                ),
                100,
            ),
            ((web().fqdn(), web().cluster()), 100),
        ];
        assert_eq!(seen, BTreeMap::from(expected));
    });
}

/// Pods under STRICT take mutual TLS from the mesh and nothing else. A request that leaves the
/// mesh is refused.
#[test]
fn strict_pods_serve_the_mesh_and_refuse_passthrough() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let _sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| {
            let meshed = route("vault.example.com", &vault());
            let unmeshed = route("leaky.example.com", &vault()).vhost(VhostPolicy::Preserve);
            MeshIngress::builder()
                .resolver(cluster_dns())
                .routes([meshed, unmeshed])
                .build()
                .unwrap()
        });

        let response = Curl::get(Gateway::URL).host("vault.example.com").send();
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("x-origin"), Some("vault.shop"));
        assert_eq!(Sidecar::stats().passthrough_requests(), 0);

        let response = Curl::get(Gateway::URL).host("leaky.example.com").send();
        println!(
            "STRICT refuses plain text: {response:?}: {}",
            response.text()
        );
        assert_eq!(response.status, 503, "{response:?}");
        let stats = Sidecar::stats();
        assert_eq!(
            (stats.meshed(&vault()), stats.passthrough_requests()),
            (1, 1)
        );
    });
}

/// Fields that a sidecar obeys or forwards must not come from the public.
#[test]
fn forged_mesh_headers_end_at_the_gateway() {
    const FORGED: &[(&str, &str)] = &[
        ("x-envoy-upstream-rq-timeout-ms", "77777"),
        ("x-envoy-max-retries", "77777"),
        ("x-forwarded-client-cert", "By=77777"),
        ("x-istio-attributes", "77777"),
        ("l5d-dst-override", "77777.evil.svc.cluster.local:80"),
    ];
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let _sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| builder().build().unwrap());
        let forge = |curl: Curl| {
            let add =
                |curl: Curl, (name, value): &(_, _)| curl.option("-H", format!("{name}: {value}"));
            FORGED.iter().fold(curl, add).send().text()
        };

        let direct = forge(Curl::get(&format!("http://{}/", api().vip())).host(&api().fqdn()));
        assert!(
            direct.contains("77777"),
            "the sidecar itself lets some of them through: {direct}"
        );
        let through = forge(Curl::get(Gateway::URL).host(API.1));
        println!("what the pod sees:\n{through}");
        assert!(
            through.contains("\nx-forwarded-host: api.example.com\n"),
            "{through}"
        );
        assert!(!through.contains("77777"), "{through}");
    });
}
