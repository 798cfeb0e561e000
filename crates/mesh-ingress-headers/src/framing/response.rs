//! The rules of response heads.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, Version};

use super::{
    LimitExceeded, MAX_FIELDS, MAX_SECTION, check_limits, has_connection_specific, is_http1, number,
};
use crate::header_presence::FieldSet;
use crate::{HeaderPresence, InvalidResponse, InvalidSetting};

/// The rules and limits of a response head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseRules {
    max_fields: usize,
    max_section: usize,
}

impl ResponseRules {
    pub(super) const DEFAULT: Self = Self {
        max_fields: MAX_FIELDS,
        max_section: MAX_SECTION,
    };

    /// Begins with the defaults.
    #[must_use]
    pub fn builder() -> ResponseRulesBuilder {
        ResponseRulesBuilder(Self::DEFAULT)
    }

    /// Checks the head of a response:
    ///
    /// * `Transfer-Encoding`: in HTTP/1.1 only, not in 1xx or 204, exactly `chunked`, once, and no
    ///   `Content-Length` beside it;
    /// * `Content-Length`: one line, one plain number (repetition is refused even if both are
    ///   equal, as nginx does), and in 1xx or 204 none but 0, which many servers send although
    ///   RFC 9110 §8.6 says not to;
    /// * in HTTP/2: no connection-specific fields;
    /// * the limits on the header section.
    ///
    /// # Errors
    /// When the response breaks one of them: do not relay it, and do not reuse its connection.
    pub fn check(
        &self,
        status: StatusCode,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<(), InvalidResponse> {
        self.check_with(status, version, headers, &HeaderPresence::of(headers))
    }

    /// [`check`](Self::check) for a section with this [`HeaderPresence`]. Hidden: see there.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    #[doc(hidden)]
    pub fn check_with(
        &self,
        status: StatusCode,
        version: Version,
        headers: &HeaderMap,
        presence: &HeaderPresence,
    ) -> Result<(), InvalidResponse> {
        check_limits(headers, presence, self.max_fields, self.max_section).map_err(|error| {
            match error {
                LimitExceeded::Fields => InvalidResponse::TooManyFields,
                LimitExceeded::Bytes => InvalidResponse::SectionTooLarge,
            }
        })?;
        let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
        if !is_http1(version) && has_connection_specific(presence) {
            return Err(InvalidResponse::ConnectionSpecific);
        }
        let lines = |name, field| {
            let lines = presence.has(field).then(|| headers.get_all(name));
            lines.into_iter().flatten()
        };
        let mut encodings = lines(TRANSFER_ENCODING, FieldSet::TRANSFER_ENCODING);
        if let Some(encoding) = encodings.next() {
            if version < Version::HTTP_11 || bodiless {
                return Err(InvalidResponse::TransferEncodingNotAllowed);
            }
            if headers.contains_key(CONTENT_LENGTH) {
                return Err(InvalidResponse::TransferEncodingAndContentLength);
            }
            if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(InvalidResponse::TransferEncoding);
            }
        }
        let mut lengths = lines(CONTENT_LENGTH, FieldSet::CONTENT_LENGTH);
        if let Some(length) = lengths.next() {
            let length = number(length.as_bytes()).ok_or(InvalidResponse::ContentLength)?;
            if lengths.next().is_some() {
                return Err(InvalidResponse::ContentLengthRepeated);
            }
            if bodiless && length != 0 {
                return Err(InvalidResponse::ContentNotAllowed);
            }
        }
        Ok(())
    }
}

impl Default for ResponseRules {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Settings of [`ResponseRules`].
#[derive(Clone, Debug)]
pub struct ResponseRulesBuilder(ResponseRules);

impl ResponseRulesBuilder {
    /// The maximum number of header field lines. Default 100.
    #[must_use]
    pub fn max_fields(mut self, fields: usize) -> Self {
        self.0.max_fields = fields;
        self
    }

    /// The maximum size of the header section in bytes, as HTTP/1 writes it. Default 64 KiB.
    #[must_use]
    pub fn max_section(mut self, bytes: usize) -> Self {
        self.0.max_section = bytes;
        self
    }

    /// The rules.
    ///
    /// # Errors
    /// When a limit is 0: then nothing at all could pass.
    pub fn build(self) -> Result<ResponseRules, InvalidSetting> {
        for (setting, value) in [
            ("max_fields", self.0.max_fields),
            ("max_section", self.0.max_section),
        ] {
            if value == 0 {
                return Err(InvalidSetting::new(setting, "0 lets no response pass"));
            }
        }
        Ok(self.0)
    }
}
