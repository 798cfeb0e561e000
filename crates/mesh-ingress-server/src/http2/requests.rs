//! Requests as they begin and end.

use std::task::{Context, Poll, Waker};

use http::{HeaderMap, Method, StatusCode};
use hyper::ext::Protocol;
use mesh_ingress_http2::Reason;
use mesh_ingress_http2::request::{self, RequestError};
use mesh_ingress_http2::response::Content;
use mesh_ingress_io::upgrade;

use super::MAX_STREAMS;
use super::body::{Http2Body, RecvBody};
use super::connection::{Connection, MAX_HEADER_LIST, Phase};
use super::stream::State;
use crate::RequestBody;
use crate::service::HttpService;

impl<S: HttpService> Connection<S> {
    /// A field section: a request begins, or ends with trailers.
    pub(super) fn field_section(
        &mut self,
        id: u32,
        ends: bool,
        section: &[u8],
    ) -> Result<(), Reason> {
        if id > self.last_stream {
            return self.begin_request(id, ends, section);
        }
        // Decoded even if nobody wants it: later sections may refer to it.
        let trailers = request::read_trailers(section, &mut self.decoder, MAX_HEADER_LIST);
        let trailers = trailers.map_err(|error| {
            tracing::debug!("stream {id}: {error}");
            Reason::COMPRESSION_ERROR
        })?;
        match self.streams.find(id) {
            Some(stream) if !stream.receiving => return self.refuse(id, Reason::STREAM_CLOSED),
            Some(_) => {}
            None if self.recently_reset.contains(&id) => return Ok(()),
            None => return Err(Reason::STREAM_CLOSED),
        }
        match trailers {
            Ok(trailers) if ends => self.end_request(id, Some(trailers)),
            Ok(_) => {
                tracing::debug!("stream {id}: trailers that are not the end");
                self.refuse(id, Reason::PROTOCOL_ERROR)
            }
            Err(refused) => {
                tracing::debug!("stream {id}: {refused}");
                self.refuse(id, Reason::PROTOCOL_ERROR)
            }
        }
    }

    fn begin_request(&mut self, id: u32, ends: bool, section: &[u8]) -> Result<(), Reason> {
        self.last_stream = id;
        let mut headers = self.streams.spare.pop().unwrap_or_default();
        let head = request::read(section, &mut self.decoder, MAX_HEADER_LIST, &mut headers);
        let head = head.map_err(|error| {
            tracing::debug!("stream {id}: {error}");
            Reason::COMPRESSION_ERROR
        })?;
        if matches!(self.phase, Phase::Draining) {
            self.reset(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        if self.streams.len() >= MAX_STREAMS {
            return self.refuse(id, Reason::REFUSED_STREAM);
        }
        let head = match head {
            Ok(head) => head,
            Err(refused) => {
                tracing::debug!("stream {id}: {refused}");
                let status = match refused {
                    RequestError::Malformed(_) => return self.refuse(id, Reason::PROTOCOL_ERROR),
                    RequestError::InvalidPath => StatusCode::BAD_REQUEST,
                    RequestError::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                };
                return self.answer(id, ends, status);
            }
        };
        if ends && head.length.is_some_and(|length| length > 0) {
            tracing::debug!("stream {id}: no body where one was announced");
            return self.refuse(id, Reason::PROTOCOL_ERROR);
        }
        let window = self.initial_send_window;
        let stream = self.streams.open(id);
        stream.begin(id, head.request.method(), window);
        stream.receiving = !ends;
        stream.body_left = head.length;
        let connects = head.request.method() == Method::CONNECT;
        if !ends {
            let body = RecvBody::new(&stream.waker, head.length, head.expects_continue);
            if connects && head.protocol.is_none() {
                body.refuse();
            }
            stream.request_body = Some(body);
        }
        // The bytes of a tunnel are no body.
        let body = match &stream.request_body {
            Some(body) if !connects => RequestBody::from(Http2Body::of(body)),
            _ => RequestBody::empty(),
        };
        let mut request = head.request.map(|()| body);
        let mut extensions = self.session.client.extensions();
        if let Some(protocol) = head.protocol.as_ref().and_then(|value| value.to_str().ok()) {
            let (sender, on_upgrade) = upgrade::channel();
            extensions.insert(Protocol::from(protocol));
            extensions.insert(on_upgrade);
            stream.upgrade = Some(sender);
        }
        *request.extensions_mut() = extensions;
        let service = &mut self.session.service;
        let state = match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => State::AwaitResponse {
                response: service.call(request),
            },
            // The stream polls it again, with its own waker. The connection goes on with a clone, because
            // this one may hold a place in a queue.
            _ => {
                let fresh = service.clone();
                State::AwaitService {
                    service: std::mem::replace(service, fresh),
                    request: Some(Box::new(request)),
                }
            }
        };
        stream.state.set(state);
        stream.waker.notify();
        Ok(())
    }

    /// The client has ended a stream.
    pub(super) fn end_request(
        &mut self,
        id: u32,
        trailers: Option<HeaderMap>,
    ) -> Result<(), Reason> {
        let Some(stream) = self.streams.find(id) else {
            return Ok(());
        };
        // RFC 9113 §8.1.1
        if stream.body_left.is_some_and(|left| left > 0) {
            tracing::debug!("stream {id}: the body is shorter than its content-length");
            return self.refuse(id, Reason::PROTOCOL_ERROR);
        }
        stream.receiving = false;
        self.reset_budget.on_useful_frame();
        if let Some(body) = &stream.request_body {
            body.complete(trailers);
        }
        if matches!(*stream.state, State::EndStreamSent) {
            self.streams.close(id, "the response is complete");
        }
        Ok(())
    }

    /// Answers without the service.
    fn answer(&mut self, id: u32, ends: bool, status: StatusCode) -> Result<(), Reason> {
        let (none, content) = (HeaderMap::new(), Content::Bodiless);
        let frames = self.send.buf.buffer();
        self.send
            .writer
            .head(id, status, &none, content, true, frames);
        if !ends {
            self.send_reset(id, Reason::NO_ERROR);
        }
        self.count_reset()
    }
}
