//! Properties of the rules for any message.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests, too

mod checks;

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};
use mesh_ingress_core::{Downstream, Scheme};
use mesh_ingress_headers::{
    Client, EdgeHygiene, ForwardedField, ForwardedPolicy, HeaderPresence, RequestHost,
    TrustedPeers, UnderscorePolicy, Via, cookies, framing, hop_by_hop, max_forwards, response,
    trailers,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Names with a meaning for the rules, look-alikes of them, and others.
fn name() -> impl Strategy<Value = HeaderName> {
    const KNOWN: &[&str] = &[
        "connection",
        "connection",
        "connection",
        "keep-alive",
        "te",
        "upgrade",
        "transfer-encoding",
        "proxy-authorization",
        "host",
        "content-length",
        "authorization",
        "cookie",
        "set-cookie",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
        "via",
        "x-envoy-retry-on",
        "l5d-dst-override",
        "proxy",
        "x-request-id",
        "max-forwards",
        "server",
        "x_forwarded_for",
        "x-a",
        "x-b",
    ];
    prop_oneof![
        4 => select(KNOWN).prop_map(HeaderName::from_static),
        1 => "[!#$%&'*+.^_`|~0-9a-z-]{1,80}".prop_map(|name| name.parse().unwrap()),
    ]
}

fn value() -> impl Strategy<Value = HeaderValue> {
    const WORDS: &[&str] = &[
        "close",
        "Keep-Alive",
        "upgrade",
        "x-a",
        "X-B",
        "host",
        "Authorization",
        "te",
        "chunked",
        "gzip",
        "trailers",
        "trailers;q=0",
        "websocket",
        "5",
        "0",
        "203.0.113.7",
        "10.0.0.1",
        "[::1]:80",
        "for=\"[::1]\"",
        "unknown",
        "1.1 edge",
        "\"",
        "\\",
        "(",
        "shop.example",
    ];
    let list = vec(select(WORDS), 0..5).prop_map(|words| words.join(" ,"));
    let any = vec(any::<u8>(), 0..40);
    prop_oneof![
        3 => list.prop_map(|text| HeaderValue::from_str(&text).unwrap()),
        1 => any.prop_filter_map("a field value", |bytes| HeaderValue::from_bytes(&bytes).ok()),
    ]
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    vec((name(), value()), 0..24).prop_map(|fields| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    })
}

fn client() -> impl Strategy<Value = Client> {
    let peer = prop_oneof![
        any::<IpAddr>(),
        any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([10, a, b, c])),
    ];
    prop_oneof![
        9 => (peer, any::<u16>(), any::<bool>()).prop_map(|(ip, port, tls)| {
            let scheme = if tls { Scheme::Https } else { Scheme::Http };
            let peer = Downstream::new(SocketAddr::new(ip, 1)).scheme(scheme);
            Client::new(&peer.listener_port(port))
        }),
        1 => Just(Client::unknown()),
    ]
}

/// Hosts that are valid by construction.
fn host() -> impl Strategy<Value = RequestHost> {
    let name =
        "([a-zA-Z0-9_]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9_])?\\.){0,3}[a-zA-Z][a-zA-Z0-9_]{0,10}\\.?";
    let v4 = any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string());
    let v6 = any::<std::net::Ipv6Addr>().prop_map(|ip| format!("[{ip}]"));
    let host = prop_oneof![name.prop_map(String::from), v4, v6];
    let port = prop_oneof![Just(None), (1..=u16::MAX).prop_map(Some)];
    (host, port).prop_map(|(host, port)| {
        let text = match port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        text.parse()
            .unwrap_or_else(|error| panic!("{text:?}: {error}"))
    })
}

/// An element of `Forwarded` by the grammar of RFC 7239 §4.
fn parse_element(element: &str) -> Vec<(String, String)> {
    let mut rest = element;
    let mut pairs = Vec::new();
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    loop {
        let (name, after) = rest.split_once('=').expect("a pair");
        assert!(!name.is_empty() && name.chars().all(is_token), "{element}");
        let value;
        if let Some(quoted) = after.strip_prefix('"') {
            let (inner, after) = quoted.split_once('"').expect("a closing quote");
            assert!(!inner.contains('\\'));
            (value, rest) = (inner, after);
        } else {
            let end = after.find(|c| !is_token(c)).unwrap_or(after.len());
            assert!(end > 0, "{element}");
            (value, rest) = after.split_at(end);
        }
        pairs.push((name.to_owned(), value.to_owned()));
        match rest.strip_prefix(';') {
            Some(more) => rest = more,
            None => break,
        }
    }
    assert_eq!(rest, "", "{element}");
    pairs
}

fn text_of(headers: &HeaderMap) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.push(b':');
        text.extend_from_slice(value.as_bytes());
        text.push(b'\n');
    }
    text
}

