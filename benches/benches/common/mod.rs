//! Shared by the benches of the upstream side.
// Each takes what it needs.
#![allow(dead_code)]

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::{BodyExt as _, Empty};
use mesh_ingress::{MeshIngress, Protocol, Resolve, Route, ServiceRef, Upstream, Watch};
use mesh_ingress_testkit::{Behaviour, Origin};
use tokio::runtime::{Builder, Runtime};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

const BODY: u64 = 1024;

/// Every Service is at one address.
#[derive(Debug)]
struct At(SocketAddr);

impl Resolve for At {
    fn watch(&self, service: &ServiceRef) -> Watch {
        Watch::fixed(service.clone(), Upstream::new(self.0))
    }
}

/// With one route, to an origin.
pub(crate) fn gateway(origin: SocketAddr, protocol: Protocol) -> Result<MeshIngress, BoxError> {
    let route = Route::host("shop.example.com")
        .path_prefix("/")
        .to("web.default:80".parse()?);
    Ok(MeshIngress::builder()
        .route(route.protocol(protocol))
        .resolver(At(origin))
        .build()?)
}

pub(crate) fn request() -> Result<Request<Empty<Bytes>>, http::Error> {
    Request::get("http://shop.example.com/cart")
        .header(HOST, "shop.example.com")
        .header("user-agent", "bench")
        .header("accept", "*/*")
        .body(Empty::new())
}

/// Reads a body to its end.
pub(crate) async fn read<B>(body: B) -> Result<usize, BoxError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let length = body.collect().await.map_err(Into::into)?.to_bytes().len();
    match length as u64 {
        BODY => Ok(length),
        // An error page is faster than the real thing.
        other => Err(format!("the origin sent {other} bytes").into()),
    }
}

/// An origin that has a thread of its own, as it would have a machine of its own.
pub(crate) fn origin() -> Result<(Runtime, Origin), BoxError> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let origin = Origin::builder()
        .record_requests(false)
        .behaviour(Behaviour::StreamBytes(BODY))
        .start();
    let origin = runtime.block_on(origin)?;
    Ok((runtime, origin))
}

/// The thread of what is measured.
pub(crate) fn current_thread() -> Result<Runtime, BoxError> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
