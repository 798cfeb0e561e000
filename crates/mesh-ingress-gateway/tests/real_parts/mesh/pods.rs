//! Pods with small servers of our own: HTTP/1.1 and h2c, WebSocket, trailers.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use http::{HeaderMap, HeaderValue};
use mesh_ingress_testkit::{Behaviour, Gate, Origin};
use tokio::sync::oneshot;

use super::service::Service;
use crate::lab::Host;

/// Where a pod bridges WebSockets.
pub(crate) const WEBSOCKET: &str = "/ws";
/// Where a pod answers as a gRPC server does.
pub(crate) const GRPC: &str = "/orders.Orders/Place";
/// Where a pod answers only once it is allowed to.
pub(crate) const SLOW: &str = "/slow";

/// Servers on the node, which end when this is dropped.
pub(crate) struct Pods {
    slow: Gate,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pods {
    pub(crate) fn start(node: &Host, services: &[Service]) -> Self {
        let slow = Gate::new();
        let (stop, stopped) = oneshot::channel();
        let (tell, started) = mpsc::channel();
        let servers: Vec<_> = services
            .iter()
            .flat_map(|service| {
                let name = format!("{}.{}", service.name, service.namespace);
                service.endpoints().map(move |addr| (name.clone(), addr))
            })
            .collect();
        let gate = slow.clone();
        let enter = node.entrance();
        let thread = thread::spawn(move || {
            enter();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async move {
                let mut origins = Vec::new();
                for (name, addr) in servers {
                    origins.push(pod(name, &gate).bind(addr).await);
                }
                let origins: io::Result<Vec<Origin>> = origins.into_iter().collect();
                tell.send(origins.as_ref().map(drop).map_err(ToString::to_string))
                    .expect("the test");
                // Ends when the other end is dropped, too.
                drop(stopped.await);
            });
        });
        started
            .recv()
            .expect("the pods' thread")
            .expect("all pods listen");
        Self {
            slow,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Lets the requests for [`SLOW`] be answered.
    pub(crate) fn answer_slow_requests(&self) {
        self.slow.open();
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn pod(name: String, slow: &Gate) -> mesh_ingress_testkit::OriginBuilder {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Origin::builder()
        .name(name)
        .record_requests(false)
        .at(WEBSOCKET, Behaviour::UpgradeEcho)
        .at(GRPC, Behaviour::Trailers(trailers))
        .at(SLOW, Behaviour::Gated(slow.clone()))
}
