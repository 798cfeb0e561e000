//! The gateway's own view of the mesh: readiness, verdicts, `doctor`.

use mesh_ingress::headers::VerdictRules;
use mesh_ingress::{Health, Mesh as DataPlane, MeshIngress, MeshIngressBuilder, VhostPolicy};

use crate::lab::{Curl, Gateway, Lab};
use crate::mesh::{
    Embedded, Mesh, Outbound, Sidecar, api, builder, cluster_dns, legacy, route, vault, web,
};

/// The field in which the sidecar tells the cluster.
const FIELD: &str = "x-istio-cluster";

fn telling() -> Outbound {
    Outbound {
        cluster_field: Some(FIELD),
        ..Outbound::default()
    }
}

/// Routes into the mesh, and routes past it.
fn gateway() -> MeshIngressBuilder {
    let rules = VerdictRules::istio_sidecar()
        .to_builder()
        .cluster_field(FIELD)
        .build()
        .unwrap();
    let preserve = |host, service| route(host, service).vhost(VhostPolicy::Preserve);
    MeshIngress::builder()
        .mesh(DataPlane::IstioSidecar)
        .verdict(rules)
        .resolver(cluster_dns())
        .route(route("shop.example.com", &web()).name("in"))
        .route(preserve("old.example.com", &web()).name("out"))
        .route(preserve("legacy.example.com", &legacy()).name("unnamed"))
        .route(route("vault.example.com", &vault()).name("strict"))
        .route(preserve("leaky.example.com", &vault()).name("leaky"))
}

fn get(host: &str) -> crate::lab::Response {
    Curl::get(Gateway::URL).host(host).send()
}

#[test]
fn readiness_follows_the_sidecar() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, Outbound::default());
        let gateway = Embedded::start(|| builder().mesh(DataPlane::IstioSidecar).build().unwrap());
        let ready = || {
            let answer = gateway.ask(|mesh| async move { mesh.sidecar_ready().await });
            answer.expect("there is a sidecar to ask")
        };
        let error = ready().unwrap_err();
        println!("before: {}", error.report());
        let sidecar = mesh.start_sidecar();
        ready().unwrap();
        sidecar.stop();
        println!("after: {}", ready().unwrap_err().report());
        let _sidecar = mesh.start_sidecar();
        ready().unwrap();
    });
}

#[test]
fn verdicts_are_those_of_envoys_statistics() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, telling());
        let _sidecar = mesh.start_sidecar();
        let gateway = Embedded::start(|| gateway().build().unwrap());
        for (host, times, status) in [
            ("shop.example.com", 7, 200),
            ("old.example.com", 5, 200),
            ("legacy.example.com", 3, 200),
            ("vault.example.com", 2, 200),
            // Pods under STRICT refuse what left the mesh.
            ("leaky.example.com", 4, 503),
        ] {
            for _ in 0..times {
                let response = get(host);
                assert_eq!(response.status, status, "{host}: {response:?}");
                assert_eq!(
                    response.header(FIELD),
                    None,
                    "that is not the client's business"
                );
            }
        }
        let stats = Sidecar::stats();
        let counted: Vec<_> = gateway
            .mesh()
            .verdicts()
            .iter()
            .map(|of| (of.route.to_string(), of.meshed, of.passthrough, of.unknown))
            .collect();
        println!("{counted:?}");
        let of = |route: &str| {
            let found = counted.iter().find(|(name, ..)| name == route);
            found.map(|(_, meshed, passthrough, unknown)| (*meshed, *passthrough, *unknown))
        };
        assert_eq!(of("in"), Some((7, 0, 0)));
        assert_eq!(of("out"), Some((0, 5, 0)));
        assert_eq!(of("unnamed"), Some((3, 0, 0)));
        assert_eq!(of("strict"), Some((2, 0, 0)));
        assert_eq!(of("leaky"), Some((0, 4, 0)));
        assert_eq!(
            [web(), legacy(), vault()].map(|service| stats.meshed(&service)),
            [7, 3, 2]
        );
        assert_eq!(stats.passthrough_requests(), 9);
    });
}

#[test]
fn a_gateway_that_requires_the_mesh_refuses_what_left_it() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, telling());
        let _sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| gateway().require_mesh(true).build().unwrap());
        for host in [
            "shop.example.com",
            "legacy.example.com",
            "vault.example.com",
        ] {
            assert_eq!(get(host).status, 200, "{host}");
        }
        for host in ["old.example.com", "leaky.example.com"] {
            let response = get(host);
            assert_eq!(response.status, 502, "{response:?}");
            let status = response.header("proxy-status").unwrap_or_default();
            assert!(
                status.contains("error=destination_unavailable"),
                "{response:?}"
            );
            assert_eq!(
                response.header("x-origin"),
                None,
                "nothing of it gets through"
            );
        }
    });
}

#[test]
fn the_doctor_finds_what_leaves_the_mesh() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, telling());
        let examine = |gateway: &Embedded| {
            let findings = gateway.ask(|mesh| async move { mesh.doctor().await });
            for finding in &findings {
                println!("{finding}");
            }
            println!();
            findings
        };
        let gateway = Embedded::start(|| {
            let gone = route("gone.example.com", &crate::mesh::missing()).name("gone");
            let good = route("api.example.com", &api()).name("api");
            gateway().route(gone).route(good).build().unwrap()
        });

        let before = examine(&gateway);
        let of_the_sidecar = before
            .iter()
            .find(|finding| finding.service.is_none())
            .unwrap();
        assert_eq!(of_the_sidecar.health, Health::Bad, "{of_the_sidecar}");

        let _sidecar = mesh.start_sidecar();
        let findings = examine(&gateway);
        let worst = |service: &crate::mesh::Service| {
            let name = service.reference();
            let of_it = findings.iter().filter(|finding| {
                finding
                    .service
                    .as_ref()
                    .is_some_and(|service| service.to_string() == name)
            });
            of_it.map(|finding| finding.health).max().unwrap()
        };
        let of_the_sidecar = findings
            .iter()
            .find(|finding| finding.service.is_none())
            .unwrap();
        assert_eq!(of_the_sidecar.health, Health::Good, "{of_the_sidecar}");
        assert_eq!(worst(&api()), Health::Good);
        // One of its routes keeps the client's Host.
        assert!(worst(&web()) >= Health::Doubtful);
        assert_eq!(worst(&crate::mesh::missing()), Health::Bad);
    });
}
