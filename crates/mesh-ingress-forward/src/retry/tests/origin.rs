//! An upstream that follows a script.

use super::*;

/// How the upstream handles an attempt.
pub(super) enum Action {
    Answer(u16),
    /// Answers without reading the body.
    AnswerEarly(u16),
    Fail(ErrorKind),
    /// Fails before anything was sent.
    Unsent(ErrorKind),
    /// Reads the body and does not answer.
    Hang,
    /// Neither reads nor answers.
    Stall,
}

/// An attempt, as the upstream has received it.
#[derive(Debug, PartialEq)]
pub(super) struct Received {
    pub(super) line: String,
    pub(super) fields: HeaderMap,
    pub(super) size: Option<u64>,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

/// An upstream that follows a script.
#[derive(Default)]
pub(super) struct Origin {
    pub(super) script: Mutex<VecDeque<Action>>,
    pub(super) received: Mutex<Vec<Received>>,
    pub(super) attempts: Mutex<Vec<Instant>>,
}

impl Origin {
    pub(super) fn new(script: impl IntoIterator<Item = Action>) -> Self {
        Self {
            script: Mutex::new(script.into_iter().collect()),
            ..Self::default()
        }
    }

    pub(super) async fn serve(&self, request: Request<RequestBody>) -> Outcome {
        let action = self.script.lock().unwrap().pop_front();
        self.attempts.lock().unwrap().push(Instant::now());
        let failed = |kind| Error::new(kind, "as in the script");
        match action.expect("more attempts than the script has") {
            Action::AnswerEarly(status) => Ok(answer(status)),
            Action::Unsent(kind) => Err(failed(kind).retryable()),
            Action::Stall => {
                let _body = request;
                pending().await
            }
            Action::Answer(status) => self.read(request).await.map(|()| answer(status)),
            Action::Fail(kind) => self.read(request).await.and_then(|()| Err(failed(kind))),
            Action::Hang => {
                self.read(request).await?;
                pending().await
            }
        }
    }

    async fn read(&self, request: Request<RequestBody>) -> Result<(), Error> {
        let (head, body) = request.into_parts();
        let size = http_body::Body::size_hint(&body).exact();
        let broken = |error| Error::new(ErrorKind::HttpRequestError, error);
        let body = body.collect().await.map_err(broken)?;
        self.received.lock().unwrap().push(Received {
            line: format!("{} {} {:?}", head.method, head.uri, head.version),
            fields: head.headers,
            size,
            trailers: body.trailers().cloned(),
            body: body.to_bytes(),
        });
        Ok(())
    }

    pub(super) fn attempts(&self) -> usize {
        self.attempts.lock().unwrap().len()
    }

    /// The attempt, if all were the same.
    pub(super) fn only_received(&self) -> Received {
        let mut received = std::mem::take(&mut *self.received.lock().unwrap());
        let last = received.pop().unwrap();
        for other in received {
            assert_eq!(other, last);
        }
        last
    }
}

pub(super) fn answer(status: u16) -> Response<Body> {
    let body = Body::from("unavailable");
    Response::builder().status(status).body(body).unwrap()
}
