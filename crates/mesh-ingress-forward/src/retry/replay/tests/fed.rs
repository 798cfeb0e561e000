//! A body that the test feeds, and how it is read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use http::{HeaderName, HeaderValue};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::*;

pub(super) type Sent = Result<Frame<Bytes>, BoxError>;

/// A body that the test feeds.
pub(super) struct Fed(mpsc::UnboundedReceiver<Sent>, SizeHint);

impl Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.0.poll_recv(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && let Some(exact) = self.1.exact()
        {
            self.1 = SizeHint::with_exact(exact - data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.1.exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.1
    }
}

pub(super) fn fed(size: SizeHint) -> (mpsc::UnboundedSender<Sent>, Fed) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Fed(receiver, size))
}

pub(super) fn data(bytes: &'static [u8]) -> Sent {
    Ok(Frame::data(Bytes::from_static(bytes)))
}

pub(super) fn fields() -> HeaderMap {
    let name = HeaderName::from_static("x-checksum");
    HeaderMap::from_iter([(name, HeaderValue::from_static("42"))])
}

#[derive(Default)]
pub(super) struct WakeCount(AtomicUsize);

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl WakeCount {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

pub(super) fn poll(body: &mut ReplayBody<Fed>, wakes: &Arc<WakeCount>) -> Poll<Option<Sent>> {
    let waker = Waker::from(Arc::clone(wakes));
    Pin::new(body).poll_frame(&mut Context::from_waker(&waker))
}

/// The next frame, which must be ready.
pub(super) fn next(body: &mut ReplayBody<Fed>) -> Bytes {
    match poll(body, &Arc::default()) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap(),
        other => panic!("no data: {other:?}"),
    }
}

pub(super) fn error(body: &mut ReplayBody<Fed>) -> String {
    match poll(body, &Arc::default()) {
        Poll::Ready(Some(Err(error))) => error.to_string(),
        other => panic!("no error: {other:?}"),
    }
}

pub(super) async fn all<B>(body: B) -> (Bytes, Option<HeaderMap>)
where
    B: Body<Data = Bytes, Error = BoxError>,
{
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    (collected.to_bytes(), trailers)
}
