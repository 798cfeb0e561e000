//! The hot path allocates nothing for an ordinary request.

use http::header::{CONNECTION, COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use mesh_ingress_core::Downstream;
use mesh_ingress_headers::{
    Client, EdgeHygiene, ForwardedField, ForwardedPolicy, RequestHost, TrustedPeers, cookies,
    framing, hop_by_hop, response, trailers,
};

/// The fields of a browser, with room for those that a gateway adds.
fn browser() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(48);
    for (name, value) in [
        ("host", "shop.example.com"),
        ("user-agent", "Mozilla/5.0"),
        ("accept", "text/html"),
        ("accept-language", "en"),
        ("accept-encoding", "gzip, br"),
        ("referer", "https://shop.example.com/"),
        ("cookie", "session=1"),
        ("cache-control", "max-age=0"),
        ("sec-fetch-mode", "navigate"),
        ("x-requested-with", "XMLHttpRequest"),
        ("x-request-id", "01234567-89ab-4def-8123-456789abcdef"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers
}

fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

#[test]
fn allocation_counter_counts() {
    assert_eq!(
        allocations(|| drop(std::hint::black_box(vec![0_u8; 16]))),
        1
    );
}

#[test]
fn hop_by_hop_strip_allocates_nothing_on_the_common_path() {
    for connection in [
        None,
        Some("keep-alive"),
        Some("close"),
        Some("Upgrade"),
        Some("keep-alive, Upgrade"),
        Some("TE"),
        Some("host, x-not-there, cookie"),
    ] {
        let mut headers = browser();
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
        if let Some(connection) = connection {
            headers.insert(CONNECTION, HeaderValue::from_static(connection));
        }
        let mut options = None;
        let count = allocations(|| options = Some(hop_by_hop::strip(&mut headers)));
        assert_eq!(count, 0, "{connection:?}");
        assert_eq!(headers.len(), browser().len());
        assert!(options.unwrap().te_trailers);
    }
}

#[test]
fn framing_checks_allocate_nothing() {
    let uri = Uri::from_static("/cart?item=1");
    let headers = browser();
    let mut passed = false;
    let count = allocations(|| {
        let request = framing::check_request(&Method::GET, &uri, Version::HTTP_11, &headers);
        let response = framing::check_response(StatusCode::OK, Version::HTTP_11, &headers);
        passed = request.is_ok() && response.is_ok();
    });
    assert!(passed);
    assert_eq!(count, 0);
}

#[test]
fn request_host_allocates_only_for_upper_case() {
    let mut headers = browser();
    let count = |uri: &Uri, headers: &HeaderMap, version| {
        allocations(|| {
            let host = RequestHost::of(uri, headers, version).unwrap();
            let again = host.clone();
            assert_eq!(again.canonical_host(), "shop.example.com");
        })
    };
    let path = Uri::from_static("/");
    assert_eq!(count(&path, &headers, Version::HTTP_11), 0);
    headers.insert(HOST, HeaderValue::from_static("shop.example.com.:443"));
    assert_eq!(count(&path, &headers, Version::HTTP_11), 0);
    headers.insert(HOST, HeaderValue::from_static("Shop.Example.com"));
    assert!(count(&path, &headers, Version::HTTP_11) > 0);
    // :authority becomes a field value, for X-Forwarded-Host, and one that can be shared.
    headers.remove(HOST);
    let absolute = Uri::from_static("https://shop.example.com/");
    assert!((1..=2).contains(&count(&absolute, &headers, Version::HTTP_2)));
}

#[test]
fn edge_hygiene_allocates_only_the_request_id() {
    let rules = EdgeHygiene::default();
    for trusted in [false, true] {
        let mut headers = browser();
        assert_eq!(
            allocations(|| rules.apply(&mut headers, trusted).unwrap()),
            0
        );
        headers.remove("x-request-id");
        // Each thread seeds its generator once.
        let _ = fastrand::u8(..);
        assert_eq!(
            allocations(|| rules.apply(&mut headers, trusted).unwrap()),
            1
        );
        assert_eq!(headers["x-request-id"].len(), 36);
    }
}

#[test]
fn forwarded_policy_allocates_only_to_append_to_a_chain() {
    let trusted = TrustedPeers::parse(["10.0.0.0/8"]).unwrap();
    let policy = ForwardedPolicy::builder().trusted(trusted).build().unwrap();
    let host: RequestHost = "shop.example.com".parse().unwrap();
    let client = |address: &str| Client::new(&Downstream::new(address.parse().unwrap()));
    let outside = client("203.0.113.7:1");
    let balancer = client("10.0.0.9:1");

    let count = |headers: &mut HeaderMap, client: &Client| {
        allocations(|| {
            policy.apply(headers, client, &host);
            policy
                .via()
                .unwrap()
                .pass(headers, Version::HTTP_11)
                .unwrap();
        })
    };
    // The first request of a connection, and for Via the first of all, makes values sharable.
    for client in [&outside, &balancer] {
        count(&mut browser(), client);
    }
    let mut headers = browser();
    assert_eq!(count(&mut headers, &outside), 0);
    assert_eq!(headers["x-forwarded-for"], "203.0.113.7");
    let mut headers = browser();
    headers.insert("x-forwarded-for", HeaderValue::from_static("127.0.0.1"));
    assert_eq!(count(&mut headers, &outside), 0);
    assert_eq!(count(&mut browser(), &balancer), 0);

    let mut headers = browser();
    headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.7"));
    assert_eq!(
        count(&mut headers, &balancer),
        2,
        "the chain, and X-Real-IP"
    );
    assert_eq!(headers["x-forwarded-for"], "203.0.113.7, 10.0.0.9");

    let policy = ForwardedPolicy::builder()
        .emit(ForwardedField::Forwarded, true)
        .build()
        .unwrap();
    // The first request of a connection makes what all its requests share.
    policy.apply(&mut browser(), &outside, &host);
    let mut headers = browser();
    let count = allocations(|| policy.apply(&mut headers, &outside, &host));
    assert!(
        (1..=2).contains(&count),
        "{count} for one Forwarded element"
    );
}

#[test]
fn other_rules_allocate_nothing_without_work() {
    let mut headers = browser();
    let count = allocations(|| {
        cookies::join(&mut headers);
        response::scrub(StatusCode::OK, &mut headers);
    });
    assert_eq!(count, 0);
    assert!(headers.contains_key(COOKIE));

    let mut fields = HeaderMap::with_capacity(4);
    fields.insert("grpc-status", HeaderValue::from_static("0"));
    assert_eq!(allocations(|| trailers::filter(&mut fields)), 0);
}
