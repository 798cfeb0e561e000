//! A mesh that changes and fails under load: which requests fail, and that it recovers by itself.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::lab::{Curl, Dnsmasq, Gateway, Lab, WAIT_TIMEOUT, poll};
use crate::mesh::{
    Call, DNS, Embedded, Failures, Kind, Load, Mesh, OutboundPolicy, Outcome, SLOW, Service,
    Sidecar, api, builder, legacy, web,
};
use crate::mesh_contract::{API, LEGACY, ORDERS, SHOP_API, WEB, assert_all_served, calls};

/// How long a DNS outage lasts: six times the TTL.
const OUTAGE: Duration = Duration::from_secs(30);
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);

/// How long after a change of address the old one may still be in use.
const TTL: Duration = Duration::from_secs(Dnsmasq::TTL as u64 + 1);

#[test]
fn a_dns_outage_of_30_seconds_fails_no_request() {
    Lab::run(|lab| {
        let mut mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let _sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| builder().build().unwrap());
        assert_all_served(&Load::run(mixed(), CLIENTS));

        mesh.stop_dns();
        let outage = Instant::now();
        let load = Load::start(mixed(), CLIENTS, PAUSE);
        load.go_on_for(OUTAGE);
        let outage = outage.elapsed();
        mesh.start_dns(lab);
        // It asks again by itself, all the services.
        let asked = poll(WAIT_TIMEOUT, "DNS is asked again", || {
            let queries = mesh.dns_queries();
            let asked =
                |service: &Service| queries.iter().any(|query| query.contains(&service.fqdn()));
            [web(), api(), legacy()]
                .iter()
                .all(asked)
                .then_some(queries.len())
        });
        let outcomes = load.stop();
        println!(
            "DNS gone for {outage:?}: {}; then {asked} queries",
            Failures::of(&outcomes)
        );
        assert!(
            outcomes.len() > 1000,
            "{} requests are no load",
            outcomes.len()
        );
        assert_all_served(&outcomes);
        assert_eq!(Sidecar::stats().passthrough_connections(), 0);
    });
}

#[test]
fn a_changed_cluster_ip_is_used_within_the_ttl_and_a_second() {
    Lab::run(|lab| {
        let mut mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| builder().build().unwrap());
        let load = Load::start(mixed(), CLIENTS, PAUSE);
        // One of each service is under way while its address changes.
        let in_flight = [API, LEGACY].map(|(_, host, _)| slow(host));
        poll(
            WAIT_TIMEOUT,
            "the slow requests are with their pods",
            || (mesh.pods().slow_requests() == in_flight.len()).then_some(()),
        );

        mesh.recreate(&sidecar, "api.default", [10, 96, 7, 8]);
        mesh.recreate(&sidecar, "legacy.shop", [10, 96, 7, 10]);
        let changed = Instant::now();
        let mut moved = [api(), legacy()];
        for (service, address) in moved.iter_mut().zip([[10, 96, 7, 8], [10, 96, 7, 10]]) {
            service.cluster_ip = address.into();
        }
        load.go_on_for(TTL);
        let settled = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        load.wait_for_more(500);
        let outcomes = load.stop();
        mesh.pods().answer_slow_requests();
        for request in in_flight {
            assert_eq!(request.join().unwrap(), 200, "what was under way finishes");
        }

        // Where the mesh goes by Host, an old address does no harm; where it goes by address, the
        // requests of at most the TTL and a second go nowhere.
        let failed: Vec<_> = outcomes
            .iter()
            .filter(|outcome| outcome.result.is_err())
            .collect();
        println!(
            "a changed ClusterIP: {}",
            Failures::of(&outcomes).since(changed)
        );
        for outcome in &failed {
            assert_eq!(
                outcome.call.host, LEGACY.1,
                "only the one picked by address: {outcome:?}"
            );
            assert!(
                outcome.started < changed + TTL,
                "{:?} after: {outcome:?}",
                outcome.started - changed
            );
        }
        let mut seen = 0;
        for request in sidecar
            .requests()
            .iter()
            .filter(|request| request.started > settled)
        {
            for service in &moved {
                if request.authority == service.fqdn() {
                    assert_eq!(
                        request.destination,
                        service.vip().to_string(),
                        "an old connection is used"
                    );
                    seen += 1;
                }
            }
        }
        println!(
            "{seen} requests over new connections to new addresses after {TTL:?}, none over old ones"
        );
        assert!(seen > 10, "{seen}");
    });
}

