//! One request the whole way: curl, the gateway, dnsmasq, nginx.

use std::net::SocketAddr;

use crate::lab::{Curl, Dnsmasq, Gateway, Lab, Nginx, Record};

pub(crate) const DNS: &str = "127.0.0.1:5353";
pub(crate) const VHOST: &str = "web.default.svc.cluster.local";
/// The "ClusterIP" of `web.default`.
pub(crate) const WEB: &str = "127.0.1.7";

/// The command line of the issue: one route, loopback allowed because the lab's Service is there.
pub(crate) const SERVE: &[&str] = &[
    "--dns",
    DNS,
    "--route",
    "shop.example.com/=web.default:80",
    "--upstream-cidr",
    "127.0.0.0/8",
];

pub(crate) fn dns() -> SocketAddr {
    DNS.parse().unwrap()
}

pub(crate) fn web() -> SocketAddr {
    format!("{WEB}:80").parse().unwrap()
}

pub(crate) fn shop(path: &str) -> Curl {
    Curl::get(&format!("{}{path}", Gateway::URL)).host("shop.example.com")
}

#[test]
fn the_origin_sees_the_vhost_and_the_public_host_over_one_connection() {
    Lab::run(|lab| {
        let dnsmasq = Dnsmasq::start(lab, dns(), &[Record::address(VHOST, WEB)]);
        let echo_host = r#"location / { return 200 "$http_host\n"; }"#;
        let nginx = Nginx::start_telling_headers(lab, web(), echo_host);
        // Each worker has connections of its own, and the kernel deals clients out to workers.
        let gateway = Gateway::serve(&[SERVE, &["--workers", "1"]].concat());

        for _ in 0..2 {
            let response = shop("/").send();
            assert_eq!(response.status, 200, "{response:?}");
            assert_eq!(response.text(), format!("{VHOST}\n"));
        }

        let requests = nginx.wait_for_requests(2);
        let [first, second] = requests.as_slice() else {
            panic!("two requests, not {requests:?}");
        };
        for request in [first, second] {
            assert_eq!(request.host, VHOST);
            assert_eq!(request.forwarded_host, "shop.example.com");
        }
        assert_eq!(
            first.connection, second.connection,
            "the second request reuses the connection"
        );
        assert_eq!(
            (first.connection_requests, second.connection_requests),
            (1, 2)
        );
        // Two requests on the connection: one line each.
        assert_eq!(nginx.header_lines(first.connection, "Host"), [VHOST, VHOST]);
        assert_eq!(
            nginx.header_lines(first.connection, "X-Forwarded-Host"),
            ["shop.example.com", "shop.example.com"]
        );

        // The whole name went on the wire, no search list was walked, and no query was repeated for
        // the second request.
        let queries = dnsmasq.queries();
        assert!(!queries.is_empty(), "dnsmasq was asked");
        assert!(
            queries
                .iter()
                .all(|query| query.ends_with(&format!("] {VHOST}"))),
            "{queries:?}"
        );
        let a_queries = queries
            .iter()
            .filter(|query| query.starts_with("query[A] "))
            .count();
        assert_eq!(a_queries, 1, "{queries:?}");

        assert!(gateway.stop().success(), "SIGTERM ends it with exit code 0");
    });
}

#[test]
fn two_requests_of_one_client_connection_go_over_one_upstream_connection() {
    Lab::run(|lab| {
        let _dnsmasq = Dnsmasq::start(lab, dns(), &[Record::address(VHOST, WEB)]);
        let nginx = Nginx::start(lab, web(), "location / { return 200; }");
        let gateway = Gateway::serve(SERVE);

        // With as many workers as there are cores.
        let again = format!("{}/again", Gateway::URL);
        assert_eq!(shop("/").statuses_with(&again), [200, 200]);
        let requests = nginx.wait_for_requests(2);
        let counts: Vec<_> = requests
            .iter()
            .map(|request| request.connection_requests)
            .collect();
        assert_eq!(counts, [1, 2], "{requests:?}");
        assert!(gateway.stop().success());
    });
}

#[test]
fn a_host_without_a_route_reaches_no_origin() {
    Lab::run(|lab| {
        let _dnsmasq = Dnsmasq::start(lab, dns(), &[Record::address(VHOST, WEB)]);
        let nginx = Nginx::start(lab, web(), "location / { return 200; }");
        let _gateway = Gateway::serve(SERVE);

        let response = Curl::get(Gateway::URL).host("other.example.com").send();
        assert_eq!(response.status, 404, "{response:?}");
        let status = response.header("proxy-status").unwrap_or_default();
        assert!(
            status.contains("error=destination_not_found"),
            "{response:?}"
        );

        // The first request nginx ever logs is the one that has a route.
        assert_eq!(shop("/").send().status, 200);
        assert_eq!(nginx.wait_for_requests(1).len(), 1);
    });
}

#[test]
fn the_default_address_policy_refuses_a_loopback_service() {
    Lab::run(|lab| {
        let _dnsmasq = Dnsmasq::start(lab, dns(), &[Record::address(VHOST, WEB)]);
        let _nginx = Nginx::start(lab, web(), "location / { return 200; }");
        let gateway =
            Gateway::serve(&["--dns", DNS, "--route", "shop.example.com/=web.default:80"]);

        let response = shop("/").send();
        assert!(response.status >= 500, "{response:?}");
        let status = response.header("proxy-status").unwrap_or_default();
        assert!(
            status.contains("error=destination_ip_prohibited"),
            "{response:?}"
        );
        assert!(
            !response.text().contains(WEB),
            "addresses are not for clients: {response:?}"
        );
        assert!(gateway.stop().success());
    });
}
