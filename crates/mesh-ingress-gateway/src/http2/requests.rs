//! Requests as they come, and as they end.

use http::{HeaderMap, Method, Request, StatusCode};
use hyper::ext::Protocol;
use mesh_ingress_http2::Reason;
use mesh_ingress_http2::request::{self, RequestError};
use mesh_ingress_http2::response::Content;
use mesh_ingress_io::upgrade;

use super::MAX_STREAMS;
use super::connection::{Connection, Phase};
use super::stream::State;
use super::upload::{RequestBody, Upload};
use crate::http1::LIMITS;

impl Connection {
    /// A field section: a request begins, or ends with trailers.
    pub(super) fn section(&mut self, id: u32, ends: bool, section: &[u8]) -> Result<(), Reason> {
        if id > self.last {
            return self.begin_request(id, ends, section);
        }
        // Even if nobody wants it, the next one may refer to it.
        let trailers = request::read_trailers(section, &mut self.decoder, LIMITS.bytes);
        let trailers = trailers.map_err(|error| {
            tracing::debug!("stream {id}: {error}");
            Reason::COMPRESSION_ERROR
        })?;
        match self.streams.find(id) {
            Some(slot) if !slot.receiving => return self.refuse(id, Reason::STREAM_CLOSED),
            Some(_) => {}
            None if self.reset.contains(&id) => return Ok(()),
            None => return Err(Reason::STREAM_CLOSED),
        }
        match trailers {
            Ok(trailers) if ends => self.end_of_request(id, Some(trailers)),
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
        self.last = id;
        let mut headers = self.streams.spare.pop().unwrap_or_default();
        let head = request::read(section, &mut self.decoder, LIMITS.bytes, &mut headers);
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
        // A body that is not there has no octets.
        if ends && head.length.is_some_and(|length| length > 0) {
            tracing::debug!("stream {id}: no body where one was announced");
            return self.refuse(id, Reason::PROTOCOL_ERROR);
        }
        let window = self.initial_window;
        let slot = self.streams.open(id);
        slot.take(id, head.request.method(), window);
        slot.receiving = !ends;
        slot.left = head.length;
        let connects = head.request.method() == Method::CONNECT;
        if !ends {
            let upload = Upload::new(&slot.bell, head.length, head.expects_continue);
            if connects && head.protocol.is_none() {
                upload.refuse();
            }
            slot.upload = Some(upload);
        }
        // What a tunnel carries is no body.
        let body = match &slot.upload {
            Some(upload) if !connects => RequestBody::of(upload),
            _ => RequestBody::none(),
        };
        let mut request: Request<_> = head.request.map(|()| body);
        if let Some(protocol) = head.protocol.as_ref().and_then(|value| value.to_str().ok()) {
            let (switch, on_switch) = upgrade::channel();
            let extensions = request.extensions_mut();
            extensions.insert(Protocol::from(protocol));
            extensions.insert(on_switch);
            slot.switch = Some(switch);
        }
        let response = self.mesh.handle(request);
        slot.state.set(State::Answering { response });
        slot.bell.ring();
        Ok(())
    }

    /// The client has said all it had to say.
    pub(super) fn end_of_request(
        &mut self,
        id: u32,
        trailers: Option<HeaderMap>,
    ) -> Result<(), Reason> {
        let Some(slot) = self.streams.find(id) else {
            return Ok(());
        };
        // RFC 9113 §8.1.1
        if slot.left.is_some_and(|left| left > 0) {
            tracing::debug!("stream {id}: the body is shorter than it was said to be");
            return self.refuse(id, Reason::PROTOCOL_ERROR);
        }
        slot.receiving = false;
        self.flood.useful();
        if let Some(upload) = &slot.upload {
            upload.complete(trailers);
        }
        if matches!(*slot.state, State::Over) {
            self.streams.close(id, "the response is complete");
        }
        Ok(())
    }

    /// Answers what is no request for the gateway.
    fn answer(&mut self, id: u32, ends: bool, status: StatusCode) -> Result<(), Reason> {
        let (none, content) = (HeaderMap::new(), Content::Bodiless);
        let frames = self.out.outbox.buffer();
        self.out
            .writer
            .head(id, status, &none, content, true, frames);
        if !ends {
            self.tell_reset(id, Reason::NO_ERROR);
        }
        self.spoilt()
    }
}
