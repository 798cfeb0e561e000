//! Edge hygiene: fields that untrusted clients may not send.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests, too

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use mesh_ingress_core::Downstream;
use mesh_ingress_headers::{
    Client, EdgeHygiene, FieldGroup, ForwardedPolicy, HeaderPresence, Peers, RequestHost,
    RequestIdPolicy, UnderscorePolicy,
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const UUID: &str = "01234567-89ab-4def-8123-456789abcdef";

fn map(names: &str) -> HeaderMap {
    let names = names.split_whitespace();
    names
        .map(|name| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_static("v"))
        })
        .collect()
}

/// The remaining fields, without the request id.
fn left(rules: &EdgeHygiene, names: &str, trusted: bool) -> Vec<String> {
    let mut headers = map(names);
    rules.apply(&mut headers, trusted).unwrap();
    headers.remove("x-request-id");
    let mut left: Vec<_> = headers.keys().map(ToString::to_string).collect();
    left.sort_unstable();
    left
}

const SPOOFED: &str = "x-envoy-max-retries x-envoy-upstream-rq-timeout-ms x-envoy-external-address \
    x-envoy-peer-metadata x-istio-attributes l5d-dst-override l5d-client-id x-kuma-tags \
    x-forwarded-client-cert x-forwarded-user x-auth-request-email ssl-client-verify x-ssl-cert \
    remote-user x-remote-user x-webauth-user x-spiffe-id forwarded x-forwarded-for \
    x-forwarded-prefix x-real-ip x-original-url x-rewrite-url true-client-ip front-end-https proxy \
    x_forwarded_for x-forwarded_for x_anything content_length";

const HARMLESS: &str = "accept authorization b3 baggage content-type cookie host traceparent \
    tracestate user-agent x-api-key x-b3-flags x-b3-traceid x-http-method-override \
    x-requested-with";

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn untrusted_peers_cannot_steer_the_mesh_or_claim_an_identity() {
    let rules = EdgeHygiene::default();
    assert!(left(&rules, SPOOFED, false).is_empty());
    assert_eq!(left(&rules, HARMLESS, false), words(HARMLESS));
}

#[test]
fn all_lines_of_a_repeated_field_are_removed() {
    let mut headers = HeaderMap::new();
    for _ in 0..3 {
        headers.append(
            "l5d-dst-override",
            HeaderValue::from_static("evil.example:80"),
        );
        headers.append("accept", HeaderValue::from_static("a"));
    }
    EdgeHygiene::default().apply(&mut headers, false).unwrap();
    assert!(!headers.contains_key("l5d-dst-override"));
    assert_eq!(headers.get_all("accept").iter().count(), 3);
}

#[test]
fn trusted_peers_may_send_all_but_proxy_and_underscores() {
    let rules = EdgeHygiene::default();
    let mut expected = words(SPOOFED);
    expected.retain(|name| name != "proxy" && !name.contains('_'));
    expected.sort_unstable();
    assert_eq!(left(&rules, SPOOFED, true), expected);
}

#[test]
fn each_group_is_configurable() {
    for (group, name) in [
        (FieldGroup::Forwarding, "x-forwarded-for"),
        (FieldGroup::Identity, "x-forwarded-client-cert"),
        (FieldGroup::Mesh, "x-envoy-retry-on"),
        (FieldGroup::MethodOverride, "x-http-method-override"),
        (FieldGroup::Proxy, "proxy"),
    ] {
        for (peers, kept_untrusted, kept_trusted) in [
            (Peers::None, true, true),
            (Peers::Untrusted, false, true),
            (Peers::All, false, false),
        ] {
            let rules = EdgeHygiene::builder().refuse(group, peers).build().unwrap();
            assert_eq!(
                left(&rules, name, false).len(),
                usize::from(kept_untrusted),
                "{name}"
            );
            assert_eq!(
                left(&rules, name, true).len(),
                usize::from(kept_trusted),
                "{name}"
            );
        }
    }
}

#[test]
fn custom_fields_are_removed() {
    let rules = EdgeHygiene::builder()
        .refuse_untrusted("X-Acme-*")
        .refuse_untrusted("X-Tenant")
        .build()
        .unwrap();
    assert_eq!(
        left(&rules, "x-acme- x-acme-a x-acme x-tenant x-tenant-2", false),
        words("x-acme x-tenant-2")
    );
    assert_eq!(
        left(&rules, "x-acme-a x-tenant", true),
        words("x-acme-a x-tenant")
    );
    for bad in ["", "*", "a b*", "a:", "\u{fc}"] {
        let error = EdgeHygiene::builder()
            .refuse_untrusted(bad)
            .build()
            .unwrap_err();
        assert_eq!(error.setting(), "refuse_untrusted");
    }
}

