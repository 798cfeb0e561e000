//! Forwarding headers, trusted peers and `Via` (RFC 7239, RFC 9110 §7.6.3).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests, too

use http::{HeaderMap, HeaderValue, Version};
use mesh_ingress_core::{Downstream, Error, ErrorKind, Scheme};
use mesh_ingress_headers::{
    Client, ForwardedField, ForwardedPolicy, RequestHost, TrustedPeers, Via, via,
};

fn peer(address: &str) -> Client {
    Client::new(&Downstream::new(address.parse().unwrap()))
}

fn host(text: &str) -> RequestHost {
    text.parse().unwrap()
}

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

/// Load balancers in 10/8 and fd00::/8 are trusted.
fn behind_balancers() -> ForwardedPolicy {
    let trusted = TrustedPeers::parse(["10.0.0.0/8", "fd00::/8"]).unwrap();
    ForwardedPolicy::builder().trusted(trusted).build().unwrap()
}

/// All forwarding headers that a client could send.
const CLAIMS: &[(&str, &str)] = &[
    ("x-forwarded-for", "1.1.1.1"),
    ("x-forwarded-for", "2.2.2.2"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-port", "8443"),
    ("x-forwarded-server", "lb-7"),
    ("x-real-ip", "127.0.0.1"),
    ("forwarded", "for=127.0.0.1;proto=https"),
    ("accept", "*/*"),
];

#[test]
fn forwarding_fields_of_an_untrusted_peer_are_replaced() {
    for policy in [ForwardedPolicy::default(), behind_balancers()] {
        let mut headers = map(CLAIMS);
        let client = peer("203.0.113.7:51000");
        assert!(!policy.is_trusted(&client));
        assert_eq!(policy.real_client(&headers, &client), client.ip());
        assert_eq!(policy.real_scheme(&headers, &client), Some(Scheme::Http));
        policy.apply(&mut headers, &client, &host("Shop.example:8080"));
        for (name, expected) in [
            ("x-forwarded-for", &["203.0.113.7"][..]),
            ("x-forwarded-host", &["Shop.example:8080"]),
            ("x-forwarded-proto", &["http"]),
            ("x-forwarded-port", &["80"]),
            ("x-forwarded-server", &[]),
            ("x-real-ip", &["203.0.113.7"]),
            ("forwarded", &[]),
            ("accept", &["*/*"]),
        ] {
            assert_eq!(lines(&headers, name), expected, "{name}");
        }
    }
}

#[test]
fn trusted_peer_is_appended_to_the_chain_and_its_fields_are_kept() {
    let policy = behind_balancers();
    let mut headers = map(CLAIMS);
    let client = peer("10.0.0.9:40000");
    assert!(policy.is_trusted(&client));
    assert_eq!(policy.real_scheme(&headers, &client), Some(Scheme::Https));
    policy.apply(&mut headers, &client, &host("shop.example"));
    for (name, expected) in [
        ("x-forwarded-for", &["1.1.1.1, 2.2.2.2, 10.0.0.9"][..]),
        ("x-forwarded-host", &["evil.example"]),
        ("x-forwarded-proto", &["https"]),
        ("x-forwarded-port", &["8443"]),
        ("x-forwarded-server", &["lb-7"]),
        // Computed, not copied.
        ("x-real-ip", &["2.2.2.2"]),
        // Not believed by default.
        ("forwarded", &[]),
    ] {
        assert_eq!(lines(&headers, name), expected, "{name}");
    }
}

#[test]
fn missing_fields_of_a_trusted_peer_are_filled_in() {
    let policy = behind_balancers();
    let mut headers = map(&[("x-forwarded-for", " ")]);
    let client = Client::new(
        &Downstream::new("10.0.0.9:40000".parse().unwrap())
            .scheme(Scheme::Https)
            .listener_port(8443),
    );
    policy.apply(&mut headers, &client, &host("shop.example"));
    assert_eq!(lines(&headers, "x-forwarded-for"), ["10.0.0.9"]);
    assert_eq!(lines(&headers, "x-forwarded-host"), ["shop.example"]);
    assert_eq!(lines(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(lines(&headers, "x-forwarded-port"), ["8443"]);
    assert_eq!(lines(&headers, "x-real-ip"), ["10.0.0.9"]);
}

#[test]
fn unknown_client_gets_no_forwarding_fields() {
    let everybody = TrustedPeers::parse(["0.0.0.0/0", "::/0"]).unwrap();
    let policy = ForwardedPolicy::builder()
        .trusted(everybody)
        .emit(ForwardedField::Forwarded, true)
        .build()
        .unwrap();
    let mut headers = map(CLAIMS);
    let client = Client::unknown();
    assert_eq!(policy.real_client(&headers, &client), None);
    assert_eq!(policy.real_scheme(&headers, &client), None);
    policy.apply(&mut headers, &client, &host("shop.example"));
    let mut left: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["accept", "forwarded", "x-forwarded-host"]);
    assert_eq!(
        lines(&headers, "forwarded"),
        ["for=unknown;host=shop.example"]
    );
}

#[test]
fn real_client_is_the_last_untrusted_address() {
    let policy = behind_balancers();
    for (chain, expected) in [
        (&["203.0.113.7"][..], "203.0.113.7"),
        (&["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        (&["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
        (&["1.1.1.1,203.0.113.7 , 10.1.1.1,,10.2.2.2"], "203.0.113.7"),
        // A client that claims a trusted address: the search would go past it only if a trusted peer
        // had appended it, but that peer appends the client's own address.
        (&["10.6.6.6, 203.0.113.7"], "203.0.113.7"),
        // All are trusted: the first one.
        (&["10.3.3.3, 10.1.1.1"], "10.3.3.3"),
        // An entry that is no address ends the search.
        (&["203.0.113.7, unknown, 10.1.1.1"], "10.1.1.1"),
        (&["203.0.113.7, garbage"], "10.0.0.9"),
        (&["203.0.113.7, 300.1.1.1"], "10.0.0.9"),
        (&[], "10.0.0.9"),
        (&[""], "10.0.0.9"),
        // Forms that proxies write.
        (&["203.0.113.7:4711"], "203.0.113.7"),
        (&["2001:db8::7"], "2001:db8::7"),
        (&["[2001:db8::7]"], "2001:db8::7"),
        (&["[2001:db8::7]:4711"], "2001:db8::7"),
        (&["::ffff:203.0.113.7"], "203.0.113.7"),
        (&["203.0.113.7, ::ffff:10.1.1.1, fd00::1"], "203.0.113.7"),
    ] {
        let mut headers = HeaderMap::new();
        for line in chain {
            headers.append("x-forwarded-for", HeaderValue::from_static(line));
        }
        let found = policy.real_client(&headers, &peer("10.0.0.9:1"));
        assert_eq!(found, Some(expected.parse().unwrap()), "{chain:?}");
        let mapped = policy.real_client(&headers, &peer("[::ffff:10.0.0.9]:1"));
        assert_eq!(mapped, found, "{chain:?}");
    }
}

#[test]
fn rfc7239_real_client_can_be_read_from_forwarded() {
    let policy = ForwardedPolicy::builder()
        .trusted(TrustedPeers::parse(["10.0.0.0/8"]).unwrap())
        .believe(ForwardedField::For, false)
        .believe(ForwardedField::Forwarded, true)
        .build()
        .unwrap();
    for (line, expected) in [
        ("for=203.0.113.7", "203.0.113.7"),
        ("FOR=\"203.0.113.7\"", "203.0.113.7"),
        ("for=\"[2001:db8::7]:4711\";proto=https", "2001:db8::7"),
        ("proto=https; for=203.0.113.7 ;host=x", "203.0.113.7"),
        ("for=1.1.1.1, for=203.0.113.7, for=10.1.1.1", "203.0.113.7"),
        // A comma, a semicolon and an escaped quote inside quotes do not split.
        (
            "for=203.0.113.7;host=\"a,for=6.6.6.6;\\\",for=7.7.7.7\"",
            "203.0.113.7",
        ),
        ("for=unknown", "10.0.0.9"),
        ("for=_hidden", "10.0.0.9"),
        ("for=203.0.113.7, for=_hidden", "10.0.0.9"),
        ("proto=https", "10.0.0.9"),
        ("\"for=6.6.6.6", "10.0.0.9"),
        // An unclosed quote of a client does not hide the element of the load balancer.
        ("for=\"6.6.6.6, for=203.0.113.7", "203.0.113.7"),
        ("for=\"\\, for=\"[2001:db8::7]:4711\"", "2001:db8::7"),
        ("for=203.0.113.7, proto=http;by=\"x", "10.0.0.9"),
    ] {
        let headers = map(&[]);
        let mut headers = headers;
        headers.insert("forwarded", HeaderValue::from_static(line));
        headers.insert("x-forwarded-for", HeaderValue::from_static("6.6.6.6"));
        let found = policy.real_client(&headers, &peer("10.0.0.9:1"));
        assert_eq!(found, Some(expected.parse().unwrap()), "{line}");
    }
}

#[test]
fn rfc7239_4_forwarded_is_written_if_enabled_and_quoted() {
    let policy = ForwardedPolicy::builder()
        .emit(ForwardedField::Forwarded, true)
        .build()
        .unwrap();
    for (address, authority, expected) in [
        (
            "203.0.113.7:1",
            "shop.example",
            "for=203.0.113.7;proto=http;host=shop.example",
        ),
        (
            "[2001:db8::7]:1",
            "shop.example:8080",
            "for=\"[2001:db8::7]\";proto=http;host=\"shop.example:8080\"",
        ),
        (
            "[::ffff:203.0.113.7]:1",
            "[::1]",
            "for=203.0.113.7;proto=http;host=\"[::1]\"",
        ),
    ] {
        let mut headers = map(&[("forwarded", "for=127.0.0.1")]);
        policy.apply(&mut headers, &peer(address), &host(authority));
        assert_eq!(lines(&headers, "forwarded"), [expected]);
    }
}

#[test]
fn rfc7239_4_believed_chain_is_appended_to() {
    let policy = ForwardedPolicy::builder()
        .trusted(TrustedPeers::parse(["10.0.0.0/8"]).unwrap())
        .emit(ForwardedField::Forwarded, true)
        .believe(ForwardedField::Forwarded, true)
        .build()
        .unwrap();
    let mut headers = map(&[
        ("forwarded", "for=203.0.113.7"),
        ("forwarded", "for=10.1.1.1"),
    ]);
    policy.apply(&mut headers, &peer("10.0.0.9:1"), &host("shop.example"));
    assert_eq!(
        lines(&headers, "forwarded"),
        ["for=203.0.113.7, for=10.1.1.1, for=10.0.0.9;proto=http;host=shop.example"],
    );
}

#[test]
fn field_that_is_not_emitted_is_removed() {
    const FIELDS: [(ForwardedField, &str); 6] = [
        (ForwardedField::For, "x-forwarded-for"),
        (ForwardedField::Host, "x-forwarded-host"),
        (ForwardedField::Proto, "x-forwarded-proto"),
        (ForwardedField::Port, "x-forwarded-port"),
        (ForwardedField::RealIp, "x-real-ip"),
        (ForwardedField::Forwarded, "forwarded"),
    ];
    for (off, name) in FIELDS {
        let policy = ForwardedPolicy::builder()
            .emit(ForwardedField::Forwarded, true)
            .emit(off, false)
            .build()
            .unwrap();
        let mut headers = map(CLAIMS);
        policy.apply(&mut headers, &peer("203.0.113.7:1"), &host("shop.example"));
        for (_, field) in FIELDS {
            assert_eq!(
                headers.contains_key(field),
                field != name,
                "{field} without {name}"
            );
        }
    }
}

#[test]
fn believed_field_that_is_not_emitted_passes_from_trusted_peers() {
    let mut builder =
        ForwardedPolicy::builder().trusted(TrustedPeers::parse(["10.0.0.0/8"]).unwrap());
    for field in [
        ForwardedField::For,
        ForwardedField::Host,
        ForwardedField::RealIp,
        ForwardedField::Forwarded,
    ] {
        builder = builder.emit(field, false).believe(field, true);
    }
    let policy = builder.build().unwrap();
    let mut headers = map(CLAIMS);
    policy.apply(&mut headers, &peer("10.0.0.9:1"), &host("shop.example"));
    assert_eq!(lines(&headers, "x-forwarded-for"), ["1.1.1.1", "2.2.2.2"]);
    assert_eq!(lines(&headers, "x-forwarded-host"), ["evil.example"]);
    assert_eq!(lines(&headers, "x-real-ip"), ["127.0.0.1"]);
    assert_eq!(lines(&headers, "forwarded"), ["for=127.0.0.1;proto=https"]);
}

#[test]
fn host_of_a_trusted_peer_need_not_be_believed() {
    let policy = ForwardedPolicy::builder()
        .trusted(TrustedPeers::parse(["10.0.0.0/8"]).unwrap())
        .believe(ForwardedField::Host, false)
        .build()
        .unwrap();
    let mut headers = map(CLAIMS);
    policy.apply(&mut headers, &peer("10.0.0.9:1"), &host("shop.example"));
    assert_eq!(lines(&headers, "x-forwarded-host"), ["shop.example"]);
    assert_eq!(lines(&headers, "x-forwarded-proto"), ["https"]);
}

#[test]
fn real_scheme_is_that_of_the_nearest_trusted_peer() {
    let policy = behind_balancers();
    for (proto, expected) in [
        ("https", Scheme::Https),
        ("HTTPS", Scheme::Https),
        ("http", Scheme::Http),
        ("https, http", Scheme::Http),
        ("http,https", Scheme::Https),
        ("gopher", Scheme::Http),
        ("", Scheme::Http),
    ] {
        let headers = map(&[("x-forwarded-proto", proto)]);
        let client = peer("10.0.0.9:1");
        assert_eq!(
            policy.real_scheme(&headers, &client),
            Some(expected),
            "{proto}"
        );
    }
}

#[test]
fn rfc9110_7_6_3_via_names_the_received_version() {
    let edge = Via::new("edge.example:8443").unwrap();
    for (version, expected) in [
        (Version::HTTP_10, "1.0 edge.example:8443"),
        (Version::HTTP_11, "1.1 edge.example:8443"),
        (Version::HTTP_2, "2.0 edge.example:8443"),
        (Version::HTTP_3, "3.0 edge.example:8443"),
    ] {
        let mut headers = map(&[("via", "1.1 cdn (x)")]);
        edge.pass(&mut headers, version).unwrap();
        assert_eq!(lines(&headers, "via"), ["1.1 cdn (x)", expected]);
    }
}

#[test]
fn rfc9110_7_6_3_loop_is_detected() {
    for seen in [
        "1.1 edge",
        "HTTP/1.1 EDGE",
        "1.0 fred, 1.1 edge",
        "1.0 fred,1.1\tedge (comment, with a comma)",
        "1.0 fred (unfinished, 2.0 edge",
        "1.1 p.example.net,, 1.1 edge (mesh-ingress/0.1)",
    ] {
        let headers = map(&[("via", "1.1 cdn"), ("via", seen)]);
        let error = via::check_loop(&headers, "edge").expect_err(seen);
        assert_eq!(error.status().as_u16(), 508);
        assert_eq!(Error::from(error).kind(), ErrorKind::ProxyLoopDetected);
    }
    for other in [
        "1.1 edge2",
        "edge",
        "1.1 fred (edge)",
        "1.1 fred edge",
        "",
        "1.1 my-edge",
    ] {
        let headers = map(&[("via", other)]);
        assert!(via::check_loop(&headers, "edge").is_ok(), "{other}");
    }
}

#[test]
fn two_gateways_in_a_row_are_no_loop() {
    let process = ForwardedPolicy::default();
    let other = ForwardedPolicy::builder().via("inner").build().unwrap();
    let mut headers = HeaderMap::new();
    let pass = |policy: &ForwardedPolicy, headers: &mut HeaderMap| {
        policy.via().unwrap().pass(headers, Version::HTTP_11)
    };
    pass(&process, &mut headers).unwrap();
    pass(&other, &mut headers).unwrap();
    assert!(pass(&process, &mut headers).is_err());
    assert!(pass(&ForwardedPolicy::default(), &mut headers).is_err());
    assert_eq!(lines(&headers, "via").len(), 2);
    assert!(
        process
            .via()
            .unwrap()
            .pseudonym()
            .starts_with("mesh-ingress-")
    );
    let without = ForwardedPolicy::builder().without_via().build().unwrap();
    assert!(without.via().is_none());
}

#[test]
fn invalid_via_name_is_refused_at_build_time() {
    for bad in ["", "a b", "a,b", "a(b", "\u{fc}", "a\r\nb", "\"a\""] {
        let error = ForwardedPolicy::builder().via(bad).build().unwrap_err();
        assert_eq!(error.setting(), "via", "{bad}");
    }
}
