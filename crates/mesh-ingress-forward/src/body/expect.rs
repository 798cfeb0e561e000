//! `Expect: 100-continue` (RFC 9110 §10.1.1): the upstream is asked before the client sends its
//! body.
//!
//! hyper's server sends `100 Continue` to the client when the request's body is first polled. So it
//! is enough not to poll the body before the upstream has sent its `100`: the client holds its body
//! back for as long as the upstream wishes, and does not send it at all if the upstream answers
//! with a final status.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::header::EXPECT;
use http::{HeaderValue, Request, StatusCode, Version};
use http_body::Body as _;
use tokio::time::Sleep;

use super::RequestBody;

/// How long to wait for the `100` before the body is sent anyway, because some servers ignore the
/// expectation (RFC 9110 §10.1.1). curl waits as long.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Holds a body back until the upstream sends `100 Continue`.
#[derive(Debug)]
pub(super) struct ContinueGate {
    expectation: Expectation,
    timeout: Option<Pin<Box<Sleep>>>,
}

/// The upstream's answer to an expectation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectation(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    continued: AtomicBool,
    refused: AtomicBool,
    waker: AtomicWaker,
}

impl Expectation {
    /// The upstream has sent a final status. A redirect or an error instead of the `100` says that
    /// it does not want the body (RFC 9110 §10.1.1), however long its own body takes.
    pub(crate) fn answered(&self, status: StatusCode) {
        if status >= StatusCode::MULTIPLE_CHOICES {
            self.0.refused.store(true, Ordering::Release);
        }
    }
}

/// Whether the client of a request waits for `100 Continue`.
pub(crate) fn expects_continue<B>(request: &Request<B>, client: Version) -> bool {
    // A server ignores the field in HTTP/1.0 (RFC 9110 §10.1.1).
    client >= Version::HTTP_11
        && request
            .headers()
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Sends the expectation to the upstream, and holds the body back until that sends `100 Continue`.
pub(crate) fn hold_for_continue(request: &mut Request<RequestBody>) -> Option<Expectation> {
    if request.body().is_end_stream() {
        request.headers_mut().remove(EXPECT);
        return None;
    }
    let value = HeaderValue::from_static("100-continue");
    request.headers_mut().insert(EXPECT, value);
    let expectation = Expectation::default();
    request.body_mut().hold(ContinueGate {
        expectation: expectation.clone(),
        timeout: None,
    });
    Some(expectation)
}

impl ContinueGate {
    /// The upstream has sent `100 Continue`.
    pub(super) fn open(&self) {
        self.expectation.0.continued.store(true, Ordering::Release);
        self.expectation.0.waker.wake();
    }

    /// Ready when the body is to be sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = &*self.expectation.0;
        shared.waker.register(cx.waker());
        if shared.continued.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let timeout = self
            .timeout
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(CONTINUE_TIMEOUT)));
        ready!(timeout.as_mut().poll(cx));
        if shared.refused.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}
