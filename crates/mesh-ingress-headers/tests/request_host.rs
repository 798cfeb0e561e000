//! The authority of a request: every form, accepted or refused (RFC 9110 §7.2, RFC 9112 §3.2,
//! RFC 9113 §8.3.1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests, too

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri, Version};
use mesh_ingress_headers::{RequestHost, RequestRule};

fn of(uri: &str, hosts: &[&[u8]], version: Version) -> Result<RequestHost, RequestRule> {
    let mut headers = HeaderMap::new();
    for host in hosts {
        headers.append(HOST, HeaderValue::from_bytes(host).unwrap());
    }
    RequestHost::of(&uri.parse::<Uri>().unwrap(), &headers, version).map_err(|error| error.rule())
}

fn of_host(host: &[u8]) -> Result<RequestHost, RequestRule> {
    of("/", &[host], Version::HTTP_11)
}

#[test]
fn rfc9110_7_2_accepted_hosts() {
    let long_name = format!("{}.example", ["a".repeat(61).as_str(); 3].join("."));
    let longest = format!("{}.{}", "a".repeat(60), vec!["b".repeat(63); 3].join("."));
    assert_eq!(longest.len(), 252);
    for (text, host, canonical, port) in [
        ("example.com", "example.com", "example.com", None),
        ("EXAMPLE.Com", "EXAMPLE.Com", "example.com", None),
        ("example.com.", "example.com.", "example.com", None),
        (
            "Example.COM.:8080",
            "Example.COM.",
            "example.com",
            Some(8080),
        ),
        ("example.com:80", "example.com", "example.com", Some(80)),
        ("example.com:1", "example.com", "example.com", Some(1)),
        (
            "example.com:65535",
            "example.com",
            "example.com",
            Some(65535),
        ),
        ("localhost", "localhost", "localhost", None),
        ("a", "a", "a", None),
        ("a.b.c.d.e.f", "a.b.c.d.e.f", "a.b.c.d.e.f", None),
        (
            "my_service.default",
            "my_service.default",
            "my_service.default",
            None,
        ),
        (
            "_dmarc.example.com",
            "_dmarc.example.com",
            "_dmarc.example.com",
            None,
        ),
        ("a--b.example", "a--b.example", "a--b.example", None),
        (
            "xn--bcher-kva.example",
            "xn--bcher-kva.example",
            "xn--bcher-kva.example",
            None,
        ),
        ("1password.com", "1password.com", "1password.com", None),
        (
            "1.2.3.4.example",
            "1.2.3.4.example",
            "1.2.3.4.example",
            None,
        ),
        ("0xg.example", "0xg.example", "0xg.example", None),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", None),
        ("10.96.0.10:443", "10.96.0.10", "10.96.0.10", Some(443)),
        ("[::1]", "[::1]", "[::1]", None),
        ("[::1]:8443", "[::1]", "[::1]", Some(8443)),
        (
            "[2001:DB8:0:0:0:0:0:1]",
            "[2001:DB8:0:0:0:0:0:1]",
            "[2001:db8::1]",
            None,
        ),
        (
            "[::ffff:192.0.2.1]:80",
            "[::ffff:192.0.2.1]",
            "[::ffff:192.0.2.1]",
            Some(80),
        ),
        (&long_name, &long_name, &long_name, None),
        (&longest, &longest, &longest, None),
    ] {
        let parsed = of_host(text.as_bytes()).unwrap_or_else(|rule| panic!("{text}: {rule:?}"));
        assert_eq!(parsed.value(), text);
        assert_eq!(parsed.as_str(), text);
        assert_eq!(parsed.to_string(), text);
        assert_eq!(parsed.host(), host, "{text}");
        assert_eq!(parsed.canonical_host(), canonical, "{text}");
        assert_eq!(parsed.port(), port, "{text}");
        assert_eq!(text.parse::<RequestHost>().unwrap(), parsed);
    }
}

#[test]
fn rfc9112_3_2_refused_hosts() {
    let long_label = format!("{}.example", "a".repeat(64));
    let long_name = "a.".repeat(126) + "aa";
    assert_eq!(long_name.len(), 254);
    for text in [
        "",
        ".",
        "..",
        ".example.com",
        "example..com",
        "example.com..",
        "-example.com",
        "example-.com",
        "example.com-",
        "exa mple.com",
        " example.com",
        "example.com ",
        "example.com\t",
        "example.com:",
        "example.com:0",
        "example.com:080",
        "example.com:65536",
        "example.com:99999999999999999999",
        "example.com:-80",
        "example.com:+80",
        "example.com:8o",
        "example.com: 80",
        "example.com:80:80",
        "example.com:80,80",
        ":80",
        ":",
        "user@example.com",
        "user:pw@example.com",
        "@example.com",
        "example.com@",
        "example.com/",
        "example.com/admin",
        "/",
        "\\",
        "example.com\\evil",
        "example.com?q",
        "example.com#f",
        "example.com%00",
        "%65xample.com",
        "example.com,evil.com",
        "example.com, evil.com",
        "http://example.com",
        "example.com;a",
        "exa\"mple.com",
        "exa<mple.com",
        "exa(mple.com",
        "exa'mple.com",
        "exa*mple.com",
        "*.example.com",
        "exa$mple.com",
        "exa!mple.com",
        "exa~mple.com",
        "exa+mple.com",
        "b\u{fc}cher.example",
        "\u{430}pple.com",
        "127.1",
        "127.0.0.256",
        "127.0.0.01",
        "127.0.0.1.",
        "1.2.3.4.5",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0x",
        "example.0",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[::1]8080",
        "[::1]:",
        "[::1].",
        "[::1]]",
        "[[::1]]",
        "[127.0.0.1]",
        "[example.com]",
        "[::g]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "[v1.fe80::a]",
        "[::1]example.com",
        "example.com[::1]",
        &long_label,
        &long_name,
    ] {
        let rule = of_host(text.as_bytes()).expect_err(text);
        assert_eq!(rule, RequestRule::HostInvalid, "{text:?}");
        let parsed = text.parse::<RequestHost>().expect_err(text).rule();
        let expected = [RequestRule::HostInvalid, RequestRule::UserInfo];
        assert!(expected.contains(&parsed), "{text:?}: {parsed:?}");
    }
    assert_eq!(of_host(b"exa\xffmple.com"), Err(RequestRule::HostInvalid));
}

