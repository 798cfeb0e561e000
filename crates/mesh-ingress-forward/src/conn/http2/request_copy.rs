//! A copy of a request without a body, to send once more.

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;

use crate::body::RequestBody;

/// A copy of a request without a body. It clones names and values, which costs reference counts,
/// and allocates one list.
#[derive(Debug)]
pub(super) struct RequestCopy {
    method: Method,
    uri: Uri,
    version: Version,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl RequestCopy {
    /// A copy of a request, if that has no body.
    pub(super) fn of(request: &Request<RequestBody>) -> Option<Self> {
        if !request.body().is_end_stream() {
            return None;
        }
        let fields = request.headers().iter();
        Some(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            fields: fields
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        })
    }

    pub(super) fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        for (name, value) in self.fields {
            request.headers_mut().append(name, value);
        }
        request
    }
}
