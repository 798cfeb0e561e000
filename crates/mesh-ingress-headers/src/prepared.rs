//! FieldSet that are the same for all requests of a client, written once.

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

/// What all requests of a client are told about it, ready to be sent.
///
/// [`ForwardedPolicy::apply`] and [`Via::pass`](crate::Via::pass) write half a dozen fields into each
/// request. As long as a request says nothing about its client itself, these are the same ones for
/// a whole connection, but for the host: each would be hashed, put into a map and taken out again,
/// to become the same bytes as the time before. Made [once](ForwardedPolicy::prepare), they are sent
/// behind the fields of each request that [may have them](Self::suit), as
/// [`PreparedFields`]. Cloning costs a reference count.
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
/// assert!(prepared.suit(&HeaderPresence::of(&headers), Version::HTTP_11));
/// let mut lines = Vec::new();
/// prepared.for_host(&host).write(&mut lines);
/// let lines = str::from_utf8(&lines)?;
/// assert!(lines.contains("x-forwarded-for: 203.0.113.7\r\n"));
/// assert!(lines.contains("x-forwarded-host: shop.example.com\r\n"));
///
/// headers.insert("x-forwarded-for", "127.0.0.1".parse()?);
/// assert!(!prepared.suit(&HeaderPresence::of(&headers), Version::HTTP_11));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PreparedClient(Arc<Prepared>);

/// What one request is told about its client: a [`PreparedClient`], and the host that was asked for;
/// and an id, if it came without one.
#[derive(Clone)]
pub struct PreparedFields {
    client: Arc<Prepared>,
    host: Option<HeaderValue>,
    id: Option<RequestId>,
}

struct Prepared {
    version: Version,
    client: Client,
    emit: forwarded::EmittedFields,
    via: Option<Via>,
    /// All but the host in HTTP/1, each line with its CRLF.
    lines: Box<[u8]>,
}

impl Prepared {
    /// All but the host.
    fn each(&self, mut say: impl FnMut(&HeaderName, &HeaderValue)) {
        if let Some(known) = self.client.known() {
            let fields = [
                (ForwardedField::Proto, &X_FORWARDED_PROTO, &known.proto),
                (ForwardedField::Port, &X_FORWARDED_PORT, &known.port),
                (ForwardedField::RealIp, &X_REAL_IP, &known.address),
                (ForwardedField::For, &X_FORWARDED_FOR, &known.address),
            ];
            for (field, name, value) in fields {
                if self.emit.has(field) {
                    say(name, value);
                }
            }
        }
        if let Some(via) = &self.via {
            say(&VIA, via.entry(self.version));
        }
    }
}

/// A request with any of these is not told what all are told.
const SAID: FieldSet = FieldSet::FORWARDED
    .or(FieldSet::X_FORWARDED_FOR)
    .or(FieldSet::X_FORWARDED_HOST)
    .or(FieldSet::X_FORWARDED_PORT)
    .or(FieldSet::X_FORWARDED_PROTO)
    .or(FieldSet::X_FORWARDED_SERVER)
    .or(FieldSet::X_REAL_IP)
    .or(FieldSet::VIA);

impl PreparedClient {
    /// Whether a request that came with these fields, in this version, is to be told this: it must
    /// say nothing of its client itself.
    #[must_use]
    pub fn suit(&self, presence: &HeaderPresence, version: Version) -> bool {
        self.0.version == version && !presence.has(SAID)
    }

    /// The fields of a request for this host.
    #[must_use]
    pub fn for_host(&self, host: &RequestHost) -> PreparedFields {
        PreparedFields {
            client: Arc::clone(&self.0),
            host: self
                .0
                .emit
                .has(ForwardedField::Host)
                .then(|| host.value().clone()),
            id: None,
        }
    }
}

impl PreparedFields {
    /// Tells this id, too.
    pub fn set_request_id(&mut self, id: RequestId) {
        self.id = Some(id);
    }

    /// Writes the lines of HTTP/1, each with its CRLF.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.client.lines);
        if let Some(host) = &self.host {
            write_line(out, X_FORWARDED_HOST.as_str(), host.as_bytes());
        }
        if let Some(id) = self.id {
            write_line(out, X_REQUEST_ID.as_str(), &id.text());
        }
    }

    /// Puts the fields into a map.
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
    /// What [`apply`](Self::apply) and [`Via::pass`] write into a request of this client that says
    /// nothing of its client itself and came in this version. `None` where `Forwarded` is written:
    /// it names the host in the middle.
    #[must_use]
    pub fn prepare(&self, client: &Client, version: Version) -> Option<PreparedClient> {
        let emit = self.emitted();
        if emit.has(ForwardedField::Forwarded) {
            return None;
        }
        let mut prepared = Prepared {
            version,
            client: client.clone(),
            emit,
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
