//! The library on another server: hyper's, on Tokio's work-stealing runtime, where the binary has a
//! runtime a worker. What that choice costs.

use std::net::SocketAddr;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use mesh_ingress::{Downstream, Mesh, MeshIngress, Resolve, Route, ServiceRef, Upstream, Watch};

use crate::{BoxError, Settings};

/// Every Service is at one address: cluster DNS is asked in the background anyway.
#[derive(Debug)]
struct At(SocketAddr);

impl Resolve for At {
    fn watch(&self, service: &ServiceRef) -> Watch {
        Watch::fixed(service.clone(), Upstream::new(self.0))
    }
}

pub(crate) fn run(settings: Settings) -> Result<(), BoxError> {
    if settings.h2_origin {
        return Err("is not set up for an origin of HTTP/2".into());
    }
    let service: ServiceRef = "web.default:80".parse()?;
    let mesh = MeshIngress::builder()
        .route(Route::host("shop.example.com").path_prefix("/").to(service))
        .resolver(At(settings.origin))
        .mesh(Mesh::IstioSidecar)
        .verdict_extension(false)
        .build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.workers)
        .enable_all()
        .build()?;
    let listener = crate::listener(settings.listen)?;
    runtime.block_on(async move {
        // Not on the thread of `main`, which is no worker.
        tokio::spawn(accept(settings, mesh, listener)).await?
    })
}

async fn accept(
    settings: Settings,
    mesh: MeshIngress,
    listener: std::net::TcpListener,
) -> Result<(), BoxError> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut http1 = http1::Builder::new();
    http1.max_buf_size(416 * 1024);
    let http2 = http2::Builder::new(TokioExecutor::new());
    loop {
        let (stream, peer) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let downstream = Downstream::new(peer).listener_port(settings.listen.port());
        let service = TowerToHyperService::new(mesh.for_connection(&downstream));
        let io = TokioIo::new(stream);
        if settings.h2 {
            tokio::spawn(http2.serve_connection(io, service));
        } else {
            tokio::spawn(http1.serve_connection(io, service));
        }
    }
}
