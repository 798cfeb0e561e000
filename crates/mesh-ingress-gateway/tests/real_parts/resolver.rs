//! Names on the wire, as a real name server sees them.

use crate::dns_and_nginx::{DNS, VHOST, WEB, dns, shop, web};
use crate::lab::{Dnsmasq, Gateway, Lab, Nginx, Record, WAIT_TIMEOUT, poll};

/// A pod's `/etc/resolv.conf`, except for the address.
const POD: &str = "search default.svc.cluster.local svc.cluster.local cluster.local\n\
                   options ndots:5\n";

const ARGS: &[&str] = &[
    "--route",
    "shop.example.com/=web.default:80",
    "--upstream-cidr",
    "127.0.0.0/8",
];

#[test]
fn the_resolv_conf_of_a_pod_is_enough_and_its_search_list_is_not_walked() {
    Lab::run(|lab| {
        let dnsmasq = Dnsmasq::start(
            lab,
            "127.0.0.1:53".parse().unwrap(),
            &[Record::address(VHOST, WEB)],
        );
        let _nginx = Nginx::start(lab, web(), "location / { return 200; }");
        lab.host()
            .set_resolv_conf(&format!("nameserver 127.0.0.1\n{POD}"));
        let gateway = Gateway::serve_on(lab.host(), ARGS);
        assert_eq!(shop("/").send().status, 200);

        let mut queries = dnsmasq.queries();
        queries.sort();
        // One a record type, of the whole name.
        assert_eq!(
            queries,
            [format!("query[AAAA] {VHOST}"), format!("query[A] {VHOST}")]
        );
        assert!(gateway.stop().success());
    });
}

#[test]
fn a_changed_resolv_conf_is_read_again() {
    Lab::run(|lab| {
        let _dnsmasq = Dnsmasq::start(
            lab,
            "127.0.0.1:53".parse().unwrap(),
            &[Record::address(VHOST, WEB)],
        );
        let _nginx = Nginx::start(lab, web(), "location / { return 200; }");
        // No server listens there.
        lab.host()
            .set_resolv_conf(&format!("nameserver 127.0.0.99\n{POD}"));
        let gateway = Gateway::serve_on(lab.host(), ARGS);
        assert_eq!(shop("/").send().status, 503);

        lab.host()
            .set_resolv_conf(&format!("nameserver 127.0.0.1\n{POD}"));
        poll(WAIT_TIMEOUT, "a request is served", || {
            (shop("/").send().status == 200).then_some(())
        });
        assert!(gateway.stop().success());
    });
}

#[test]
fn a_dead_first_name_server_is_survived() {
    Lab::run(|lab| {
        let _dnsmasq = Dnsmasq::start(lab, dns(), &[Record::address(VHOST, WEB)]);
        let _nginx = Nginx::start(lab, web(), "location / { return 200; }");
        let gateway = Gateway::serve(&[&["--dns", "127.0.0.99:5353", "--dns", DNS], ARGS].concat());
        assert_eq!(shop("/").send().status, 200);
        assert!(gateway.stop().success());
    });
}

#[test]
fn a_named_port_is_found_by_its_srv_record() {
    Lab::run(|lab| {
        let srv = Record::Service(format!("_http._tcp.{VHOST}"), VHOST.to_owned(), 8081);
        let dnsmasq = Dnsmasq::start(lab, dns(), &[Record::address(VHOST, WEB), srv]);
        let addr = format!("{WEB}:8081").parse().unwrap();
        let _nginx = Nginx::start(lab, addr, r#"location / { return 200 "$http_host"; }"#);
        let route = "shop.example.com/=web.default:http";
        let gateway = Gateway::serve(&[
            "--dns",
            DNS,
            "--route",
            route,
            "--upstream-cidr",
            "127.0.0.0/8",
        ]);

        let response = shop("/").send();
        assert_eq!(response.status, 200, "{response:?}");
        // The port is for connecting; the name goes without it.
        assert_eq!(response.text(), VHOST);
        let queries = dnsmasq.queries();
        let srv_queries = queries
            .iter()
            .filter(|query| query.starts_with("query[SRV] "));
        assert_eq!(srv_queries.count(), 1, "{queries:?}");
        assert!(
            queries.contains(&format!("query[SRV] _http._tcp.{VHOST}")),
            "{queries:?}"
        );
        assert!(gateway.stop().success());
    });
}
