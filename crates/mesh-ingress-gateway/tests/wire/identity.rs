//! The host that a request is for: exactly one, or the request is refused.

use crate::heads::refused;
use crate::world::{HOST, SMUGGLED, VHOST, World, field_values, get, ok};

macro_rules! hosts {
    ($($(#[$attr:meta])* $name:ident: $status:literal, $head:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { refused($status, $head).await; })*
    };
}

/// A GET with these fields only.
fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\n{fields}\r\n")
}

hosts! {
    rfc9112_3_2_no_host_is_refused: 400, with("");
    rfc9112_3_2_two_hosts_are_refused: 400, with("Host: shop.example.com\r\nHost: evil.example\r\n");
    rfc9112_3_2_the_same_host_twice_is_refused:
        400, with("Host: shop.example.com\r\nhost: shop.example.com\r\n");
    rfc9112_3_2_an_empty_host_is_refused: 400, with("Host:\r\n");
    rfc9112_3_2_an_empty_host_before_a_good_one_is_refused:
        400, with("Host: \r\nHost: shop.example.com\r\n");
    rfc9110_7_2_a_list_of_hosts_is_refused: 400, with("Host: shop.example.com, evil.example\r\n");
    rfc9110_7_2_two_words_are_no_host: 400, with("Host: shop.example.com evil.example\r\n");
    rfc9110_7_2_a_host_with_user_information_is_refused:
        400, with("Host: shop.example.com@evil.example\r\n");
    rfc9110_7_2_a_host_with_a_path_is_refused: 400, with("Host: shop.example.com/admin\r\n");
    rfc9110_7_2_a_host_with_a_backslash_is_refused:
        400, with("Host: shop.example.com\\evil.example\r\n");
    rfc9110_7_2_a_host_with_a_fragment_is_refused: 400, with("Host: shop.example.com#\r\n");
    rfc9110_7_2_a_host_with_a_query_is_refused: 400, with("Host: shop.example.com?a\r\n");
    rfc9110_7_2_a_percent_encoded_host_is_refused: 400, with("Host: %73hop.example.com\r\n");
    rfc9110_7_2_a_host_that_is_a_uri_is_refused: 400, with("Host: http://shop.example.com\r\n");
    rfc9110_7_2_a_host_with_an_empty_port_is_refused: 400, with("Host: shop.example.com:\r\n");
    rfc9110_7_2_a_host_with_port_0_is_refused: 400, with("Host: shop.example.com:0\r\n");
    rfc9110_7_2_a_host_with_port_65536_is_refused: 400, with("Host: shop.example.com:65536\r\n");
    rfc9110_7_2_a_host_with_a_port_that_is_no_number_is_refused:
        400, with("Host: shop.example.com:80a\r\n");
    rfc9110_7_2_a_host_with_two_ports_is_refused: 400, with("Host: shop.example.com:80:80\r\n");
    rfc9110_7_2_a_host_with_an_empty_label_is_refused: 400, with("Host: shop..example.com\r\n");
    rfc9110_7_2_a_host_that_is_a_port_is_refused: 400, with("Host: :80\r\n");
    rfc3986_3_2_2_an_address_with_hexadecimal_numbers_is_refused: 400, with("Host: 0x7f.1\r\n");
    rfc3986_3_2_2_an_address_as_one_number_is_refused: 400, with("Host: 2130706433\r\n");
    rfc3986_3_2_2_an_open_ipv6_literal_is_refused: 400, with("Host: [::1\r\n");
    rfc6874_4_an_ipv6_zone_is_refused: 400, with("Host: [fe80::1%25eth0]\r\n");
    rustsec_2024_0421_a_host_that_is_not_ascii_is_refused:
        400, with("Host: sh\u{43e}p.example.com\r\n");
    rfc9112_3_2_2_a_bad_host_beside_an_absolute_target_is_refused:
        400, "GET http://shop.example.com/ HTTP/1.1\r\nHost: a b\r\n\r\n";
    rfc9112_3_2_2_no_host_beside_an_absolute_target_is_refused:
        400, "GET http://shop.example.com/ HTTP/1.1\r\n\r\n";
    rfc9110_4_2_4_user_information_in_a_target_is_refused:
        400, "GET http://user:secret@shop.example.com/ HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";
    rfc9112_3_2_a_target_of_another_scheme_is_refused:
        400, "GET ftp://shop.example.com/ HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";
    rfc9112_3_2_a_path_without_its_slash_is_refused:
        400, "GET admin HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";
    rfc9112_3_2_3_an_authority_is_no_target_of_a_get:
        400, "GET shop.example.com:80 HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";
    rfc9112_3_2_4_an_asterisk_is_no_target_of_a_get:
        400, "GET * HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";
}

/// The request is served; the origin gets the Service's name as host, and the public one.
async fn served(request: &str, public: &str) {
    let world = World::start([ok()]).await;
    let head = world.forwarded(request).await;
    assert_eq!(field_values(&head, "host"), [VHOST], "{head}");
    assert_eq!(field_values(&head, "x-forwarded-host"), [public], "{head}");
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
}

macro_rules! served {
    ($($name:ident: $head:expr, $public:expr;)*) => {
        $(#[tokio::test] async fn $name() { served(&$head, $public).await; })*
    };
}

served! {
    rfc9112_3_2_upstream_gets_one_host_the_one_of_the_service: get("/"), HOST;
    rfc9110_4_2_3_the_case_of_a_host_does_not_matter:
        with("hOST: SHOP.Example.com\r\n"), "SHOP.Example.com";
    rfc9110_7_2_a_port_does_not_matter_for_routing:
        with("Host: shop.example.com:8080\r\n"), "shop.example.com:8080";
    rfc1034_3_1_a_trailing_dot_does_not_matter_for_routing:
        with("Host: shop.example.com.\r\n"), "shop.example.com.";
    rfc9112_3_2_2_an_absolute_target_wins_over_host:
        "GET http://shop.example.com/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", HOST;
    rfc9112_3_2_2_an_absolute_target_without_path_is_the_root:
        "GET http://shop.example.com HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", HOST;
    rfc9112_3_2_http10_with_host: "GET / HTTP/1.0\r\nHost: shop.example.com\r\n\r\n", HOST;
    rfc9112_3_2_2_http10_with_an_absolute_target_needs_no_host:
        "GET http://shop.example.com/ HTTP/1.0\r\n\r\n", HOST;
}

/// The `Host` that is overridden has no effect.
#[tokio::test]
async fn rfc9112_3_2_2_host_loses_against_an_absolute_target() {
    let world = World::start([ok()]).await;
    let request = "GET http://evil.example/ HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";
    let reply = world.ask(request).await;
    assert_eq!(reply.status, 404, "{}", reply.head);
    world.nothing_has_reached_the_origin().await;
}

/// A host without a route is not contacted: the gateway is no open proxy.
#[tokio::test]
async fn rfc9110_7_4_hosts_without_a_route_are_not_reached() {
    let world = World::start([ok()]).await;
    let origin = world.origin.addr().to_string();
    let hosts = [
        "metadata.google.internal",
        "169.254.169.254",
        "kubernetes.default.svc",
        "[::1]",
        &origin,
    ];
    for host in hosts {
        let reply = world
            .ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(reply.status, 404, "{host}: {}", reply.head);
    }
    world.nothing_has_reached_the_origin().await;
}

#[tokio::test]
async fn rfc9112_9_3_2_a_second_request_without_host_is_refused() {
    let world = World::start([ok()]).await;
    let bytes = format!("{}GET /bad HTTP/1.1\r\n\r\n{SMUGGLED}", get("/good"));
    let mut client = world.send(bytes).await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 400);
    client.ends().await;
    assert!(!world.all_received().contains("/bad"));
    assert!(!world.all_received().contains("/smuggled"));
}
