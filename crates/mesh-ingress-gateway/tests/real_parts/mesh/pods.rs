//! Pods with small servers of our own: HTTP/1.1 and h2c, WebSocket, trailers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use http::{HeaderMap, HeaderValue, Response};
use mesh_ingress::Body;
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
    slow_requests: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pods {
    pub(crate) fn start(node: &Host, services: &[Service]) -> Self {
        let (slow, slow_requests) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
        let answer_slowly = {
            let (slow, slow_requests) = (slow.clone(), slow_requests.clone());
            Behaviour::handler(move |_| {
                slow_requests.fetch_add(1, Ordering::Relaxed);
                let slow = slow.clone();
                async move {
                    slow.opened().await;
                    Response::new(Body::from("at last\n"))
                }
            })
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let pod = Origin::builder()
            .record_requests(false)
            .at(WEBSOCKET, Behaviour::UpgradeEcho)
            .at(GRPC, Behaviour::Trailers(trailers))
            .at(SLOW, answer_slowly);
        let mut servers = Vec::new();
        for service in services {
            let pod = pod.clone().name(service.full_name());
            servers.extend(service.endpoints().map(|addr| (pod.clone(), addr)));
        }

        let (stop, stopped) = oneshot::channel();
        let (tell, started) = mpsc::channel();
        let enter = node.entrance();
        let thread = thread::spawn(move || {
            enter();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async move {
                let mut origins = Vec::new();
                for (pod, addr) in servers {
                    origins.push(pod.bind(addr).await.expect("a pod's address"));
                }
                tell.send(()).expect("the test");
                // Ends when the other end is dropped, too.
                drop(stopped.await);
            });
        });
        started.recv().expect("all pods listen");
        Self {
            slow,
            slow_requests,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// How many requests for [`SLOW`] there have been.
    pub(crate) fn slow_requests(&self) -> usize {
        self.slow_requests.load(Ordering::Relaxed)
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
