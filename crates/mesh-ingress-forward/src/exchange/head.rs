//! The head of a response: its checks, and its way to the client.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::CONTENT_LENGTH;
use http::{Extensions, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_ingress_core::Error;
use mesh_ingress_headers::{HeaderPresence, hop_by_hop};
use mesh_ingress_io::splice::Splice;

use super::{Exchange, PendingUpgrade, Reply, ResponseBody, grpc};
use crate::conn::{http1, http2};
use crate::error::ForwardError;
use crate::pool::{Http1Connection, Pool};

impl Exchange {
    pub(super) fn http1_head(
        &mut self,
        connection: Box<Http1Connection>,
        mut response: Response<()>,
    ) -> Reply {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch_http1(connection, response);
        }
        self.check_refusal(&response)?;
        if let Some(expectation) = &self.expectation {
            expectation.answered(response.status());
        }
        // An error closes the connection: it is in doubt where the response ends.
        let mut presence = HeaderPresence::of(response.headers());
        let version = response.version();
        let rules = &self.pool.settings.response_rules;
        rules.check_with(response.status(), version, response.headers(), &presence)?;
        if response.status() == StatusCode::NO_CONTENT {
            // A length of zero is harmless, and still not allowed (RFC 9110 §8.6).
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        hop_by_hop::strip_with(response.headers_mut(), &mut presence);
        // Versions are hop by hop: a proxy sends its own (RFC 9110 §2.5).
        *response.version_mut() = Version::HTTP_11;
        let pool = &self.pool;
        let stream = http1::ResponseStream::new(connection, Arc::clone(pool));
        if stream.is_spliceable() {
            advertise_splice(response.extensions_mut());
        }
        Ok(response.map(|()| {
            ResponseBody::http1(stream)
                .with_timeouts(pool, self.timeout.deadline)
                .with_header_presence(presence)
        }))
    }

    pub(super) fn http2_head(
        &mut self,
        mut response: Response<http2::ResponseStream<Pool>>,
    ) -> Reply {
        let mut presence = HeaderPresence::of(response.headers());
        let version = response.version();
        let rules = &self.pool.settings.response_rules;
        rules.check_with(response.status(), version, response.headers(), &presence)?;
        if let Some(upgraded) = response.extensions_mut().remove::<OnUpgrade>()
            && let Some(pending) = self.upgrade.take()
        {
            return self.switch_http2(*pending, upgraded, response);
        }
        self.check_refusal(&response)?;
        hop_by_hop::strip_with(response.headers_mut(), &mut presence);
        if self.flags.announce_trailers {
            grpc::announce_trailers(response.headers_mut());
        }
        Ok(response.map(|stream| {
            ResponseBody::http2(stream)
                .with_timeouts(&self.pool, self.timeout.deadline)
                .with_header_presence(presence)
        }))
    }

    /// Makes a tunnel of the connection.
    fn switch_http1(
        &mut self,
        connection: Box<Http1Connection>,
        mut response: Response<()>,
    ) -> Reply {
        let addr = self.pool.addr;
        let Some(pending) = self.upgrade.take() else {
            return Err(ForwardError::UnsolicitedUpgrade { addr }.into_error());
        };
        let PendingUpgrade { upgrade, shared } = *pending;
        upgrade.switched(addr, &mut response)?;
        let (stream, early, permit) = (*connection)
            .into_upgraded()
            .ok_or_else(|| ForwardError::UpgradeLost { addr }.into_error())?;
        shared.tunnels.open(upgrade.client, stream, early, permit);
        Ok(response.map(|()| ResponseBody::empty()))
    }

    /// Makes a tunnel of the stream.
    fn switch_http2(
        &mut self,
        pending: PendingUpgrade,
        upgraded: OnUpgrade,
        mut response: Response<http2::ResponseStream<Pool>>,
    ) -> Reply {
        // Ready already; without budget of its task it would still be pending.
        let stream = tokio::task::unconstrained(upgraded).now_or_never();
        let Some(Ok(stream)) = stream else {
            let addr = self.pool.addr;
            return Err(ForwardError::UpgradeLost { addr }.into_error());
        };
        let PendingUpgrade { upgrade, shared } = pending;
        upgrade.connected(&mut response);
        *response.version_mut() = Version::HTTP_11;
        // The empty body counts the stream until the tunnel ends.
        let (head, body) = response.into_parts();
        shared
            .tunnels
            .open(upgrade.client, TokioIo::new(stream), Bytes::new(), body);
        Ok(Response::from_parts(head, ResponseBody::empty()))
    }

    fn check_refusal<B>(&self, response: &Response<B>) -> Result<(), Error> {
        let Some(PendingUpgrade { upgrade, .. }) = self.upgrade.as_deref() else {
            return Ok(());
        };
        let addr = self.pool.addr;
        upgrade.check_refusal(addr, response.status(), response.version())
    }
}

/// Tells the server that the body can be spliced.
// Out of line: only large bodies can, and the allocation does not count beside them.
#[cold]
fn advertise_splice(extensions: &mut Extensions) {
    extensions.insert(Splice::<ResponseBody>::new());
}
