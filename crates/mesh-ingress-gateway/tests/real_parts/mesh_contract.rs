//! The contract with the mesh: every request lands in the cluster of its own service.

use crate::lab::Lab;
use crate::mesh::{
    Call, Embedded, Kind, Load, Mesh, OutboundPolicy, Outcome, Service, Sidecar, api, builder,
    legacy, orders, shop_api, web,
};

/// How many of each kind for each service in the mixed load.
const MIX: &[(usize, Kind, fn() -> Service, &str, &str)] = &[
    (1500, Kind::Get, web, "shop.example.com", "web.default"),
    (1000, Kind::H2Get, web, "shop.example.com", "web.default"),
    (1000, Kind::Get, api, "api.example.com", "api.default"),
    (1000, Kind::H2Get, api, "api.example.com", "api.default"),
    (1000, Kind::Post, api, "api.example.com", "api.default"),
    (1000, Kind::Chunked, api, "api.example.com", "api.default"),
    (500, Kind::WebSocket, api, "api.example.com", "api.default"),
    (
        1000,
        Kind::Get,
        shop_api,
        "api.shop.example.com",
        "api.shop",
    ),
    (
        500,
        Kind::Chunked,
        shop_api,
        "api.shop.example.com",
        "api.shop",
    ),
    (
        1500,
        Kind::Grpc,
        orders,
        "orders.example.com",
        "orders.shop",
    ),
    (500, Kind::Get, legacy, "legacy.example.com", "legacy.shop"),
    (500, Kind::Post, legacy, "legacy.example.com", "legacy.shop"),
];

#[test]
fn every_request_of_a_mixed_load_lands_in_its_own_cluster() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let _sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| builder().build().unwrap());

        let outcomes = Load::run(interleaved(), 16);
        let stats = Sidecar::stats();

        assert_all_served(&outcomes);
        for service in [web(), api(), shop_api(), orders(), legacy()] {
            let sent = MIX
                .iter()
                .filter(|(_, _, of, _, _)| of().reference() == service.reference());
            let sent: usize = sent.map(|(count, ..)| count).sum();
            println!(
                "{}: sent {sent}, meshed {}, retried {}",
                service.cluster(),
                stats.meshed(&service),
                stats.retried(&service)
            );
            assert_eq!(stats.meshed(&service), sent as u64, "{}", service.cluster());
            assert_eq!(stats.retried(&service), 0, "{}", service.cluster());
        }
        println!(
            "PassthroughCluster: {} connections, of {} requests sent",
            stats.passthrough_connections(),
            outcomes.len()
        );
        assert_eq!(stats.passthrough_connections(), 0);
        assert_eq!(stats.passthrough_requests(), 0);
    });
}

/// The calls of the mix, the kinds in turn.
fn interleaved() -> Vec<Call> {
    let mut calls: Vec<(f64, Call)> = Vec::new();
    for &(count, kind, _, host, origin) in MIX {
        let call = Call { kind, host, origin };
        calls.extend((0..count).map(|index| (index as f64 / count as f64, call)));
    }
    calls.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    calls.into_iter().map(|(_, call)| call).collect()
}

pub(crate) fn assert_all_served(outcomes: &[Outcome]) {
    let faults: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.fault.is_some())
        .collect();
    let shown: Vec<_> = faults.iter().take(10).collect();
    assert!(
        faults.is_empty(),
        "{} of {} failed: {shown:#?}",
        faults.len(),
        outcomes.len()
    );
}
