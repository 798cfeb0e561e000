//! Hop-by-hop fields, end-to-end fields, and fields that no client may set.

use mesh_ingress_testkit::Step;

use crate::world::{OK, World, answer, field_values, get, head, ok};

/// The head that the origin gets of a request with these fields, as the first of its connection and
/// as the fourth, when the gateway has everything cached.
async fn sent(fields: &str) -> [String; 2] {
    let request = head("GET / HTTP/1.1", fields);
    let world = World::start([ok()]).await;
    let mut client = world.client().await;
    for request in [&request, &get("/"), &get("/"), &request] {
        client.send(request).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 200, "{}", reply.head);
    }
    let received = world.all_received();
    let heads: Vec<&str> = received.split_terminator("\r\n\r\n").collect();
    [0, 3].map(|number| format!("{}\r\n", heads[number]))
}

/// The head that the client gets of a response with these fields.
async fn got(fields: &str) -> String {
    let response = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
    let world = World::start([answer(response)]).await;
    let reply = world.ask(get("/")).await;
    assert_eq!((reply.status, reply.text()), (200, "ok"));
    reply.head
}

fn gone(head: &str, name: &str) {
    assert!(field_values(head, name).is_empty(), "{name} is in {head}");
}

/// Requests with fields: those under `gone` must be removed, those under `kept` present.
macro_rules! requests {
    ($($(#[$attr:meta])* $name:ident: $fields:expr => gone $gone:expr, kept $kept:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() {
            for head in sent($fields).await {
                let gone_: &[&str] = &$gone;
                for name in gone_ { gone(&head, name); }
                let kept: &[(&str, &[&str])] = &$kept;
                for (name, values) in kept {
                    assert_eq!(field_values(&head, name), *values, "{name}: {head}");
                }
            }
        })*
    };
}

