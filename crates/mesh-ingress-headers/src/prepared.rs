//! Fields that are the same for many requests, written once.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Version};

use crate::inventory::Fields;
use crate::{Client, ForwardedPolicy, Inventory, RequestHost};

/// What all requests of a client for one host are told about it, ready to be sent.
///
/// [`ForwardedPolicy::apply`] and [`Via::pass`](crate::Via::pass) write half a dozen fields into each
/// request. As long as a request says nothing about its client itself, these are the same ones for
/// a whole connection: each would be hashed, put into a map and taken out again, to become the same
/// octets as the time before. Made [once](ForwardedPolicy::prepare), they can be sent behind the
/// fields of each request that [may have them](Self::suit). Cloning costs a reference count.
///
/// ```
/// use http::{HeaderMap, Version, header::HOST};
/// use mesh_ingress_core::Downstream;
/// use mesh_ingress_headers::{
///     Client, ForwardedPolicy, Inventory, PreparedFields, RequestHost,
/// };
///
/// let mut headers = HeaderMap::new();
/// headers.insert(HOST, "shop.example.com".parse()?);
/// let host = RequestHost::of(&"/".parse()?, &headers, Version::HTTP_11)?;
/// let client = Client::new(&Downstream::new("203.0.113.7:51000".parse()?));
/// let policy = ForwardedPolicy::builder().without_via().build()?;
///
/// let prepared = policy.prepare(&client, &host, Version::HTTP_11);
/// assert!(prepared.suit(&Inventory::of(&headers), Version::HTTP_11));
/// let lines = str::from_utf8(prepared.lines())?;
/// assert!(lines.contains("x-forwarded-for: 203.0.113.7\r\n"));
///
/// headers.insert("x-forwarded-for", "127.0.0.1".parse()?);
/// assert!(!prepared.suit(&Inventory::of(&headers), Version::HTTP_11));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PreparedFields(Arc<Prepared>);

struct Prepared {
    version: Version,
    fields: HeaderMap,
    lines: Box<[u8]>,
}

/// A request with any of these is not told what all are told.
const SAID: Fields = Fields::FORWARDED
    .or(Fields::X_FORWARDED_FOR)
    .or(Fields::X_FORWARDED_HOST)
    .or(Fields::X_FORWARDED_PORT)
    .or(Fields::X_FORWARDED_PROTO)
    .or(Fields::X_FORWARDED_SERVER)
    .or(Fields::X_REAL_IP)
    .or(Fields::VIA);

impl PreparedFields {
    /// Whether a request that came with these fields, in this version, is to be told this: it must
    /// say nothing of its client itself.
    #[must_use]
    pub fn suit(&self, fields: &Inventory, version: Version) -> bool {
        self.0.version == version && !fields.has(SAID)
    }

    /// The lines of HTTP/1, each with its CRLF.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.0.lines
    }

    /// Puts the fields into a map.
    pub fn insert_into(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0.fields {
            headers.insert(name, value.clone());
        }
    }
}

impl fmt::Debug for PreparedFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PreparedFields")
            .field(&self.0.fields)
            .finish()
    }
}

impl ForwardedPolicy {
    /// What [`apply`](Self::apply) and [`Via::pass`](crate::Via::pass) write into a request of this
    /// client that says nothing of its client itself and came in this version.
    #[must_use]
    pub fn prepare(&self, client: &Client, host: &RequestHost, version: Version) -> PreparedFields {
        let mut fields = HeaderMap::new();
        self.apply(&mut fields, client, host);
        if let Some(via) = self.via() {
            via.append(&mut fields, version);
        }
        let mut lines = Vec::new();
        for (name, value) in &fields {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
        PreparedFields(Arc::new(Prepared {
            version,
            fields,
            lines: lines.into(),
        }))
    }
}
