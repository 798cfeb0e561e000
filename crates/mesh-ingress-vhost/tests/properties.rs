//! Properties of `restore` for any response.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_LOCATION, HeaderMap, HeaderName, HeaderValue, LINK,
    LOCATION, REFRESH, SET_COOKIE,
};
use mesh_ingress_core::{Scheme, Vhost};
use mesh_ingress_vhost::{PublicIdentity, restore};
use proptest::prelude::*;

const FIELDS: [HeaderName; 6] = [
    LOCATION,
    CONTENT_LOCATION,
    REFRESH,
    LINK,
    SET_COOKIE,
    ACCESS_CONTROL_ALLOW_ORIGIN,
];

fn restored(
    name: &HeaderName,
    values: &[HeaderValue],
    public: &PublicIdentity,
) -> Vec<HeaderValue> {
    let vhost: Vhost = "web.default.svc".parse().unwrap();
    let addresses: [SocketAddr; 1] = ["10.96.0.7:80".parse().unwrap()];
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name, value.clone());
    }
    restore(&mut headers, &vhost, &addresses, public);
    headers.get_all(name).iter().cloned().collect()
}

fn public() -> impl Strategy<Value = PublicIdentity> {
    let host = prop_oneof![
        Just("shop.example.com".to_owned()),
        "[a-z]{1,8}(:[0-9]{1,6})?",
        "[ -~]{0,12}",
    ];
    (any::<bool>(), host).prop_map(|(https, host)| {
        let scheme = if https { Scheme::Https } else { Scheme::Http };
        PublicIdentity::new(scheme, HeaderValue::from_str(&host).unwrap())
    })
}

/// Values made of the tokens of the parsers.
fn value() -> impl Strategy<Value = HeaderValue> {
    let part = prop_oneof![
        Just("http://"),
        Just("HTTPS://"),
        Just("//"),
        Just("web.default.svc"),
        Just("10.96.0.7"),
        Just("default.svc"),
        Just("[::1]"),
        Just("."),
        Just(":80"),
        Just(":"),
        Just("@"),
        Just("/"),
        Just("?"),
        Just("#"),
        Just("<"),
        Just(">"),
        Just("\""),
        Just("'"),
        Just("\\"),
        Just(";"),
        Just(","),
        Just("="),
        Just(" "),
        Just("url="),
        Just("Domain="),
        Just("5"),
        Just("a"),
    ];
    let made = prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat().into_bytes());
    let any = prop::collection::vec(
        any::<u8>().prop_filter("valid in a field", |b| {
            *b == b'\t' || (*b >= 32 && *b != 127)
        }),
        0..40,
    );
    prop_oneof![4 => made, 1 => any].prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}

proptest! {
    #[test]
    fn restore_never_panics_and_is_idempotent(
        field in prop::sample::select(&FIELDS[..]),
        values in prop::collection::vec(value(), 0..4),
        public in public(),
    ) {
        let once = restored(&field, &values, &public);
        prop_assert_eq!(once.len(), values.len());
        prop_assert_eq!(restored(&field, &once, &public), once);
    }

    #[test]
    fn internal_reference_becomes_public_and_keeps_the_rest(
        scheme in prop_oneof![Just("http:"), Just("https:"), Just("HTTP:"), Just("")],
        host in prop_oneof![Just("web.default.svc"), Just("WEB.Default.svc"), Just("web.default.svc."), Just("10.96.0.7")],
        port in prop_oneof![Just(String::new()), (0..=65535_u32).prop_map(|port| format!(":{port}"))],
        rest in "([/?#][ -;=?-~]{0,20})?",
        public_port in prop::option::of(1..=65535_u16),
        https in any::<bool>(),
    ) {
        let client = match public_port {
            Some(port) => format!("shop.example.com:{port}"),
            None => "shop.example.com".to_owned(),
        };
        let client_scheme = if https { Scheme::Https } else { Scheme::Http };
        let public = PublicIdentity::new(client_scheme, client.parse().unwrap());
        let value = HeaderValue::try_from(format!("{scheme}//{host}{port}{rest}")).unwrap();

        let location = restored(&LOCATION, std::slice::from_ref(&value), &public).remove(0);
        let location = location.to_str().unwrap();
        let front = location.strip_suffix(rest.as_str()).unwrap();
        prop_assert!(!front.to_ascii_lowercase().contains("web.default.svc"));
        prop_assert!(!front.contains("10.96.0.7"));
        let (restored_scheme, authority) = front.split_once("//").unwrap();
        prop_assert_eq!(restored_scheme.is_empty(), scheme.is_empty());
        if scheme == "https:" {
            prop_assert_eq!(restored_scheme, "https:");
        }
        let explicit = public_port.filter(|port| *port != client_scheme.default_port());
        let same = restored_scheme.is_empty() || restored_scheme.strip_suffix(':') == Some(client_scheme.as_str());
        match explicit.filter(|_| same) {
            Some(port) => prop_assert_eq!(authority, format!("shop.example.com:{port}")),
            None => prop_assert_eq!(authority, "shop.example.com"),
        }

        // The other fields have the same reference inside other text.
        let link = format!("</x>, <{scheme}//{host}{port}{rest}>; rel=a");
        let link = restored(&LINK, &[link.parse().unwrap()], &public).remove(0);
        prop_assert_eq!(link, format!("</x>, <{location}>; rel=a"));
        let refresh = format!("5; url={scheme}//{host}{port}{rest}");
        let refresh = restored(&REFRESH, &[refresh.parse().unwrap()], &public).remove(0);
        prop_assert_eq!(refresh, format!("5; url={location}"));
    }
}