#[test]
fn underscore_names_are_dropped_kept_or_refused_by_policy() {
    let names = "x_request_id x_forwarded_for x_api_key content_length l5d_dst_override proxy_connection \
                 x-envoy_retry-on transfer_encoding";
    let drop = EdgeHygiene::default();
    assert!(left(&drop, names, false).is_empty());
    assert!(
        left(&drop, names, true).is_empty(),
        "proxies in front do not look at them"
    );
    let keep = EdgeHygiene::builder()
        .underscores(UnderscorePolicy::Keep)
        .build()
        .unwrap();
    assert_eq!(left(&keep, names, false), words("x_api_key x_request_id"));
    let reject = EdgeHygiene::builder()
        .underscores(UnderscorePolicy::Reject)
        .build()
        .unwrap();
    let error = reject
        .apply(&mut map("accept x_api_key"), false)
        .unwrap_err();
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    assert!(reject.apply(&mut map("accept"), false).is_ok());
}

fn request_ids(policy: RequestIdPolicy, sent: &[&'static str], trusted: bool) -> Vec<String> {
    let rules = EdgeHygiene::builder().request_id(policy).build().unwrap();
    let mut headers = HeaderMap::new();
    for id in sent {
        headers.append("x-request-id", HeaderValue::from_static(id));
    }
    rules.apply(&mut headers, trusted).unwrap();
    let ids = headers.get_all("x-request-id").iter();
    ids.map(|id| id.to_str().unwrap().to_owned()).collect()
}

fn is_fresh(ids: &[String]) -> bool {
    let [id] = ids else { return false };
    let groups: Vec<_> = id.split('-').map(str::len).collect();
    id != UUID
        && groups == [8, 4, 4, 4, 12]
        && id.as_bytes()[14] == b'4'
        && id
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

#[test]
fn request_id_is_a_uuid_as_istio_reads_it() {
    use RequestIdPolicy::{Fresh, Ignore, Keep, KeepUuid};
    // Envoy's mark of a trace forced by a client, and ingress-nginx's 32 digits.
    const FORCED: &str = "01234567-89ab-bdef-8123-456789abcdef";
    const NGINX: &str = "0123456789ab4def8123456789abcdef";

    for policy in [KeepUuid, Fresh, Keep] {
        assert!(is_fresh(&request_ids(policy, &[], false)));
        assert!(is_fresh(&request_ids(policy, &[], true)));
        assert_eq!(
            request_ids(policy, &["anything"], true),
            ["anything"],
            "from a trusted peer"
        );
    }
    assert_eq!(request_ids(KeepUuid, &[UUID], false), [UUID]);
    for bad in [&[FORCED][..], &[NGINX], &["x"], &[""], &[UUID, UUID]] {
        assert!(is_fresh(&request_ids(KeepUuid, bad, false)), "{bad:?}");
    }
    assert!(is_fresh(&request_ids(Fresh, &[UUID], false)));
    assert_eq!(request_ids(Keep, &["x"], false), ["x"]);
    assert_eq!(request_ids(Ignore, &["x"], false), ["x"]);
    assert!(request_ids(Ignore, &[], false).is_empty());
}

/// A returned id is not inserted, and is written once.
#[test]
fn returned_request_id_is_written_with_the_prepared_fields() {
    let rules = EdgeHygiene::default();
    let client = Client::new(&Downstream::new("203.0.113.7:51000".parse().unwrap()));
    let host: RequestHost = "shop.example.com".parse().unwrap();
    let policy = ForwardedPolicy::default();
    let prepared = policy.prepare(&client, Version::HTTP_11).unwrap();
    for sent in [None, Some("anything")] {
        let mut headers = HeaderMap::new();
        headers.extend(sent.map(|id| (X_REQUEST_ID, HeaderValue::from_static(id))));
        let presence = HeaderPresence::of(&headers);
        let id = rules
            .clean_with(&mut headers, &presence, false)
            .unwrap()
            .unwrap();
        assert!(headers.is_empty(), "{headers:?}");
        let mut further = prepared.for_host(&host);
        further.set_request_id(id);
        let mut lines = Vec::new();
        further.write(&mut lines);
        let lines = String::from_utf8(lines).unwrap();
        assert_eq!(lines.matches(&format!("x-request-id: {id}\r\n")).count(), 1);
        further.insert_into(&mut headers);
        assert_eq!(headers[X_REQUEST_ID], id.to_string());
        assert_eq!(headers.len(), lines.lines().count());
    }
    let mut headers = HeaderMap::new();
    headers.insert(X_REQUEST_ID, HeaderValue::from_static(UUID));
    let presence = HeaderPresence::of(&headers);
    assert_eq!(
        rules.clean_with(&mut headers, &presence, false).unwrap(),
        None
    );
    assert_eq!(headers[X_REQUEST_ID], UUID);
}

#[test]
fn request_ids_differ() {
    let ids: std::collections::HashSet<_> = (0..10_000)
        .flat_map(|_| request_ids(RequestIdPolicy::default(), &[], false))
        .collect();
    assert_eq!(ids.len(), 10_000);
}
