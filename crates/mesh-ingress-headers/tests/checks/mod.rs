//! Checks for any input: the fuzz targets run them on generated inputs, `corpus.rs` on the kept ones.
//! A check that fails panics.
#![allow(dead_code)] // each user runs some of them

mod readers;

use std::collections::HashSet;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Uri, Version};
use mesh_ingress_core::{ClusterDomain, ServiceRef, Vhost};
use mesh_ingress_headers::guard::{Refused, RequestGuard};
use mesh_ingress_headers::{EdgeHygiene, RequestHost, framing, hop_by_hop, trailers};
use readers::Reader;

/// Panics if the input violates a property.
pub(crate) type Check = fn(&[u8]);

/// The checks, by the name of their corpus.
pub(crate) const ALL: [(&str, Check); 4] = [
    ("service_ref", service_ref),
    ("hop_by_hop", hop_by_hop),
    ("request_host", request_host),
    ("request_guard", request_guard),
];

/// A reference that parses is displayed as it was, and all names made of it are valid.
pub(crate) fn service_ref(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match text.parse::<ServiceRef>() {
        Ok(service) => {
            assert_eq!(service.to_string(), text, "one service, one spelling");
            let domain = ClusterDomain::default();
            let vhost = service.vhost(&domain);
            assert_eq!(vhost.as_str().parse::<Vhost>().as_ref(), Ok(&vhost));
            assert!(vhost.as_str().len() <= 253);
            let host: RequestHost = vhost.as_str().parse().expect("what we say, we accept");
            assert_eq!(host.canonical_host(), vhost.as_str());
            assert_eq!(service.dns_name(&domain), format!("{vhost}."));
        }
        Err(error) => {
            assert_eq!(error.input(), text);
            assert!(!error.reason().is_empty());
        }
    }
}

