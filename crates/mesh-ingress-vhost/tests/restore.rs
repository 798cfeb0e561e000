//! The restored fields, form by form.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_LOCATION, HeaderMap, HeaderName, HeaderValue, LINK,
    LOCATION, REFRESH, SET_COOKIE,
};
use mesh_ingress_core::{Scheme, Vhost};
use mesh_ingress_vhost::{PublicIdentity, restore};

const VHOST: &str = "web.default.svc.cluster.local";

fn public(url: &'static str) -> PublicIdentity {
    let (scheme, host) = url.split_once("://").unwrap();
    let scheme = if scheme == "https" {
        Scheme::Https
    } else {
        Scheme::Http
    };
    PublicIdentity::new(scheme, HeaderValue::from_static(host))
}

fn restored_for(
    vhost: &str,
    public: &PublicIdentity,
    name: &HeaderName,
    values: &[&str],
) -> Vec<String> {
    let vhost: Vhost = vhost.parse().unwrap();
    let addresses: [SocketAddr; 2] = [
        "10.96.0.7:80".parse().unwrap(),
        "[fd00:10:96::7]:80".parse().unwrap(),
    ];
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name, value.parse().unwrap());
    }
    restore(&mut headers, &vhost, &addresses, public);
    let once = headers.clone();
    restore(&mut headers, &vhost, &addresses, public);
    assert_eq!(headers, once, "twice is once");
    let lines = headers.get_all(name).iter();
    lines
        .map(|line| line.to_str().unwrap().to_owned())
        .collect()
}

/// Expects each value to become the other; `=` for no change.
fn expect(public: &PublicIdentity, name: &HeaderName, cases: &[(&str, &str)]) {
    for (value, expected) in cases {
        let expected = if *expected == "=" { value } else { expected };
        assert_eq!(
            restored_for(VHOST, public, name, &[value]),
            [*expected],
            "{name}: {value}"
        );
    }
}

/// RFC 9110 §10.2.2, §8.7.
#[test]
fn rfc9110_10_2_2_internal_references_are_restored() {
    let cases = [
        (
            "http://web.default.svc.cluster.local",
            "https://shop.example.com",
        ),
        (
            "http://web.default.svc.cluster.local/",
            "https://shop.example.com/",
        ),
        (
            "http://web.default.svc.cluster.local/a?b=c#d",
            "https://shop.example.com/a?b=c#d",
        ),
        (
            "http://web.default.svc.cluster.local?x",
            "https://shop.example.com?x",
        ),
        (
            "http://web.default.svc.cluster.local#x",
            "https://shop.example.com#x",
        ),
        (
            "http://web.default.svc.cluster.local:80/a",
            "https://shop.example.com/a",
        ),
        (
            "http://web.default.svc.cluster.local:8080/a",
            "https://shop.example.com/a",
        ),
        (
            "http://web.default.svc.cluster.local:/a",
            "https://shop.example.com/a",
        ),
        (
            "https://web.default.svc.cluster.local/a",
            "https://shop.example.com/a",
        ),
        (
            "https://web.default.svc.cluster.local:443/a",
            "https://shop.example.com/a",
        ),
        (
            "HTTP://Web.Default.SVC.Cluster.Local/a",
            "https://shop.example.com/a",
        ),
        (
            "http://web.default.svc.cluster.local./a",
            "https://shop.example.com/a",
        ),
        (
            "http://web.default.svc.cluster.local.:8080/a",
            "https://shop.example.com/a",
        ),
        ("//web.default.svc.cluster.local/a", "//shop.example.com/a"),
        ("//web.default.svc.cluster.local:80", "//shop.example.com"),
        (
            "http://u:p@web.default.svc.cluster.local/a",
            "https://shop.example.com/a",
        ),
        ("http://10.96.0.7/a", "https://shop.example.com/a"),
        ("http://10.96.0.7:80/a", "https://shop.example.com/a"),
        ("http://10.96.0.7:8080/a", "https://shop.example.com/a"),
        ("http://[fd00:10:96::7]/a", "https://shop.example.com/a"),
        (
            "http://[FD00:10:96:0::7]:80/a",
            "https://shop.example.com/a",
        ),
        ("http://[::ffff:10.96.0.7]/a", "https://shop.example.com/a"),
        // The part after the authority is not changed.
        (
            "http://web.default.svc.cluster.local/%2F//../;x?u=http://web.default.svc.cluster.local/",
            "https://shop.example.com/%2F//../;x?u=http://web.default.svc.cluster.local/",
        ),
        // Relative, foreign, or not HTTP.
        ("/a", "="),
        ("a/b", "="),
        ("?x", "="),
        ("", "="),
        ("/x?u=http://web.default.svc.cluster.local/", "="),
        ("https://pay.example.net/", "="),
        ("http://web.default.svc.cluster.local.example.net/", "="),
        ("http://xweb.default.svc.cluster.local/", "="),
        ("http://api.default.svc.cluster.local/", "="),
        ("http://web.default.svc.cluster.local,evil.example/", "="),
        ("http://web.default.svc.cluster.local:x/", "="),
        ("http://web.default.svc.cluster.local@evil.example/", "="),
        ("http://10.96.0.8/", "="),
        ("http://[fd00:10:96::8]/", "="),
        ("http://[fd00:10:96::7/", "="),
        ("ftp://web.default.svc.cluster.local/", "="),
        ("mailto:root@web.default.svc.cluster.local", "="),
        ("http:", "="),
        ("http://", "="),
        ("//", "="),
    ];
    let shop = public("https://shop.example.com");
    expect(&shop, &LOCATION, &cases);
    expect(&shop, &CONTENT_LOCATION, &cases);
}

