//! The rules of request heads.

use http::header::{CONTENT_LENGTH, TE, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{HeaderMap, Method, Uri, Version};

use super::{
    LimitExceeded, MAX_FIELDS, MAX_SECTION, check_limits, has_connection_specific, is_http1, number,
};
use crate::header_presence::FieldSet;
use crate::{HeaderPresence, InvalidRequest, InvalidSetting, RequestRule, list};

/// The rules and limits of a request head.
///
/// ```
/// use http::{HeaderMap, Method, Uri, Version};
/// use mesh_ingress_headers::framing::RequestRules;
///
/// let rules = RequestRules::builder().max_target(2048).max_fields(50).build()?;
/// let search = Uri::from_static("/search?q=mesh");
/// rules.check(&Method::GET, &search, Version::HTTP_11, &HeaderMap::new())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRules {
    max_fields: usize,
    max_section: usize,
    max_target: usize,
    extended_connect: bool,
}

impl RequestRules {
    pub(super) const DEFAULT: Self = Self {
        max_fields: MAX_FIELDS,
        max_section: MAX_SECTION,
        // RFC 9112 §3 recommends at least 8000 bytes.
        max_target: 16 * 1024,
        extended_connect: false,
    };

    /// Begins with the defaults.
    #[must_use]
    pub fn builder() -> RequestRulesBuilder {
        RequestRulesBuilder(Self::DEFAULT)
    }

