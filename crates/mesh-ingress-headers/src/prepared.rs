//! Header fields about a client, prepared once for all its requests.
//!
//! Hidden from the documentation: they are correct only for requests that have no such fields
//! themselves, which the facade checks and the forwarder relies on.

use std::fmt;
use std::sync::Arc;

use http::header::VIA;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::forwarded::{self, ForwardedField};
use crate::header_presence::FieldSet;
use crate::names::{
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REAL_IP, X_REQUEST_ID,
};
use crate::{Client, ForwardedPolicy, HeaderPresence, RequestHost, RequestId, Via};

/// The header fields that tell upstreams about a client, ready to be sent with each request.
///
/// [`ForwardedPolicy::apply`] and [`Via::pass`](crate::Via::pass) write half a dozen fields into each
/// request. If the request has no such fields itself, they are the same for the whole connection except
/// for the host: each would be hashed, inserted into a map and serialized to the same bytes every time.
/// [Prepared once](ForwardedPolicy::prepare), they are sent after the fields of each request that they
/// [fit](Self::fits), as [`PreparedFields`]. Cloning costs a reference count.
///
/// ```
/// use http::{HeaderMap, Version, header::HOST};
/// use mesh_ingress_core::Downstream;
/// use mesh_ingress_headers::{Client, ForwardedPolicy, HeaderPresence, RequestHost};
///
/// let mut headers = HeaderMap::new();
/// headers.insert(HOST, "shop.example.com".parse()?);
/// let host = RequestHost::of(&"/".parse()?, &headers, Version::HTTP_11)?;
/// let client = Client::new(&Downstream::new("203.0.113.7:51000".parse()?));
/// let policy = ForwardedPolicy::builder().without_via().build()?;
///
/// let prepared = policy.prepare(&client, Version::HTTP_11).expect("no `Forwarded`");
/// assert!(prepared.fits(&HeaderPresence::of(&headers), Version::HTTP_11));
/// let mut lines = Vec::new();
/// prepared.for_host(&host).write(&mut lines);
/// let lines = str::from_utf8(&lines)?;
/// assert!(lines.contains("x-forwarded-for: 203.0.113.7\r\n"));
/// assert!(lines.contains("x-forwarded-host: shop.example.com\r\n"));
///
/// headers.insert("x-forwarded-for", "127.0.0.1".parse()?);
/// assert!(!prepared.fits(&HeaderPresence::of(&headers), Version::HTTP_11));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[doc(hidden)]
pub struct PreparedClient(Arc<Prepared>);

/// The header fields for one request: those of a [`PreparedClient`], its host, and a generated request
/// id if it came without one.
#[derive(Clone)]
#[doc(hidden)]
pub struct PreparedFields {
    client: Arc<Prepared>,
    host: Option<HeaderValue>,
    id: Option<RequestId>,
}

struct Prepared {
    version: Version,
    client: Client,
    emitted: forwarded::EmittedFields,
    via: Option<Via>,
    /// All lines but that of the host in HTTP/1, each with its CRLF.
    lines: Box<[u8]>,
}

impl Prepared {
    /// Calls `emit` with all fields but the host.
    fn each(&self, mut emit: impl FnMut(&HeaderName, &HeaderValue)) {
        if let Some(known) = self.client.known() {
            let fields = [
                (ForwardedField::Proto, &X_FORWARDED_PROTO, &known.proto),
                (ForwardedField::Port, &X_FORWARDED_PORT, &known.port),
                (ForwardedField::RealIp, &X_REAL_IP, &known.address),
                (ForwardedField::For, &X_FORWARDED_FOR, &known.address),
            ];
            for (field, name, value) in fields {
                if self.emitted.has(field) {
                    emit(name, value);
                }
            }
        }
        if let Some(via) = &self.via {
            emit(&VIA, via.entry(self.version));
        }
    }
}

/// The prepared fields do not fit a request with any of these.
const CLIENT_FIELDS: FieldSet = FieldSet::FORWARDED
    .or(FieldSet::X_FORWARDED_FOR)
    .or(FieldSet::X_FORWARDED_HOST)
    .or(FieldSet::X_FORWARDED_PORT)
    .or(FieldSet::X_FORWARDED_PROTO)
    .or(FieldSet::X_FORWARDED_SERVER)
    .or(FieldSet::X_REAL_IP)
    .or(FieldSet::VIA);

impl PreparedClient {
    /// Whether the fields can be added to a request with these fields and this version: it must not
    /// have any fields about its client itself.
    #[must_use]
    pub fn fits(&self, presence: &HeaderPresence, version: Version) -> bool {
        self.0.version == version && !presence.has(CLIENT_FIELDS)
    }

    /// The fields of a request for this host.
    #[must_use]
    pub fn for_host(&self, host: &RequestHost) -> PreparedFields {
        PreparedFields {
            client: Arc::clone(&self.0),
            host: self
                .0
                .emitted
                .has(ForwardedField::Host)
                .then(|| host.value().clone()),
            id: None,
        }
    }
}

impl PreparedFields {
    /// Adds a request id.
    pub fn set_request_id(&mut self, id: RequestId) {
        self.id = Some(id);
    }

    /// Writes the fields as HTTP/1 lines, each with its CRLF.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.client.lines);
        if let Some(host) = &self.host {
            write_line(out, X_FORWARDED_HOST.as_str(), host.as_bytes());
        }
        if let Some(id) = self.id {
            write_line(out, X_REQUEST_ID.as_str(), &id.text());
        }
    }

    /// Inserts the fields into a map.
    pub fn insert_into(&self, headers: &mut HeaderMap) {
        self.client.each(|name, value| {
            headers.insert(name, value.clone());
        });
        if let Some(host) = &self.host {
            headers.insert(&X_FORWARDED_HOST, host.clone());
        }
        if let Some(id) = self.id {
            id.insert_into(headers);
        }
    }
}

fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

impl fmt::Debug for PreparedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = String::from_utf8_lossy(&self.0.lines);
        f.debug_tuple("PreparedClient").field(&lines).finish()
    }
}

impl fmt::Debug for PreparedFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedFields")
            .field("client", &String::from_utf8_lossy(&self.client.lines))
            .field("host", &self.host)
            .field("id", &self.id)
            .finish()
    }
}

impl ForwardedPolicy {
    /// Prepares what [`apply`](Self::apply) and [`Via::pass`] would write into a request of this client
    /// and version that has no fields about its client itself. `None` if `Forwarded` is written, because
    /// it names the host in its middle.
    #[doc(hidden)]
    #[must_use]
    pub fn prepare(&self, client: &Client, version: Version) -> Option<PreparedClient> {
        let emitted = self.emitted();
        if emitted.has(ForwardedField::Forwarded) {
            return None;
        }
        let mut prepared = Prepared {
            version,
            client: client.clone(),
            emitted,
            via: self.via().cloned(),
            lines: Box::default(),
        };
        let mut length = 0;
        prepared.each(|name, value| length += name.as_str().len() + value.len() + 4);
        let mut lines = Vec::with_capacity(length);
        prepared.each(|name, value| write_line(&mut lines, name.as_str(), value.as_bytes()));
        prepared.lines = lines.into();
        Some(PreparedClient(Arc::new(prepared)))
    }
}
