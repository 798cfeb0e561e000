//! The library embedded in a small program, for settings the gateway's command line lacks.

use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use mesh_ingress::{Backend, ClusterDns, Downstream, MeshIngress, MeshIngressBuilder, Route};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::service::{PortKind, Service};
use super::{DNS, api, legacy, orders, shop_api, web};
use crate::lab::{Gateway, WAIT_TIMEOUT};

/// A running gateway of one thread, on the address of [`Gateway`]; ends when dropped.
pub(crate) struct Embedded {
    mesh: MeshIngress,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A route for everything of a host, with what the service's port speaks.
pub(crate) fn route(host: &'static str, service: &Service) -> Route {
    Route::host(host)
        .path_prefix("/")
        .to_backend(backend(service))
}

fn backend(service: &Service) -> Backend {
    let backend = Backend::new(service.reference().parse().expect("a service reference"));
    match service.kind {
        PortKind::Grpc => backend.protocol(mesh_ingress::Protocol::Http2),
        _ => backend,
    }
}

/// The resolver of this lab.
pub(crate) fn cluster_dns() -> ClusterDns {
    let server: SocketAddr = DNS.parse().expect("an address");
    ClusterDns::builder()
        .nameserver(server)
        .build()
        .expect("a resolver")
}

/// A gateway with a host for each service, found through cluster DNS.
pub(crate) fn builder() -> MeshIngressBuilder {
    MeshIngress::builder().resolver(cluster_dns()).routes([
        route("shop.example.com", &web()),
        route("api.example.com", &api()),
        route("api.shop.example.com", &shop_api()),
        route("orders.example.com", &orders()),
        route("legacy.example.com", &legacy()),
    ])
}

impl Embedded {
    /// Starts one. The closure is called within its runtime.
    pub(crate) fn start(build: impl FnOnce() -> MeshIngress + Send + 'static) -> Self {
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (tell, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async move {
                let mesh = build();
                let listener = TcpListener::bind(Gateway::ADDR)
                    .await
                    .expect("the gateway's address");
                tell.send((mesh.clone(), Handle::current()))
                    .expect("the test");
                loop {
                    tokio::select! {
                        accepted = listener.accept() => {
                            let (stream, peer) = accepted.expect("a connection");
                            stream.set_nodelay(true).expect("a socket option");
                            let connection = mesh.for_connection(&Downstream::new(peer));
                            let service = TowerToHyperService::new(connection);
                            tokio::spawn(async move {
                                let server = auto::Builder::new(TokioExecutor::new());
                                let io = TokioIo::new(stream);
                                drop(server.serve_connection_with_upgrades(io, service).await);
                            });
                        }
                        _ = &mut stopped => {
                            // A process that another test is about to start may have a copy of it
                            // for a moment, and the next gateway has the same address.
                            let listener = socket2::SockRef::from(&listener);
                            listener.shutdown(Shutdown::Both).expect("a listener");
                            return;
                        }
                    }
                }
            });
        });
        let (mesh, runtime) = started.recv().expect("the gateway starts");
        Self {
            mesh,
            runtime,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Embedded {
    /// Asks the gateway something, on its own thread.
    pub(crate) fn ask<F, T>(&self, question: impl FnOnce(MeshIngress) -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let (tell, told) = mpsc::channel();
        let asked = question(self.mesh.clone());
        self.runtime.spawn(async move { tell.send(asked.await) });
        told.recv_timeout(WAIT_TIMEOUT).expect("an answer")
    }

    pub(crate) fn mesh(&self) -> &MeshIngress {
        &self.mesh
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
