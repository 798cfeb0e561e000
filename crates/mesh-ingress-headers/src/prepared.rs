//! Fields that are the same for all requests of a client, written once.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Version};

use crate::forwarded::ForwardedField;
use crate::inventory::Fields;
use crate::names::X_FORWARDED_HOST;
use crate::{Client, ForwardedPolicy, Inventory, RequestHost};

/// What all requests of a client are told about it, ready to be sent.
///
/// [`ForwardedPolicy::apply`] and [`Via::pass`](crate::Via::pass) write half a dozen fields into each
/// request. As long as a request says nothing about its client itself, these are the same ones for
/// a whole connection, but for the host: each would be hashed, put into a map and taken out again,
/// to become the same octets as the time before. Made [once](ForwardedPolicy::prepare), they are sent
/// behind the fields of each request that [may have them](Self::suit), as
/// [`PreparedFields`]. Cloning costs a reference count.
///
/// ```
/// use http::{HeaderMap, Version, header::HOST};
/// use mesh_ingress_core::Downstream;
/// use mesh_ingress_headers::{Client, ForwardedPolicy, Inventory, RequestHost};
///
/// let mut headers = HeaderMap::new();
/// headers.insert(HOST, "shop.example.com".parse()?);
/// let host = RequestHost::of(&"/".parse()?, &headers, Version::HTTP_11)?;
/// let client = Client::new(&Downstream::new("203.0.113.7:51000".parse()?));
/// let policy = ForwardedPolicy::builder().without_via().build()?;
///
/// let prepared = policy.prepare(&client, &host, Version::HTTP_11).expect("no `Forwarded`");
/// assert!(prepared.suit(&Inventory::of(&headers), Version::HTTP_11));
/// let mut lines = Vec::new();
/// prepared.for_host(&host).write(&mut lines);
/// let lines = str::from_utf8(&lines)?;
/// assert!(lines.contains("x-forwarded-for: 203.0.113.7\r\n"));
/// assert!(lines.contains("x-forwarded-host: shop.example.com\r\n"));
///
/// headers.insert("x-forwarded-for", "127.0.0.1".parse()?);
/// assert!(!prepared.suit(&Inventory::of(&headers), Version::HTTP_11));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PreparedClient(Arc<Prepared>);

/// What one request is told about its client: a [`PreparedClient`], and the host that was asked for.
#[derive(Clone)]
pub struct PreparedFields {
    client: Arc<Prepared>,
    host: Option<HeaderValue>,
}

struct Prepared {
    version: Version,
    /// All but the host.
    fields: HeaderMap,
    /// The same in HTTP/1, each line with its CRLF.
    lines: Box<[u8]>,
    says_host: bool,
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

impl PreparedClient {
    /// Whether a request that came with these fields, in this version, is to be told this: it must
    /// say nothing of its client itself.
    #[must_use]
    pub fn suit(&self, fields: &Inventory, version: Version) -> bool {
        self.0.version == version && !fields.has(SAID)
    }

    /// The fields of a request for this host.
    #[must_use]
    pub fn for_host(&self, host: &RequestHost) -> PreparedFields {
        PreparedFields {
            client: Arc::clone(&self.0),
            host: self.0.says_host.then(|| host.value().clone()),
        }
    }
}

impl PreparedFields {
    /// Writes the lines of HTTP/1, each with its CRLF.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.client.lines);
        if let Some(host) = &self.host {
            write_line(out, X_FORWARDED_HOST.as_str(), host);
        }
    }

    /// Puts the fields into a map.
    pub fn insert_into(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.client.fields {
            headers.insert(name, value.clone());
        }
        if let Some(host) = &self.host {
            headers.insert(&X_FORWARDED_HOST, host.clone());
        }
    }
}

fn write_line(out: &mut Vec<u8>, name: &str, value: &HeaderValue) {
    for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

impl fmt::Debug for PreparedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PreparedClient")
            .field(&self.0.fields)
            .finish()
    }
}

impl fmt::Debug for PreparedFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedFields")
            .field("client", &self.client.fields)
            .field("host", &self.host)
            .finish()
    }
}

impl ForwardedPolicy {
    /// What [`apply`](Self::apply) and [`Via::pass`](crate::Via::pass) write into a request of this
    /// client that says nothing of its client itself and came in this version; `host` is that of
    /// any. `None` where `Forwarded` is written: it names the host in the middle.
    #[must_use]
    pub fn prepare(
        &self,
        client: &Client,
        host: &RequestHost,
        version: Version,
    ) -> Option<PreparedClient> {
        if self.writes(ForwardedField::Forwarded) {
            return None;
        }
        let mut fields = HeaderMap::new();
        self.apply(&mut fields, client, host);
        let says_host = fields.remove(&X_FORWARDED_HOST).is_some();
        if let Some(via) = self.via() {
            via.append(&mut fields, version);
        }
        let mut lines = Vec::new();
        for (name, value) in &fields {
            write_line(&mut lines, name.as_str(), value);
        }
        Some(PreparedClient(Arc::new(Prepared {
            version,
            fields,
            lines: lines.into(),
            says_host,
        })))
    }
}