#[test]
fn a_restarted_sidecar_is_found_again_under_load() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| {
            let behind_a_sidecar = mesh_ingress::Mesh::IstioSidecar;
            builder().mesh(behind_a_sidecar).build().unwrap()
        });
        assert_all_served(&Load::run(mixed(), CLIENTS));

        let load = Load::start(mixed(), CLIENTS, PAUSE);
        load.wait_for_more(300);
        let stopped = Instant::now();
        sidecar.stop();
        let gone = Instant::now();
        let _sidecar = mesh.start_sidecar();
        let ready = Instant::now();
        load.wait_for_more(1000);
        let outcomes = load.stop();

        println!(
            "the sidecar went within {:?} and was back after {:?}",
            gone - stopped,
            ready - stopped
        );
        println!(
            "a sidecar restart: {}",
            Failures::of(&outcomes).since(stopped)
        );
        // A sidecar that is told to go cuts what it is busy with. While there is none, requests wait
        // for the next one, for two seconds. Everything else, before and after, must be served.
        let cut = |outcome: &Outcome| outcome.started < gone && outcome.ended > stopped;
        let refused = |outcome: &Outcome| {
            let fault = outcome.result.as_ref().err();
            fault.is_some_and(|fault| fault.contains("error=connection_refused"))
                && (stopped..ready).contains(&outcome.started)
        };
        let failed = || outcomes.iter().filter(|outcome| outcome.result.is_err());
        let avoidable: Vec<_> = failed()
            .filter(|outcome| !cut(outcome) && !refused(outcome))
            .collect();
        assert!(avoidable.is_empty(), "{avoidable:#?}");
        if ready - stopped < Duration::from_millis(1500) {
            let refused: Vec<_> = failed().filter(|outcome| !cut(outcome)).collect();
            assert!(refused.is_empty(), "{refused:#?}");
        }
        let cut = failed().filter(|outcome| cut(outcome)).count();
        println!(
            "cut while under way: {cut}; refused while there was no sidecar: {}",
            failed().count() - cut
        );
        assert_eq!(Sidecar::stats().passthrough_connections(), 0);
    });
}

#[test]
fn a_gateway_that_starts_before_its_sidecar_waits_for_it() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let route = format!("{}/={}", WEB.1, web().reference());
        let gateway = Gateway::serve(&["--dns", DNS, "--route", &route]);
        let get = || Curl::get(Gateway::URL).host(WEB.1).send();

        // Captured, and nothing listens where it is redirected to.
        let response = get();
        assert!((502..=503).contains(&response.status), "{response:?}");
        let status = response.header("proxy-status").unwrap_or_default();
        assert!(status.contains("error=connection_refused"), "{response:?}");

        let _sidecar = mesh.start_sidecar();
        let response = get();
        assert_eq!(response.status, 200, "as soon as it is there: {response:?}");
        assert_eq!(Sidecar::stats().meshed(&web()), 1);
        assert!(gateway.stop().success());
    });
}

#[test]
fn a_gateway_told_to_stop_finishes_what_is_under_way() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let _sidecar = mesh.start_sidecar();
        let route = format!("{}/={}", API.1, api().reference());
        let mut gateway = Gateway::serve(&["--dns", DNS, "--route", &route]);
        let under_way = [slow(API.1), slow(API.1)];
        poll(
            WAIT_TIMEOUT,
            "the slow requests are with their pods",
            || (mesh.pods().slow_requests() == under_way.len()).then_some(()),
        );

        gateway.ask_to_stop();
        poll(WAIT_TIMEOUT, "the gateway takes nothing new", || {
            TcpStream::connect(Gateway::ADDR).is_err().then_some(())
        });
        assert!(gateway.is_running(), "it waits for what is under way");
        mesh.pods().answer_slow_requests();
        for request in under_way {
            assert_eq!(request.join().unwrap(), 200);
        }
        assert!(gateway.wait().success());
    });
}

fn mixed() -> Vec<Call> {
    calls(&[
        (4, Kind::Get, WEB),
        (2, Kind::H2Get, WEB),
        (2, Kind::Post, API),
        (1, Kind::Chunked, API),
        (1, Kind::WebSocket, API),
        (1, Kind::Get, SHOP_API),
        (3, Kind::Grpc, ORDERS),
        (4, Kind::Get, LEGACY),
    ])
}

/// Sends a request that its pod answers when told to; the status once it does.
fn slow(host: &'static str) -> thread::JoinHandle<u16> {
    thread::spawn(move || {
        Curl::get(&format!("{}{SLOW}", Gateway::URL))
            .host(host)
            .send()
            .status
    })
}