#[test]
fn port_of_the_client_is_restored_unless_it_is_the_default() {
    let inside = "http://web.default.svc.cluster.local:8080/a";
    for (client, expected) in [
        (
            "https://shop.example.com:8443",
            "https://shop.example.com:8443/a",
        ),
        ("https://shop.example.com:443", "https://shop.example.com/a"),
        (
            "https://shop.example.com:80",
            "https://shop.example.com:80/a",
        ),
        ("http://shop.example.com:80", "http://shop.example.com/a"),
        (
            "http://shop.example.com:8080",
            "http://shop.example.com:8080/a",
        ),
        ("http://Shop.example.com.", "http://Shop.example.com./a"),
        ("http://[2001:db8::1]:81", "http://[2001:db8::1]:81/a"),
        ("http://192.0.2.1", "http://192.0.2.1/a"),
    ] {
        expect(&public(client), &LOCATION, &[(inside, expected)]);
    }
    let client = public("http://shop.example.com:8080");
    let cases = [(
        "//web.default.svc.cluster.local/a",
        "//shop.example.com:8080/a",
    )];
    expect(&client, &LOCATION, &cases);
}

/// An upstream that writes https over cleartext redirects on purpose; http would make a loop.
#[test]
fn https_is_never_turned_into_http() {
    for client in ["http://shop.example.com", "http://shop.example.com:8080"] {
        let cases = [
            (
                "https://web.default.svc.cluster.local/a",
                "https://shop.example.com/a",
            ),
            (
                "https://web.default.svc.cluster.local:8443/a",
                "https://shop.example.com/a",
            ),
        ];
        expect(&public(client), &LOCATION, &cases);
    }
}