const FORWARDED_FIELDS: &[ForwardedField] = &[
    ForwardedField::For,
    ForwardedField::Host,
    ForwardedField::Proto,
    ForwardedField::Port,
    ForwardedField::RealIp,
    ForwardedField::Forwarded,
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn strip_agrees_with_the_reference(headers in headers()) {
        checks::hop_by_hop(&text_of(&headers));
    }

    #[test]
    fn no_message_makes_a_rule_panic(
        headers in headers(),
        client in client(),
        host in host(),
        trusted in any::<bool>(),
        status in 100_u16..600,
        version in select(&[Version::HTTP_10, Version::HTTP_11, Version::HTTP_2][..]),
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        let _ = framing::check_request(&Method::POST, &Uri::from_static("/"), version, &headers);
        let _ = framing::check_response(status, version, &headers);
        let _ = RequestHost::of(&Uri::from_static("/"), &headers, version);
        for policy in [UnderscorePolicy::Drop, UnderscorePolicy::Keep, UnderscorePolicy::Reject] {
            let rules = EdgeHygiene::builder().underscores(policy).build().unwrap();
            let _ = rules.apply(&mut headers.clone(), trusted);
        }
        cookies::join(&mut headers.clone());
        trailers::filter(&mut headers.clone());
        response::scrub(status, &mut headers.clone());
        let _ = max_forwards::check(&Method::OPTIONS, &mut headers.clone());
        let _ = Via::new("edge").unwrap().pass(&mut headers.clone(), version);
        ForwardedPolicy::default().apply(&mut headers.clone(), &client, &host);
    }

    #[test]
    fn any_bytes_parse_as_a_host_or_are_refused(bytes in vec(any::<u8>(), 0..80)) {
        checks::request_host(&bytes);
    }

    #[test]
    fn look_alike_hosts_parse_or_are_refused(text in "\\PC{0,3}[a-zA-Z0-9.:_\\[\\]-]{0,40}\\PC{0,3}") {
        checks::request_host(text.as_bytes());
    }

    #[test]
    fn generated_hosts_are_accepted(host in host()) {
        checks::request_host(host.as_str().as_bytes());
    }

    #[test]
    fn any_text_parses_as_a_service_or_is_refused(text in "[a-z0-9.:-]{0,80}|\\PC{0,20}") {
        checks::service_ref(text.as_bytes());
    }

    #[test]
    fn rfc7239_written_elements_parse(
        headers in headers(),
        client in client(),
        host in host(),
    ) {
        let policy = ForwardedPolicy::builder()
            .emit(ForwardedField::Forwarded, true)
            .build()
            .unwrap();
        let mut headers = headers;
        policy.apply(&mut headers, &client, &host);
        let written: Vec<_> = headers.get_all("forwarded").iter().collect();
        prop_assert_eq!(written.len(), 1);
        let pairs = parse_element(written[0].to_str().unwrap());
        let value = |name: &str| {
            pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        prop_assert_eq!(value("host"), Some(host.as_str()));
        let identifier = match client.ip() {
            None => "unknown".to_owned(),
            Some(IpAddr::V4(ip)) => ip.to_string(),
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        };
        prop_assert_eq!(value("for"), Some(identifier.as_str()));
        prop_assert_eq!(value("proto"), client.scheme().map(Scheme::as_str));
    }

    #[test]
    fn untrusted_peer_does_not_influence_its_forwarding_fields(
        headers in headers(),
        client in client(),
        host in host(),
    ) {
        const SAID: [&str; 6] = [
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-port",
            "x-real-ip",
            "forwarded",
        ];
        let policy = ForwardedPolicy::default();
        let (mut sent, mut bare) = (headers, HeaderMap::new());
        prop_assert_eq!(policy.real_client(&sent, &client), client.ip());
        policy.apply(&mut sent, &client, &host);
        policy.apply(&mut bare, &client, &host);
        for name in SAID {
            let lines = |headers: &HeaderMap| -> Vec<HeaderValue> {
                headers.get_all(name).iter().cloned().collect()
            };
            prop_assert_eq!(lines(&sent), lines(&bare));
        }
    }

    #[test]
    fn prepared_fields_equal_those_of_the_rules(
        headers in headers(),
        client in client(),
        host in host(),
        trusted: bool,
        written in vec(select(FORWARDED_FIELDS), 0..3),
        version in select(&[Version::HTTP_10, Version::HTTP_11, Version::HTTP_2][..]),
    ) {
        let mut policy = ForwardedPolicy::builder().via("edge");
        if trusted {
            policy = policy.trusted(TrustedPeers::parse(["0.0.0.0/0", "::/0"]).unwrap());
        }
        for field in written {
            policy = policy.emit(field, field == ForwardedField::Forwarded);
        }
        let policy = policy.build().unwrap();
        let Some(prepared) = policy.prepare(&client, version) else {
            let mut headers = HeaderMap::new();
            policy.apply(&mut headers, &client, &host);
            prop_assert!(headers.contains_key("forwarded"));
            return Ok(());
        };
        let suits = prepared.fits(&HeaderPresence::of(&headers), version);
        let says = ["via", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];
        prop_assert_eq!(suits, !says.iter().any(|name| headers.contains_key(*name)));
        prop_assert!(!prepared.fits(&HeaderPresence::of(&headers), Version::HTTP_3));
        if suits {
            let (mut expected, mut inserted) = (headers.clone(), headers.clone());
            policy.apply(&mut expected, &client, &host);
            policy.via().unwrap().pass(&mut expected, version).unwrap();
            let prepared = prepared.for_host(&host);
            prepared.insert_into(&mut inserted);
            prop_assert_eq!(&inserted, &expected);
            let mut alone = HeaderMap::new();
            prepared.insert_into(&mut alone);
            let lines: Vec<u8> = alone
                .iter()
                .flat_map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"])
                .flatten()
                .copied()
                .collect();
            let mut written = Vec::new();
            prepared.write(&mut written);
            let sorted = |bytes: &[u8]| {
                let mut lines: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
                lines.sort();
                lines
            };
            prop_assert_eq!(sorted(&written), sorted(&lines));
        }
    }

    #[test]
    fn address_appended_by_a_load_balancer_is_the_real_client(
        claimed in "[ -~]{0,40}",
        real in any::<IpAddr>(),
        balancer in any::<[u8; 3]>(),
        in_forwarded in any::<bool>(),
    ) {
        // 10/8 is trusted, so no client may have an address in it.
        prop_assume!(!matches!(real.to_canonical(), IpAddr::V4(ip) if ip.octets()[0] == 10));
        let policy = ForwardedPolicy::builder()
            .trusted(TrustedPeers::parse(["10.0.0.0/8"]).unwrap())
            .believe(ForwardedField::For, !in_forwarded)
            .believe(ForwardedField::Forwarded, in_forwarded)
            .build()
            .unwrap();
        let [a, b, c] = balancer;
        let peer = SocketAddr::new(IpAddr::from([10, a, b, c]), 1);
        let (name, entry) = match (in_forwarded, real) {
            (false, ip) => ("x-forwarded-for", ip.to_string()),
            (true, IpAddr::V4(ip)) => ("forwarded", format!("for={ip}")),
            (true, IpAddr::V6(ip)) => ("forwarded", format!("for=\"[{ip}]\"")),
        };
        let mut headers = HeaderMap::new();
        let chain = format!("{claimed}, {entry}");
        headers.insert(name, HeaderValue::from_str(&chain).unwrap());
        let found = policy.real_client(&headers, &Client::new(&Downstream::new(peer)));
        prop_assert_eq!(found, Some(real.to_canonical()));
    }

    #[test]
    fn edge_hygiene_leaves_no_spoofable_field(headers in headers()) {
        let mut headers = headers;
        EdgeHygiene::default().apply(&mut headers, false).unwrap();
        for name in headers.keys() {
            let name = name.as_str();
            let bad = ["x-envoy-", "l5d-", "x-forwarded-", "x-istio-"];
            prop_assert!(!bad.iter().any(|prefix| name.starts_with(prefix)), "{}", name);
            prop_assert!(!["proxy", "forwarded", "x-real-ip"].contains(&name), "{}", name);
            prop_assert!(!name.contains('_'), "{}", name);
        }
        prop_assert_eq!(headers.get_all("x-request-id").iter().count(), 1);
    }

    #[test]
    fn accepted_request_has_one_framing(headers in headers(), version in select(&[
        Version::HTTP_10, Version::HTTP_11, Version::HTTP_2,
    ][..])) {
        let uri = Uri::from_static("/");
        if framing::check_request(&Method::POST, &uri, version, &headers).is_ok() {
            let count = |name| headers.get_all(name).iter().count();
            let (te, cl) = (count("transfer-encoding"), count("content-length"));
            prop_assert!(te + cl <= 1);
            prop_assert!(te == 0 || version == Version::HTTP_11);
            prop_assert!(count("host") <= 1);
            prop_assert_eq!(framing::content_length(&headers).unwrap().is_some(), cl == 1);
        }
    }

    #[test]
    fn strip_is_idempotent(headers in headers()) {
        let mut once = headers;
        hop_by_hop::strip(&mut once);
        let mut twice = once.clone();
        hop_by_hop::strip(&mut twice);
        prop_assert_eq!(once, twice);
    }
}
