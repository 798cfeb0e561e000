//! `Expect: 100-continue` (RFC 9110 §10.1.1): the upstream is asked before the client sends.
//!
//! A server of hyper's says `100 Continue` to the client when the body is first read. So all it
//! takes is not to read the body before the upstream has said it: then the client holds its body
//! back for as long as the upstream wishes, and a final status instead of the `100` spares it the
//! sending.

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

use crate::body::RequestBody;

/// How long an upstream may say nothing before the body is sent all the same: some know nothing
/// of it, and nobody may wait forever (RFC 9110 §10.1.1). As long as curl waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps a body back until the upstream asks for it.
#[derive(Debug)]
pub(crate) struct Gate {
    expected: Expectation,
    patience: Option<Pin<Box<Sleep>>>,
}

/// What is known of whether an upstream wants a body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectation(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    wanted: AtomicBool,
    refused: AtomicBool,
    waiting: AtomicWaker,
}

impl Expectation {
    /// The upstream has answered. A redirection or an error instead of the `100` says that it does
    /// not want the body (RFC 9110 §10.1.1), however long the answer takes.
    pub(crate) fn answered(&self, status: StatusCode) {
        if status >= StatusCode::MULTIPLE_CHOICES {
            self.0.refused.store(true, Ordering::Release);
        }
    }
}

/// Whether the client of a request waits to be told to send its body.
pub(crate) fn is_expected<B>(request: &Request<B>, client: Version) -> bool {
    // A server ignores it in HTTP/1.0 (RFC 9110 §10.1.1).
    client >= Version::HTTP_11
        && request
            .headers()
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Keeps the body of a request back until its upstream says `100`.
pub(crate) fn hold(request: &mut Request<RequestBody>) -> Option<Expectation> {
    if request.body().is_end_stream() {
        request.headers_mut().remove(EXPECT);
        return None;
    }
    let expected = HeaderValue::from_static("100-continue");
    request.headers_mut().insert(EXPECT, expected);
    let expected = Expectation::default();
    request.body_mut().hold(Gate {
        expected: expected.clone(),
        patience: None,
    });
    Some(expected)
}

impl Gate {
    /// The upstream says `100`.
    pub(crate) fn open(&self) {
        self.expected.0.wanted.store(true, Ordering::Release);
        self.expected.0.waiting.wake();
    }

    /// Ready when the body is to be sent.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = &*self.expected.0;
        shared.waiting.register(cx.waker());
        if shared.wanted.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let patience = self
            .patience
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        ready!(patience.as_mut().poll(cx));
        if shared.refused.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}
