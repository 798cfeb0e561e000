//! The header work of the gateway in a plain version: the same fields, none of
//! the checks.

use std::net::IpAddr;

use http::header::{self, HOST, HeaderMap, HeaderName, HeaderValue};

pub(crate) const VHOST: &str = "web.default.svc.cluster.local";
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(crate) const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Hop-by-hop fields (RFC 9110 §7.6.1), whether or not `Connection` says so.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Values that do not change while a client is connected.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: HeaderValue,
    port: HeaderValue,
}

impl Client {
    pub(crate) fn new(address: IpAddr, port: u16) -> Self {
        let text = address.to_string();
        Self {
            address: HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown")),
            port: HeaderValue::from(port),
        }
    }

    pub(crate) fn rewrite(&self, headers: &mut HeaderMap, authority: Option<HeaderValue>) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
        let public = headers.insert(HOST, HeaderValue::from_static(VHOST));
        if let Some(public) = public.or(authority) {
            headers.insert(X_FORWARDED_HOST, public);
        }
        headers.insert(X_FORWARDED_FOR, self.address.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        self.rewrite_rest(headers);
    }

    /// Without what axum-reverse-proxy does itself.
    pub(crate) fn rewrite_rest(&self, headers: &mut HeaderMap) {
        headers.insert(X_FORWARDED_PORT, self.port.clone());
        headers.insert(X_REAL_IP, self.address.clone());
        headers.insert(X_REQUEST_ID, request_id());
    }
}

pub(crate) fn request_id() -> HeaderValue {
    let text = format!("{:032x}", fastrand::u128(..));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("-"))
}