requests! {
    rfc9110_7_6_1_fields_named_by_connection_are_removed:
        "Connection: x-one, X-Two\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\n"
        => gone ["x-one", "x-two"], kept [("x-three", &["3"])];
    /// linkerd, rpxy and hyper's HTTP/2 read the first line only.
    rfc9110_7_6_1_a_second_connection_line_counts:
        "Connection: keep-alive\r\nConnection: x-secret\r\nX-Secret: 1\r\n"
        => gone ["x-secret"], kept [];
    cve_2021_33197_an_empty_connection_line_does_not_hide_the_next:
        "Connection:\r\nConnection: x-secret\r\nX-Secret: 1\r\n" => gone ["x-secret"], kept [];
    rfc9110_5_6_1_empty_members_of_a_list_are_skipped:
        "Connection: , ,x-secret,,\r\nX-Secret: 1\r\n" => gone ["x-secret"], kept [];
    rfc9110_7_6_1_all_lines_of_a_named_field_are_removed:
        "Connection: x-secret\r\nX-Secret: 1\r\nX-Secret: 2\r\n" => gone ["x-secret"], kept [];
    rfc9110_7_6_1_keep_alive_and_its_like_are_removed:
        "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\n\
         HTTP2-Settings: x\r\n"
        => gone ["keep-alive", "proxy-connection", "proxy-authorization", "http2-settings"], kept [];
    rfc9110_10_1_4_te_is_dropped: "TE: gzip;q=0.5\r\nConnection: te\r\n" => gone ["te"], kept [];
    cve_2024_45410_forwarding_fields_cannot_be_named_away:
        "Connection: x-forwarded-for, x-forwarded-host, x-forwarded-proto, x-real-ip, forwarded\r\n"
        => gone [], kept [
            ("x-forwarded-for", &["127.0.0.1"]),
            ("x-forwarded-host", &["shop.example.com"]),
            ("x-forwarded-proto", &["http"]),
        ];
    rfc9110_7_6_1_authorization_and_cookie_cannot_be_named_away:
        "Connection: authorization, cookie, content-type\r\nAuthorization: Basic x\r\nCookie: a=1\r\n\
         Content-Type: text/plain\r\n"
        => gone [], kept [
            ("authorization", &["Basic x"]),
            ("cookie", &["a=1"]),
            ("content-type", &["text/plain"]),
        ];
    rfc9110_7_6_1_host_cannot_be_named_away:
        "Connection: host\r\n" => gone [], kept [("host", &["web.default.svc.cluster.local"])];
    rfc9110_5_3_repeated_fields_stay_repeated_and_in_order:
        "X-A: 1\r\nX-B: 2\r\nX-A: 3, 4\r\nx-a:\r\n"
        => gone [], kept [("x-a", &["1", "3, 4", ""]), ("x-b", &["2"])];
    rfc9110_5_1_unknown_fields_are_kept:
        "X-Odd!#$%&'*+.^`|~: \"a, b\"; c=\u{e4}\r\n"
        => gone [], kept [("x-odd!#$%&'*+.^`|~", &["\"a, b\"; c=\u{e4}"])];
    cgi_look_alikes_with_underscores_are_removed:
        "X_Forwarded_For: 1.2.3.4\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n"
        => gone ["x_forwarded_for", "content_length", "transfer_encoding"], kept [];
    cve_2016_5385_proxy_is_removed: "Proxy: http://evil.example\r\n" => gone ["proxy"], kept [];
    ingress_nginx_forwarding_fields_of_untrusted_peers_are_dropped:
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\n\
         X-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n"
        => gone ["forwarded"], kept [
            ("x-forwarded-for", &["127.0.0.1"]),
            ("x-forwarded-host", &["shop.example.com"]),
            ("x-forwarded-proto", &["http"]),
        ];
    cve_2024_45806_fields_that_steer_envoy_are_removed:
        "X-Envoy-Retry-On: 5xx\r\nX-Envoy-Upstream-Rq-Timeout-Ms: 1\r\nX-Envoy-Internal: true\r\n\
         X-Envoy-Original-Dst-Host: 10.0.0.1:80\r\n"
        => gone [
            "x-envoy-retry-on",
            "x-envoy-upstream-rq-timeout-ms",
            "x-envoy-internal",
            "x-envoy-original-dst-host",
        ], kept [];
    cve_2023_27487_forged_original_path_is_removed:
        "X-Envoy-Original-Path: /admin\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n"
        => gone ["x-envoy-original-path", "x-original-url", "x-rewrite-url"], kept [];
    linkerd_fields_that_steer_it_are_removed:
        "l5d-dst-override: admin.default:80\r\nL5d-Client-Id: x\r\n"
        => gone ["l5d-dst-override", "l5d-client-id"], kept [];
    istio_forged_client_certificates_are_removed:
        "X-Forwarded-Client-Cert: By=x\r\n" => gone ["x-forwarded-client-cert"], kept [];
    rfc9110_7_6_3_via_is_appended_to:
        "Via: 1.0 fred\r\n" => gone [], kept [];
}

/// Values cached for one request do not appear in another, in any order.
#[tokio::test]
async fn each_request_of_a_connection_is_told_its_own_host() {
    const HOSTS: [&str; 4] = [
        "shop.example.com",
        "SHOP.example.com",
        "shop.example.com:8080",
        "shop.example.com.",
    ];
    let order = (0..40).map(|number| HOSTS[(number * number / 3 + number) % 4]);
    let world = World::start([[ok(), ok(), ok(), ok()].concat()]).await;
    let mut client = world.client().await;
    for host in order.clone() {
        client
            .send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(client.reply().await.status, 200);
    }
    let received = world.all_received();
    let heads: Vec<&str> = received.split_terminator("\r\n\r\n").collect();
    let hosts: Vec<_> = heads
        .iter()
        .flat_map(|head| field_values(head, "x-forwarded-host"))
        .collect();
    assert_eq!(hosts, order.collect::<Vec<_>>());
    for name in [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
        "via",
        "host",
    ] {
        let lines = received.matches(&format!("\r\n{name}: ")).count();
        assert_eq!(lines, heads.len(), "{name}");
    }
}

