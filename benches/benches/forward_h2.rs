//! GETs over HTTP/2 to an origin that answers 1 KiB, one at a time and 16 together: through
//! `MeshIngress`, and over one bare hyper connection as the floor.

mod common;

use std::net::SocketAddr;

use bytes::Bytes;
use common::{BoxError, current_thread, gateway, origin, read, request};
use criterion::{Criterion, Throughput};
use futures_util::future::try_join_all;
use http::header::HOST;
use http_body_util::Empty;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress::{MeshIngress, Protocol};
use tokio::net::TcpStream;

async fn through_the_mesh(gateway: &MeshIngress) -> Result<usize, BoxError> {
    let response = gateway.handle(request()?).await?;
    read(response.into_body()).await
}

async fn bare(mut connection: SendRequest<Empty<Bytes>>) -> Result<usize, BoxError> {
    let mut request = request()?;
    request.headers_mut().remove(HOST);
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    read(response.into_body()).await
}

async fn connect(origin: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, BoxError> {
    let stream = TcpStream::connect(origin).await?;
    stream.set_nodelay(true)?;
    let (connection, driver) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    Ok(connection)
}

fn benches(criterion: &mut Criterion) -> Result<(), BoxError> {
    let (_origin_runtime, origin) = origin()?;
    let runtime = current_thread()?;
    let mut group = criterion.benchmark_group("forward_h2");
    let mesh = {
        let _in_runtime = runtime.enter();
        gateway(origin.addr(), Protocol::Http2)?
    };
    runtime.block_on(through_the_mesh(&mesh))?;
    let connection = runtime.block_on(connect(origin.addr()))?;
    runtime.block_on(bare(connection.clone()))?;
    for together in [1, 16_u64] {
        group.throughput(Throughput::Elements(together));
        group.bench_function(format!("mesh_ingress/{together}"), |bencher| {
            bencher.to_async(&runtime).iter(async || {
                let requests = (0..together).map(|_| through_the_mesh(&mesh));
                try_join_all(requests).await.is_ok()
            });
        });
        group.bench_function(format!("bare_hyper_connection/{together}"), |bencher| {
            bencher.to_async(&runtime).iter(async || {
                let requests = (0..together).map(|_| bare(connection.clone()));
                try_join_all(requests).await.is_ok()
            });
        });
    }
    group.finish();
    Ok(())
}

fn main() -> Result<(), BoxError> {
    let mut criterion = Criterion::default().configure_from_args();
    benches(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
