//! One GET at a time over loopback, to an origin that answers 1 KiB: through `MeshIngress`, and
//! over one bare hyper connection as the floor.

mod common;

use std::net::SocketAddr;

use bytes::Bytes;
use common::{BoxError, current_thread, gateway, origin, read, request};
use criterion::{Criterion, Throughput};
use http::Uri;
use http_body_util::Empty;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use mesh_ingress::{MeshIngress, Protocol};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

async fn through_the_mesh(gateway: &MeshIngress) -> Result<usize, BoxError> {
    let mut request = request()?;
    *request.uri_mut() = Uri::from_static("/cart");
    let response = gateway.handle(request).await?;
    read(response.into_body()).await
}

async fn bare(connection: &mut SendRequest<Empty<Bytes>>) -> Result<usize, BoxError> {
    let mut request = request()?;
    *request.uri_mut() = Uri::from_static("/cart");
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    read(response.into_body()).await
}

async fn connect(origin: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, BoxError> {
    let stream = TcpStream::connect(origin).await?;
    stream.set_nodelay(true)?;
    let (connection, driver) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    Ok(connection)
}

fn benches(criterion: &mut Criterion) -> Result<(), BoxError> {
    let (_origin_runtime, origin) = origin()?;
    let runtime = current_thread()?;
    let mut group = criterion.benchmark_group("forward_h1");
    group.throughput(Throughput::Elements(1));

    let mesh = {
        let _in_runtime = runtime.enter();
        gateway(origin.addr(), Protocol::Http1)?
    };
    runtime.block_on(through_the_mesh(&mesh))?;
    group.bench_function("mesh_ingress", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(async || through_the_mesh(&mesh).await.is_ok());
    });

    let connection = Mutex::new(runtime.block_on(connect(origin.addr()))?);
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
