//! One GET at a time over loopback, to an origin that answers 1 KiB: through `MeshIngress`, and
//! over one bare hyper connection as the floor.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use http::{Request, header::HOST};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use mesh_ingress::{MeshIngress, Resolve, Route, ServiceRef, Upstream, Watch};
use mesh_ingress_testkit::{Behaviour, Origin};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

type BoxError = Box<dyn Error + Send + Sync>;

const BODY: u64 = 1024;

/// Every Service is at one address.
#[derive(Debug)]
struct At(SocketAddr);

impl Resolve for At {
    fn watch(&self, service: &ServiceRef) -> Watch {
        Watch::fixed(service.clone(), Upstream::new(self.0))
    }
}

fn gateway(origin: SocketAddr) -> Result<MeshIngress, BoxError> {
    Ok(MeshIngress::builder()
        .route(
            Route::host("shop.example.com")
                .path_prefix("/")
                .to("web.default:80".parse()?),
        )
        .resolver(At(origin))
        .build()?)
}

fn request() -> Result<Request<Empty<Bytes>>, http::Error> {
    Request::get("/cart")
        .header(HOST, "shop.example.com")
        .header("user-agent", "bench")
        .header("accept", "*/*")
        .body(Empty::new())
}

async fn through_the_mesh(gateway: &MeshIngress) -> Result<usize, BoxError> {
    let response = gateway.handle(request()?).await?;
    read(response.into_body()).await
}

async fn bare(connection: &mut SendRequest<Empty<Bytes>>) -> Result<usize, BoxError> {
    connection.ready().await?;
    let response = connection.send_request(request()?).await?;
    read(response.into_body()).await
}

async fn read<B>(body: B) -> Result<usize, BoxError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let length = body.collect().await.map_err(Into::into)?.to_bytes().len();
    match length as u64 {
        BODY => Ok(length),
        // An error page is faster than the real thing.
        other => Err(format!("the origin sent {other} octets").into()),
    }
}

async fn connect(origin: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, BoxError> {
    let stream = TcpStream::connect(origin).await?;
    stream.set_nodelay(true)?;
    let (connection, driver) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    Ok(connection)
}

/// The origin has a thread of its own, as it would have a machine of its own.
fn origin() -> Result<(Runtime, Origin), BoxError> {
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

fn benches(criterion: &mut Criterion) -> Result<(), BoxError> {
    let (_origin_runtime, origin) = origin()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut group = criterion.benchmark_group("forward_h1");
    group.throughput(Throughput::Elements(1));

    let mesh = {
        let _in_runtime = runtime.enter();
        gateway(origin.addr())?
    };
    runtime.block_on(through_the_mesh(&mesh))?;
    group.bench_function("mesh_ingress", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(async || through_the_mesh(&mesh).await.is_ok());
    });

    let connection = tokio::sync::Mutex::new(runtime.block_on(connect(origin.addr()))?);
    runtime.block_on(async { bare(&mut *connection.lock().await).await })?;
    group.bench_function("bare_hyper_connection", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(async || bare(&mut *connection.lock().await).await.is_ok());
    });
    group.finish();
    Ok(())
}

fn main() -> Result<(), BoxError> {
    let mut criterion = Criterion::default().configure_from_args();
    benches(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
