//! DNS that is not there yet, or that goes away: an answer that says so, then recovery by itself.

use std::time::Duration;

use crate::dns_and_nginx::{SERVE, VHOST, WEB, dns, shop, web};
use crate::lab::{Dnsmasq, Gateway, Lab, Nginx, Record, poll};

/// Longer than the longest pause between two tries (5 s) and a query's time-out.
const RECOVERY: Duration = Duration::from_secs(20);

#[test]
fn dns_that_comes_up_after_the_gateway_is_found() {
    Lab::run(|lab| {
        let _nginx = Nginx::start(lab, web(), "location / { return 200; }");
        let gateway = Gateway::serve(SERVE);
        assert_dns_error();

        let _dnsmasq = Dnsmasq::start(lab, dns(), &[Record::address(VHOST, WEB)]);
        recovers();
        assert!(gateway.stop().success());
    });
}

#[test]
fn a_service_created_after_the_gateway_is_found() {
    Lab::run(|lab| {
        let _nginx = Nginx::start(lab, web(), "location / { return 200; }");
        let dnsmasq = Dnsmasq::start(lab, dns(), &[]);
        let gateway = Gateway::serve(SERVE);
        // NXDOMAIN, from a server that is the authority for the zone.
        assert_dns_error();

        dnsmasq.set(&[Record::address(VHOST, WEB)]);
        recovers();
        assert!(gateway.stop().success());
    });
}

#[test]
fn a_resolved_service_outlives_its_dns_server() {
    Lab::run(|lab| {
        let nginx = Nginx::start(lab, web(), "location / { return 200; }");
        let dnsmasq = Dnsmasq::start(lab, dns(), &[Record::address(VHOST, WEB)]);
        let gateway = Gateway::serve(SERVE);
        assert_eq!(shop("/").send().status, 200);

        dnsmasq.stop();
        // Well past the TTL, every request is served from the last good answer.
        let past_ttl = Duration::from_secs(u64::from(Dnsmasq::TTL) * 2);
        let stopped = std::time::Instant::now();
        let mut served = 1;
        while stopped.elapsed() < past_ttl {
            let response = shop("/").send();
            assert_eq!(
                response.status,
                200,
                "{:?} after: {response:?}",
                stopped.elapsed()
            );
            served += 1;
        }
        println!(
            "{served} requests served, none failed, {past_ttl:?} without DNS at a TTL of {} s",
            Dnsmasq::TTL
        );
        nginx.wait_for_requests(served);
        assert!(gateway.stop().success());
    });
}

fn assert_dns_error() {
    let response = shop("/").send();
    assert_eq!(response.status, 503, "{response:?}");
    let status = response.header("proxy-status").unwrap_or_default();
    assert!(status.contains("error=dns_error"), "{response:?}");
}

fn recovers() {
    poll(RECOVERY, "a request is served again", || {
        (shop("/").send().status == 200).then_some(())
    });
}
