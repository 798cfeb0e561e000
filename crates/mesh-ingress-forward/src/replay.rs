//! Sending a request without a body once more.

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;

use crate::body::RequestBody;

/// What is needed to send a request without a body once more. To remember it costs reference
/// counts, and no allocation where it is kept with the connection.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    target: Option<(Method, Uri, Version)>,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Replay {
    /// Remembers nothing.
    pub(crate) fn forget(&mut self) {
        self.fields.clear();
        self.target = None;
    }

    /// Remembers a request, if it has no body.
    pub(crate) fn remember(&mut self, request: &Request<RequestBody>) {
        self.forget();
        if !request.body().is_end_stream() {
            return;
        }
        self.target = Some((
            request.method().clone(),
            request.uri().clone(),
            request.version(),
        ));
        self.fields.extend(
            request
                .headers()
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }

    /// The request, if there is one.
    pub(crate) fn take(&mut self) -> Option<Request<RequestBody>> {
        let (method, uri, version) = self.target.take()?;
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        for (name, value) in self.fields.drain(..) {
            request.headers_mut().append(name, value);
        }
        Some(request)
    }
}
