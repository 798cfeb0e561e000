//! One request and its response, as the connection sees them.

use http::{Method, Version};
use mesh_ingress_http1::Decoder;
use mesh_ingress_http1::request::Head;
use mesh_ingress_http1::response::RequestContext;
use mesh_ingress_io::upgrade::UpgradeSender;

use crate::http1::transport::MAX_DISCARDED;

/// Facts about the request under way that its response depends on.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) request: RequestContext,
    pub(super) accepts_trailers: bool,
    pub(super) wants_upgrade: bool,
    /// The body of the request may be too long to be discarded.
    pub(super) is_long: bool,
    /// Until the request is answered with anything but a switch.
    pub(super) upgrade: Option<UpgradeSender>,
}

impl Exchange {
    pub(super) fn of(head: &Head) -> Self {
        Self {
            request: RequestContext {
                version: head.request.version(),
                head: head.request.method() == Method::HEAD,
                keep_alive: head.keep_alive,
            },
            accepts_trailers: head.accepts_trailers,
            wants_upgrade: head.wants_upgrade,
            is_long: match head.body {
                Decoder::Length(length) => length > MAX_DISCARDED as u64,
                Decoder::Complete => false,
                Decoder::Chunked { .. } | Decoder::UntilClose => true,
            },
            upgrade: None,
        }
    }
}

impl Default for Exchange {
    /// Of what is no request, and the last of its connection.
    fn default() -> Self {
        Self {
            request: RequestContext {
                version: Version::HTTP_11,
                head: false,
                keep_alive: false,
            },
            accepts_trailers: false,
            wants_upgrade: false,
            is_long: false,
            upgrade: None,
        }
    }
}