#[test]
fn rfc9112_3_2_http11_needs_exactly_one_host() {
    for uri in ["/", "*", "http://example.com/"] {
        assert_eq!(
            of(uri, &[], Version::HTTP_11),
            Err(RequestRule::HostMissing)
        );
        assert_eq!(
            of(uri, &[b"a.example", b"a.example"], Version::HTTP_11),
            Err(RequestRule::HostRepeated),
        );
        assert_eq!(
            of(uri, &[b"a b"], Version::HTTP_11),
            Err(RequestRule::HostInvalid)
        );
        assert_eq!(
            of(uri, &[b""], Version::HTTP_11),
            Err(RequestRule::HostInvalid)
        );
    }
}

#[test]
fn rfc9112_3_2_2_absolute_target_wins_in_http1() {
    for version in [Version::HTTP_10, Version::HTTP_11] {
        let host = of("http://target.example:8080/x", &[b"host.example"], version).unwrap();
        assert_eq!(host.as_str(), "target.example:8080");
        let host = of("/x", &[b"host.example"], version).unwrap();
        assert_eq!(host.as_str(), "host.example");
    }
    let bad = of(
        "http://tar_get.example:0/",
        &[b"host.example"],
        Version::HTTP_11,
    );
    assert_eq!(bad, Err(RequestRule::HostInvalid));
    let bad = of(
        "http://u:p@target.example/",
        &[b"host.example"],
        Version::HTTP_11,
    );
    assert_eq!(bad, Err(RequestRule::UserInfo));
}

#[test]
fn rfc9112_3_2_http10_may_come_without_host() {
    let host = of("http://target.example/", &[], Version::HTTP_10).unwrap();
    assert_eq!(host.as_str(), "target.example");
    assert_eq!(
        of("/", &[], Version::HTTP_10),
        Err(RequestRule::AuthorityUnknown)
    );
    assert_eq!(
        of("/", &[b"a.example", b"b.example"], Version::HTTP_10),
        Err(RequestRule::HostRepeated),
    );
}

#[test]
fn rfc9113_8_3_1_host_and_authority_agree_in_http2() {
    for version in [Version::HTTP_2, Version::HTTP_3] {
        for (uri, host) in [
            ("http://shop.example/", "shop.example"),
            ("http://shop.example/", "SHOP.example."),
            ("http://shop.example/", "shop.example:80"),
            ("https://shop.example:443/", "shop.example"),
            ("https://[2001:db8::1]/", "[2001:DB8:0::1]:443"),
        ] {
            let found = of(uri, &[host.as_bytes()], version).unwrap();
            assert_eq!(
                found.value(),
                uri.parse::<Uri>().unwrap().authority().unwrap().as_str()
            );
        }
        for (uri, host) in [
            ("http://shop.example/", "other.example"),
            ("http://shop.example/", "shop.example:443"),
            ("https://shop.example/", "shop.example:80"),
            ("http://shop.example:81/", "shop.example"),
            ("http://shop.example/", "shop.example.evil"),
        ] {
            let found = of(uri, &[host.as_bytes()], version);
            assert_eq!(found, Err(RequestRule::HostConflict), "{uri} {host}");
        }
        assert_eq!(of("/", &[], version), Err(RequestRule::AuthorityUnknown));
        assert_eq!(
            of("/", &[b"a.example"], version).unwrap().as_str(),
            "a.example"
        );
        assert_eq!(
            of("http://a.example/", &[], version).unwrap().as_str(),
            "a.example"
        );
        assert_eq!(
            of("http://a.example/", &[b"a.example", b"a.example"], version),
            Err(RequestRule::HostRepeated),
        );
        assert_eq!(
            of("http://a.example/", &[b"a b"], version),
            Err(RequestRule::HostInvalid),
        );
        assert_eq!(
            of("http://u@a.example/", &[], version),
            Err(RequestRule::UserInfo)
        );
    }
}

#[test]
fn hosts_are_equal_if_their_bytes_are() {
    let one: RequestHost = "shop.example".parse().unwrap();
    assert_eq!(one, one.clone());
    assert_ne!(one, "SHOP.example".parse().unwrap());
    assert_eq!(format!("{one:?}"), "RequestHost(\"shop.example\")");
}