    /// Checks the head of a request, in this order:
    ///
    /// 1. the version: HTTP/1.0, 1.1, 2 or 3;
    /// 2. the method: not `CONNECT`, not `TRACE` (405);
    /// 3. the target: not too long (414); a path that begins with `/`, an absolute `http` or
    ///    `https` URI without user information, or `*` with `OPTIONS`;
    /// 4. the limits on the header section (431);
    /// 5. `Host` at most once ([`RequestHost::of`](crate::RequestHost::of) checks its
    ///    form);
    /// 6. `Transfer-Encoding`: in HTTP/1.1 only, exactly `chunked` in any case, once, and no
    ///    `Content-Length` beside it. A coding other than `chunked` before a final `chunked` is
    ///    501, all else 400;
    /// 7. `Content-Length`: one line, one plain number. Repeating it is refused even if both lines
    ///    say the same, which RFC 9110 §8.6 would allow a recipient to collapse; so are lists
    ///    (`5,5`), signs and leading zeros;
    /// 8. in HTTP/2: no `Connection`, `Keep-Alive`, `Proxy-Connection`, `Transfer-Encoding` or
    ///    `Upgrade`, and no `TE` but `trailers`.
    ///
    /// # Errors
    /// When the request breaks one of them.
    pub fn check(
        &self,
        method: &Method,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<(), InvalidRequest> {
        self.check_with(method, uri, version, headers, &HeaderPresence::of(headers))
    }

    /// [`check`](Self::check) for a section with this [`HeaderPresence`]. Hidden: see there.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    #[doc(hidden)]
    pub fn check_with(
        &self,
        method: &Method,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
        presence: &HeaderPresence,
    ) -> Result<(), InvalidRequest> {
        if version < Version::HTTP_10 || version > Version::HTTP_3 {
            return Err(RequestRule::Version.into());
        }
        self.check_method(method, version)?;
        self.check_target(method, uri)?;
        check_limits(headers, presence, self.max_fields, self.max_section).map_err(|error| {
            match error {
                LimitExceeded::Fields => RequestRule::TooManyFields,
                LimitExceeded::Bytes => RequestRule::SectionTooLarge,
            }
        })?;
        if presence.has(FieldSet::HOST_REPEATED) {
            return Err(RequestRule::HostRepeated.into());
        }
        if is_http1(version) {
            if presence.has(FieldSet::TRANSFER_ENCODING) {
                check_transfer_encoding(version, headers)?;
            }
        } else {
            check_http2(headers, presence)?;
        }
        if presence.has(FieldSet::CONTENT_LENGTH) {
            content_length(headers)?;
        }
        Ok(())
    }

    fn check_method(&self, method: &Method, version: Version) -> Result<(), InvalidRequest> {
        match *method {
            Method::CONNECT if self.extended_connect && !is_http1(version) => Ok(()),
            Method::CONNECT => Err(RequestRule::MethodConnect.into()),
            Method::TRACE => Err(RequestRule::MethodTrace.into()),
            _ => Ok(()),
        }
    }

    fn check_target(&self, method: &Method, uri: &Uri) -> Result<(), InvalidRequest> {
        let path = uri.path_and_query().map_or("", |target| target.as_str());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if path.len() + authority.len() > self.max_target {
            return Err(RequestRule::TargetTooLong.into());
        }
        if authority.contains('@') {
            return Err(RequestRule::UserInfo.into());
        }
        if path == "*" {
            return match *method {
                Method::OPTIONS => Ok(()),
                _ => Err(RequestRule::TargetAsterisk.into()),
            };
        }
        let good = match uri.scheme() {
            // An authority without a scheme is a CONNECT target, or a path without its '/'.
            None => authority.is_empty() && path.starts_with('/'),
            Some(scheme) => {
                !authority.is_empty() && (*scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
            }
        };
        if good {
            Ok(())
        } else {
            Err(RequestRule::Target.into())
        }
    }
}

impl Default for RequestRules {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Settings of [`RequestRules`].
#[derive(Clone, Debug)]
pub struct RequestRulesBuilder(RequestRules);

impl RequestRulesBuilder {
    /// The maximum number of header field lines: 431 above. Default 100.
    #[must_use]
    pub fn max_fields(mut self, fields: usize) -> Self {
        self.0.max_fields = fields;
        self
    }

    /// The maximum size of the header section in bytes, as HTTP/1 writes it: 431 above. Default 64 KiB.
    #[must_use]
    pub fn max_section(mut self, bytes: usize) -> Self {
        self.0.max_section = bytes;
        self
    }

    /// The maximum length of authority, path and query in bytes: 414 above. Default 16 KiB.
    #[must_use]
    pub fn max_target(mut self, bytes: usize) -> Self {
        self.0.max_target = bytes;
        self
    }

    /// Whether `CONNECT` passes in HTTP/2 and HTTP/3, for a server that offers extended CONNECT and
    /// itself refuses one without `:protocol` (RFC 8441 §4). Default off.
    #[must_use]
    pub fn extended_connect(mut self, allow: bool) -> Self {
        self.0.extended_connect = allow;
        self
    }

    /// The rules.
    ///
    /// # Errors
    /// When a limit is 0, which would refuse every request.
    pub fn build(self) -> Result<RequestRules, InvalidSetting> {
        for (setting, value) in [
            ("max_fields", self.0.max_fields),
            ("max_section", self.0.max_section),
            ("max_target", self.0.max_target),
        ] {
            if value == 0 {
                return Err(InvalidSetting::new(setting, "0 lets no request pass"));
            }
        }
        Ok(self.0)
    }
}

/// The `Content-Length` of a request; `None` if it has none. Write this number upstream, never the
/// client's text.
///
/// # Errors
/// When there are several lines, or the value is not one plain number.
pub fn content_length(headers: &HeaderMap) -> Result<Option<u64>, InvalidRequest> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err(RequestRule::ContentLengthRepeated.into());
    }
    match number(value.as_bytes()) {
        Some(length) => Ok(Some(length)),
        None => Err(RequestRule::ContentLength.into()),
    }
}

fn check_transfer_encoding(version: Version, headers: &HeaderMap) -> Result<(), InvalidRequest> {
    let lines = headers.get_all(TRANSFER_ENCODING);
    let mut values = lines.iter();
    let Some(first) = values.next() else {
        return Ok(());
    };
    if version < Version::HTTP_11 {
        return Err(RequestRule::TransferEncodingInHttp10.into());
    }
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(RequestRule::TransferEncodingAndContentLength.into());
    }
    if values.next().is_none() && first.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    // RFC 9112 §6.3 has 400 where the length cannot be known, §6.1 has 501 for unknown codings.
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let codings = || lines.iter().flat_map(|line| list::members(line.as_bytes()));
    let decodable = codings().filter(|coding| is_chunked(coding)).count() == 1
        && codings().last().is_some_and(is_chunked);
    if decodable && codings().count() > 1 {
        return Err(RequestRule::TransferCodingUnknown.into());
    }
    Err(RequestRule::TransferEncoding.into())
}

fn check_http2(headers: &HeaderMap, presence: &HeaderPresence) -> Result<(), InvalidRequest> {
    if has_connection_specific(presence) {
        return Err(RequestRule::ConnectionSpecific.into());
    }
    let good = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"trailers");
    if presence.has(FieldSet::TE) && !headers.get_all(TE).iter().all(good) {
        return Err(RequestRule::TeInHttp2.into());
    }
    Ok(())
}
