//! `Via` (RFC 9110 §7.6.3), and loop detection by it.

use std::sync::{Arc, OnceLock};

use http::Version;
use http::header::{HeaderMap, HeaderValue, VIA};

use crate::header_presence::FieldSet;
use crate::{HeaderPresence, InvalidSetting, LoopDetected, list};

/// This gateway's entry in `Via`.
///
/// RFC 9110 §7.6.3 has a gateway add itself to `Via` in each request; that is on by default,
/// because the gateway also recognises a looping request by it: a route to the gateway's own address
/// would otherwise loop until some limit is reached. nginx as an *origin* stops compressing for
/// requests with `Via`, unless it has `gzip_proxied any`.
///
/// The default name is `mesh-ingress-` and a random number, generated once per process, so that two
/// gateways in a row do not look like a loop. A request that loops through replicas is found when it
/// meets one of them for the second time; give the replicas one name ([`Via::new`]) to find it on the
/// first.
///
/// ```
/// use http::{HeaderMap, Version};
/// use mesh_ingress_headers::Via;
///
/// let edge = Via::new("edge")?;
/// let mut headers = HeaderMap::new();
/// edge.pass(&mut headers, Version::HTTP_2)?;
/// assert_eq!(headers["via"], "2.0 edge");
/// assert!(edge.pass(&mut headers, Version::HTTP_11).is_err(), "it came back");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Via(Arc<Entries>);

#[derive(Debug)]
struct Entries {
    pseudonym: String,
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
    http3: HeaderValue,
}

impl Via {
    /// An entry with this name.
    ///
    /// # Errors
    /// When the name is neither a token (RFC 9110 §5.6.2) nor a host with a port.
    pub fn new(pseudonym: &str) -> Result<Self, InvalidSetting> {
        let error = || InvalidSetting::new("via", format!("{pseudonym:?} is no token"));
        if pseudonym.is_empty() || !pseudonym.bytes().all(is_name) {
            return Err(error());
        }
        let entry = |version: &str| {
            HeaderValue::try_from(format!("{version} {pseudonym}")).map_err(|_| error())
        };
        Ok(Self(Arc::new(Entries {
            pseudonym: pseudonym.to_owned(),
            http10: entry("1.0")?,
            http11: entry("1.1")?,
            http2: entry("2.0")?,
            http3: entry("3.0")?,
        })))
    }

    /// The name.
    #[must_use]
    pub fn pseudonym(&self) -> &str {
        &self.0.pseudonym
    }

    /// The entry for a message received in this version.
    pub(crate) fn entry(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_09 | Version::HTTP_10 => &self.0.http10,
            Version::HTTP_11 => &self.0.http11,
            Version::HTTP_2 => &self.0.http2,
            _ => &self.0.http3,
        }
    }

    /// Adds the entry for a message received in this version, as a line of its own.
    pub fn append(&self, headers: &mut HeaderMap, version: Version) {
        headers.append(VIA, self.entry(version).clone());
    }

    /// [`check_loop`], then [`append`](Self::append).
    ///
    /// # Errors
    /// When the request has passed this gateway before.
    pub fn pass(&self, headers: &mut HeaderMap, version: Version) -> Result<(), LoopDetected> {
        check_loop(headers, self.pseudonym())?;
        self.append(headers, version);
        Ok(())
    }

    /// [`pass`](Self::pass) for a section with this [`HeaderPresence`]. Hidden: see there.
    ///
    /// # Errors
    /// As [`pass`](Self::pass).
    #[doc(hidden)]
    pub fn pass_with(
        &self,
        headers: &mut HeaderMap,
        presence: &HeaderPresence,
        version: Version,
    ) -> Result<(), LoopDetected> {
        if presence.has(FieldSet::VIA) {
            check_loop(headers, self.pseudonym())?;
        }
        self.append(headers, version);
        Ok(())
    }
}

impl Default for Via {
    fn default() -> Self {
        static PROCESS: OnceLock<Via> = OnceLock::new();
        PROCESS
            .get_or_init(|| {
                let name = format!("mesh-ingress-{:016x}", fastrand::u64(..));
                // A token by construction. If it were not, loops would go undetected, nothing worse.
                Self::new(&name).unwrap_or_else(|_| Self(Arc::new(Entries::anonymous())))
            })
            .clone()
    }
}

impl Entries {
    fn anonymous() -> Self {
        Self {
            pseudonym: "mesh-ingress".to_owned(),
            http10: HeaderValue::from_static("1.0 mesh-ingress"),
            http11: HeaderValue::from_static("1.1 mesh-ingress"),
            http2: HeaderValue::from_static("2.0 mesh-ingress"),
            http3: HeaderValue::from_static("3.0 mesh-ingress"),
        }
    }
}

/// Looks for `pseudonym` in `Via`, ignoring case.
///
/// # Errors
/// When `Via` has it.
pub fn check_loop(headers: &HeaderMap, pseudonym: &str) -> Result<(), LoopDetected> {
    let seen = headers
        .get_all(VIA)
        .iter()
        // A comma inside a comment splits, too: a client must not be able to hide the entries after
        // an unclosed comment.
        .flat_map(|line| list::members(line.as_bytes()))
        .any(|entry| {
            // received-protocol RWS received-by [ RWS comment ]
            let received_by = entry
                .split(|b| matches!(b, b' ' | b'\t'))
                .filter(|part| !part.is_empty())
                .nth(1);
            received_by.is_some_and(|by| by.eq_ignore_ascii_case(pseudonym.as_bytes()))
        });
    if seen { Err(LoopDetected) } else { Ok(()) }
}

/// `tchar` of RFC 9110 §5.6.2, and the characters of a host with a port.
fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:[]".contains(&b)
}