/// HTML §4.2.5.3, which browsers follow for the field as well.
#[test]
fn refresh_is_restored_in_every_form_that_browsers_read() {
    let cases = [
        (
            "5; url=http://web.default.svc.cluster.local/a",
            "5; url=https://shop.example.com/a",
        ),
        (
            "5;URL=http://10.96.0.7/a",
            "5;URL=https://shop.example.com/a",
        ),
        (
            "0,url=//web.default.svc.cluster.local/a",
            "0,url=//shop.example.com/a",
        ),
        (
            "5; url = 'http://web.default.svc.cluster.local'",
            "5; url = 'https://shop.example.com'",
        ),
        (
            "5; url=\"http://web.default.svc.cluster.local/a\"",
            "5; url=\"https://shop.example.com/a\"",
        ),
        (
            "5; http://web.default.svc.cluster.local/a",
            "5; https://shop.example.com/a",
        ),
        ("5", "="),
        ("5;", "="),
        ("5; url", "="),
        ("5; url=", "="),
        ("5; url='", "="),
        ("5; url=/a", "="),
        ("5; url=http://pay.example.net/", "="),
    ];
    expect(&public("https://shop.example.com"), &REFRESH, &cases);
}

#[test]
fn rfc8288_3_every_target_of_every_link_is_restored() {
    let cases = [
        (
            "<http://web.default.svc.cluster.local/p2>; rel=\"next\", </p1>; rel=prev, \
             <//web.default.svc.cluster.local:80/p9>; rel=last",
            "<https://shop.example.com/p2>; rel=\"next\", </p1>; rel=prev, \
             <//shop.example.com/p9>; rel=last",
        ),
        (
            "<https://cdn.example.net/a.css>; rel=preload, <http://10.96.0.7/b,c;d>; as=style",
            "<https://cdn.example.net/a.css>; rel=preload, <https://shop.example.com/b,c;d>; as=style",
        ),
        (
            "<http://web.default.svc.cluster.local",
            "<https://shop.example.com",
        ),
        (
            "</a>; title=\"<http://web.default.svc.cluster.local/>\"",
            "=",
        ),
        (
            "</a>; title=\"\\\"<http://10.96.0.7/>\", <http://10.96.0.7/>",
            "</a>; title=\"\\\"<http://10.96.0.7/>\", <https://shop.example.com/>",
        ),
        ("<>", "="),
        ("<", "="),
        ("\"\\", "="),
    ];
    expect(&public("https://shop.example.com"), &LINK, &cases);
}

#[test]
fn rfc6265_4_1_2_3_internal_cookie_domains_are_removed() {
    let cases = [
        (
            "a=1; Domain=web.default.svc.cluster.local; Path=/",
            "a=1; Path=/",
        ),
        (
            "a=1; Path=/; domain=.Web.Default.svc.cluster.local.",
            "a=1; Path=/",
        ),
        ("a=1;Domain=svc.cluster.local;Secure", "a=1;Secure"),
        ("a=1; Domain = cluster.local ; HttpOnly", "a=1; HttpOnly"),
        ("a=1; Domain=10.96.0.7", "a=1"),
        (
            "a=1; Domain=default.svc.cluster.local; Domain=web.default.svc.cluster.local",
            "a=1",
        ),
        ("a=\"x; Domain=cluster.local\"; Path=/", "="),
        ("a=1; Domain=eb.default.svc.cluster.local", "="),
        ("a=1; Domain=api.default.svc.cluster.local", "="),
        ("a=1; Domain=example.com", "="),
        ("a=1; Domain=", "="),
        ("a=1; Domain", "="),
        ("a=1; Domain=.", "="),
        ("Domain=web.default.svc.cluster.local", "="),
        ("a=1;", "="),
        ("", "="),
    ];
    expect(&public("https://shop.example.com"), &SET_COOKIE, &cases);
}

/// A custom vhost may share a domain with the public host.
#[test]
fn cookie_domain_that_also_covers_the_public_host_is_kept() {
    let shop = public("https://shop.example.com");
    let cookies = ["a=1; Domain=example.com", "b=2; Domain=inner.example.com"];
    assert_eq!(
        restored_for("web.inner.example.com", &shop, &SET_COOKIE, &cookies),
        ["a=1; Domain=example.com", "b=2"]
    );
}