/// Istio reads a request id as a UUID of version 4 (istio/istio#11696).
#[tokio::test]
async fn ingress_nginx_a_request_id_is_a_uuid() {
    let [head, _] = sent("X-Request-ID: 0123456789abcdef0123456789abcdef\r\n").await;
    let [id] = field_values(&head, "x-request-id")[..] else {
        panic!("{head}");
    };
    let groups: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
    assert_eq!(&id[14..15], "4", "{id}");
}

/// Responses with fields: those under `gone` must be removed, those under `kept` present.
macro_rules! responses {
    ($($(#[$attr:meta])* $name:ident: $fields:expr => gone $gone:expr, kept $kept:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() {
            let head = got($fields).await;
            let gone_: &[&str] = &$gone;
            for name in gone_ { gone(&head, name); }
            let kept: &[(&str, &[&str])] = &$kept;
            for (name, values) in kept { assert_eq!(field_values(&head, name), *values, "{name}: {head}"); }
        })*
    };
}

responses! {
    rfc9110_7_6_1_fields_named_by_connection_in_a_response_are_removed:
        "Connection: keep-alive\r\nConnection: x-secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: close\r\nUpgrade: h2c\r\n"
        => gone ["x-secret", "keep-alive", "proxy-connection"], kept [];
    rfc9110_7_6_1_set_cookie_cannot_be_named_away:
        "Connection: set-cookie\r\nSet-Cookie: a=1\r\n" => gone [], kept [("set-cookie", &["a=1"])];
    /// hyper-reverse-proxy keeps the last.
    rfc6265_3_every_set_cookie_arrives_in_its_line:
        "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nX: y\r\nset-cookie: c=3\r\n"
        => gone [], kept [("set-cookie", &["a=1; Path=/", "b=2", "c=3"])];
    rfc9110_11_6_1_several_challenges_stay_several:
        "WWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate: Negotiate\r\n"
        => gone [], kept [("www-authenticate", &["Basic realm=\"a\"", "Negotiate"])];
    istio_peer_metadata_does_not_leave:
        "X-Envoy-Peer-Metadata: secret\r\nX-Envoy-Upstream-Service-Time: 1\r\nl5d-server-id: x\r\n"
        => gone ["x-envoy-peer-metadata", "x-envoy-upstream-service-time", "l5d-server-id"], kept [];
    /// The internal name must not reach the public.
    ingress_nginx_an_internal_name_does_not_leak_in_location:
        "Location: http://web.default.svc.cluster.local/next?a=b\r\n"
        => gone [], kept [("location", &["http://shop.example.com/next?a=b"])];
    /// Without `Domain` a cookie belongs to the requested host, the public one.
    rfc6265_4_1_2_3_the_domain_of_a_cookie_is_not_the_internal_one:
        "Set-Cookie: a=1; Domain=web.default.svc.cluster.local; Path=/\r\n"
        => gone [], kept [("set-cookie", &["a=1; Path=/"])];
}

#[tokio::test]
async fn rfc9110_6_6_1_a_date_is_added_once() {
    assert_eq!(field_values(&got("").await, "date").len(), 1);
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(
        field_values(&got(&format!("Date: {date}\r\n")).await, "date"),
        [date]
    );
}

/// `Connection: close` applies to the hop it was sent on.
#[tokio::test]
async fn rfc9110_7_6_1_close_is_for_one_hop() {
    let script = [
        Step::ReadHead,
        Step::send(OK),
        Step::ReadHead,
        Step::send(OK),
    ];
    let world = World::start([script.to_vec()]).await;
    for _ in 0..2 {
        let mut client = world
            .send(head("GET / HTTP/1.1", "Connection: close\r\n"))
            .await;
        let reply = client.reply().await;
        assert!(reply.status == 200 && reply.closes(), "{}", reply.head);
        client.ends().await;
    }
    assert_eq!(world.origin.connections(), 1);
    assert!(
        !world
            .all_received()
            .to_lowercase()
            .contains("connection: close")
    );
}
