//! The library in a program of its own, as its documentation shows: `embedded LISTEN DNS PORT WORKERS`.
//! Server, cluster DNS, settings and allocator are those of the binary, so what embedding costs is the
//! difference.

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use mesh_ingress::server::Server;
use mesh_ingress::{AddressPolicy, ClusterDns, Forwarder, Mesh, MeshIngress, Route};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("usage: LISTEN DNS PORT WORKERS");
    let (listen, dns): (SocketAddr, SocketAddr) = (next()?.parse()?, next()?.parse()?);
    let service = format!("web.default:{}", next()?).parse()?;
    let workers: NonZeroUsize = next()?.parse()?;

    let dns = ClusterDns::builder()
        .nameserver(dns)
        .address_policy(AddressPolicy::default().allow("127.0.0.0/8".parse()?))
        .build()?;
    let forwarder = Forwarder::builder()
        .connect_retry(Duration::from_secs(2))
        .shards(workers)
        .build();
    let mesh = MeshIngress::builder()
        .route(Route::host("shop.example.com").path_prefix("/").to(service))
        .resolver(dns)
        .forwarder(forwarder)
        .mesh(Mesh::IstioSidecar)
        .verdict_extension(false)
        .build()?;
    // One worker is the runtime of `main`, as in the binary.
    let threads = Some(workers).filter(|workers| workers.get() > 1);
    let server = Server::builder().workers(threads).listen(listen).bind()?;
    Ok(server.serve(mesh).await?)
}