#[test]
fn internal_allowed_origins_are_restored() {
    let cases = [
        (
            "http://web.default.svc.cluster.local",
            "https://shop.example.com:8443",
        ),
        ("http://10.96.0.7:80", "https://shop.example.com:8443"),
        ("https://partner.example.net", "="),
        ("*", "="),
        ("null", "="),
    ];
    let client = public("https://shop.example.com:8443");
    expect(&client, &ACCESS_CONTROL_ALLOW_ORIGIN, &cases);
}

#[test]
fn repeated_fields_keep_their_order() {
    let shop = public("https://shop.example.com");
    let cookies = [
        "a=1; Domain=cluster.local",
        "b=2",
        "a=3; Domain=10.96.0.7; Secure",
    ];
    assert_eq!(
        restored_for(VHOST, &shop, &SET_COOKIE, &cookies),
        ["a=1", "b=2", "a=3; Secure"]
    );
    let links = ["<http://10.96.0.7/1>", "</2>", "<http://10.96.0.7/3>"];
    assert_eq!(
        restored_for(VHOST, &shop, &LINK, &links),
        [
            "<https://shop.example.com/1>",
            "</2>",
            "<https://shop.example.com/3>"
        ]
    );
}

#[test]
fn other_fields_are_not_touched() {
    let inside = "http://web.default.svc.cluster.local/";
    let shop = public("https://shop.example.com");
    for name in [
        "x-location",
        "etag",
        "content-security-policy",
        "via",
        "origin",
    ] {
        expect(&shop, &HeaderName::from_static(name), &[(inside, "=")]);
    }
}

#[test]
fn client_that_used_an_internal_name_gets_the_response_unchanged() {
    let inside = "http://web.default.svc.cluster.local:8080/";
    for client in [
        "http://web.default.svc.cluster.local",
        "http://10.96.0.7:81",
        "https://WEB.default.svc.cluster.local.",
    ] {
        expect(&public(client), &LOCATION, &[(inside, "=")]);
    }
}

/// A cache would serve one client's `Host` to others.
#[test]
fn invalid_public_host_is_not_restored() {
    let inside = "http://web.default.svc.cluster.local/";
    for client in [
        "http://a/b",
        "http://a b",
        "http://a\"><x",
        "http://",
        "http://a:b",
    ] {
        expect(&public(client), &LOCATION, &[(inside, "=")]);
    }
}

#[test]
fn port_of_the_vhost_is_ignored() {
    let shop = public("https://shop.example.com");
    for value in ["http://reviews:9080/a", "http://reviews/a", "//reviews:1/a"] {
        let restored = restored_for("reviews:9080", &shop, &LOCATION, &[value]);
        assert!(
            restored[0].ends_with("//shop.example.com/a"),
            "{restored:?}"
        );
    }
    let restored = restored_for("[fd00::1]:80", &shop, &LOCATION, &["http://[fd00::1]/a"]);
    assert_eq!(restored, ["https://shop.example.com/a"]);
}

#[test]
fn values_need_not_be_utf8_and_stay_sensitive() {
    let shop = public("https://shop.example.com");
    let vhost: Vhost = VHOST.parse().unwrap();
    let mut headers = HeaderMap::new();
    let binary = HeaderValue::from_bytes(b"http://\xff/").unwrap();
    headers.insert(LOCATION, binary.clone());
    let inside = b"http://web.default.svc.cluster.local/\xff";
    headers.insert(CONTENT_LOCATION, HeaderValue::from_bytes(inside).unwrap());
    let mut cookie = HeaderValue::from_static("id=s3cret; Domain=cluster.local");
    cookie.set_sensitive(true);
    headers.insert(SET_COOKIE, cookie);
    restore(&mut headers, &vhost, &[], &shop);
    assert_eq!(headers[LOCATION], binary);
    assert_eq!(
        headers[CONTENT_LOCATION].as_bytes(),
        b"https://shop.example.com/\xff"
    );
    assert_eq!(headers[SET_COOKIE], "id=s3cret");
    assert!(headers[SET_COOKIE].is_sensitive());
}