/// Fields, one per line; lines that are no field are skipped.
pub(crate) fn fields(input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in input.split(|&b| b == b'\n').take(200) {
        let Some(colon) = line.iter().position(|&b| b == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value[1..].trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

/// A second implementation of RFC 9110 §7.6.1, to compare with.
pub(crate) fn hop_by_hop(input: &[u8]) {
    const FIXED: [&str; 10] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-authentication-info",
    ];
    const PROTECTED: [&str; 12] = [
        "host",
        "content-length",
        "content-type",
        "authorization",
        "cookie",
        "set-cookie",
        "forwarded",
        "x-forwarded-for",
        "x-real-ip",
        "via",
        "date",
        "cache-control",
    ];
    let before = fields(input);
    let nominated: HashSet<String> = before
        .get_all("connection")
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .map(|option| String::from_utf8_lossy(option.trim_ascii()).to_ascii_lowercase())
        .collect();

    let mut after = before.clone();
    let options = hop_by_hop::strip(&mut after);
    assert_eq!(options.close, nominated.contains("close"));
    assert_eq!(
        options.upgrade.is_some(),
        nominated.contains("upgrade") && before.contains_key("upgrade"),
    );
    for name in before.keys() {
        let kept = after.contains_key(name);
        if FIXED.contains(&name.as_str()) {
            assert!(!kept, "{name} ends here");
        } else if PROTECTED.contains(&name.as_str()) || !nominated.contains(name.as_str()) {
            let lines = |headers: &HeaderMap| -> Vec<HeaderValue> {
                headers.get_all(name).iter().cloned().collect()
            };
            assert_eq!(lines(&before), lines(&after), "{name} stays as it was");
        }
    }
    assert!(
        after.keys().all(|name| before.contains_key(name)),
        "nothing is made up"
    );

    let mut twice = after.clone();
    assert_eq!(
        hop_by_hop::strip(&mut twice),
        hop_by_hop::ConnectionOptions::default()
    );
    assert_eq!(twice, after, "doing it twice changes nothing");

    let mut last = after.clone();
    trailers::filter(&mut last);
    assert!(last.keys().all(|name| !trailers::is_forbidden(name)));

    let rules = EdgeHygiene::default();
    rules
        .apply(&mut after, false)
        .expect("drops, does not refuse");
    let once = after.clone();
    rules
        .apply(&mut after, false)
        .expect("drops, does not refuse");
    assert_eq!(once, after, "doing it twice changes nothing");
    assert!(after.keys().all(|name| !name.as_str().contains('_')));
    let _ = framing::check_request(
        &http::Method::GET,
        &Uri::from_static("/"),
        Version::HTTP_11,
        &after,
    );
}

/// An accepted host is accepted again: as a whole, in parts, and in its canonical form.
pub(crate) fn request_host(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(HOST, value.clone());
    let path = Uri::from_static("/");
    let Ok(host) = RequestHost::of(&path, &headers, Version::HTTP_11) else {
        return;
    };
    assert_eq!(host.value(), value);
    let text = host.as_str();
    assert!(text.bytes().all(|b| b.is_ascii_graphic()));
    assert!(!text.contains(['@', '/', '\\', '?', '#', '%', ',', '"', ' ']));
    let again: RequestHost = text.parse().expect("parses again");
    assert_eq!(again, host);
    assert_eq!((again.host(), again.port()), (host.host(), host.port()));
    match host.port() {
        Some(port) => assert_eq!(text, format!("{}:{port}", host.host())),
        None => assert_eq!(text, host.host()),
    }
    let canonical = host.canonical_host();
    let fixed: RequestHost = canonical.parse().expect("parses again");
    assert_eq!(fixed.canonical_host(), canonical, "canonical is canonical");
    assert!(!canonical.ends_with('.') && !canonical.bytes().any(|b| b.is_ascii_uppercase()));
    // The `http` crate parses the same host.
    let uri: Uri = format!("http://{text}/")
        .parse()
        .expect("an authority is one in a URI");
    assert_eq!(uri.host(), Some(host.host()));
    assert_eq!(uri.port_u16(), host.port());
    // An HTTP/2 request may name it in both `:authority` and `Host`.
    let both = RequestHost::of(&uri, &headers, Version::HTTP_2).expect("they are the same");
    assert_eq!(both, host);
}

/// The result of a guard for a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The number of accepted bytes.
    pub(crate) good: usize,
    pub(crate) refused: Option<Refused>,
    pub(crate) undecided: bool,
}

/// Feeds a guard piece by piece.
pub(crate) fn found<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Found {
    let mut guard = RequestGuard::new();
    let mut good = 0;
    for piece in pieces {
        match guard.feed(piece) {
            Ok(taken) => {
                good += taken;
                assert!(taken == piece.len() || guard.is_undecided());
            }
            Err(refused) => {
                let again = guard
                    .feed(piece)
                    .expect_err("refused once, refused for ever");
                assert_eq!((again.rule(), again.valid_up_to()), (refused.rule(), 0));
                good += refused.valid_up_to();
                return Found {
                    good,
                    refused: Some(again),
                    undecided: false,
                };
            }
        }
    }
    Found {
        good,
        refused: None,
        undecided: guard.is_undecided(),
    }
}

/// The result does not depend on the pieces, and all lenient readers agree on accepted bytes.
pub(crate) fn request_guard(input: &[u8]) {
    let whole = found([input]);
    assert_eq!(found(input.chunks(1)), whole);
    assert_eq!(found(input.chunks(7)), whole);
    let (begin, end) = input.split_at(whole.good);
    assert_eq!(found([begin, end]), whole);

    let mut guard = RequestGuard::new();
    let mut ends = Vec::new();
    for (at, byte) in begin.chunks(1).enumerate() {
        let idle = guard.is_between_requests();
        assert_eq!(guard.feed(byte), Ok(1), "good is good");
        if !idle && guard.is_between_requests() || guard.is_undecided() {
            ends.push(at + 1);
        }
    }
    for reader in Reader::all() {
        assert_eq!(reader.ends(begin), ends, "{reader:?}");
    }
}
