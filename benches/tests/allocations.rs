//! Allocations of one proxied GET on the thread that serves it: the server, the whole of
//! `MeshIngress` and the connection to the origin, which are one task. Held to `benches/gates.toml`.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use allocation_counter::measure;
use mesh_ingress::{Downstream, Mesh, MeshIngress, Resolve, Route, ServiceRef, Upstream, Watch};
use mesh_ingress_benches::{BoxError, recorded};
use mesh_ingress_server::ConnectionServer;

/// More than recorded is let through up to this share: less than one allocation a request.
const SLACK: f64 = 0.03;

const REQUEST: &[u8] = b"GET /cart?id=7 HTTP/1.1\r\nHost: shop.example.com\r\n\
    User-Agent: allocations\r\nAccept: */*\r\n\r\n";
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nServer: envoy\r\nX-Envoy-Upstream-Service-Time: 1\r\n\
    Content-Type: text/plain\r\nContent-Length: 1024\r\n\r\n";
const BODY: [u8; 1024] = [b'x'; 1024];

/// Every Service is at one address.
#[derive(Debug)]
struct At(SocketAddr);

impl Resolve for At {
    fn watch(&self, service: &ServiceRef) -> Watch {
        Watch::fixed(service.clone(), Upstream::new(self.0))
    }
}

fn read_head(stream: &mut TcpStream, head: &mut Vec<u8>) -> std::io::Result<bool> {
    head.clear();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(false),
            read => head.extend(buffer.iter().take(read)),
        }
    }
    Ok(true)
}

/// Answers all requests of the one connection it accepts, and says how many came.
fn origin(listener: TcpListener) -> JoinHandle<std::io::Result<usize>> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (answer, mut head, mut served) = ([HEAD, &BODY].concat(), Vec::new(), 0);
        while read_head(&mut stream, &mut head)? {
            assert!(
                head.windows(31)
                    .any(|name| name == b"web.default.svc.cluster.local\r\n")
            );
            stream.write_all(&answer)?;
            served += 1;
        }
        Ok(served)
    })
}

/// Sends so many requests on one connection, one after the other, and reads their answers.
fn client(to: SocketAddr, requests: usize) -> JoinHandle<std::io::Result<()>> {
    thread::spawn(move || {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        for _ in 0..requests {
            stream.write_all(REQUEST)?;
            answer.clear();
            while !answer.ends_with(&BODY) {
                match stream.read(&mut buffer)? {
                    0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    read => answer.extend(buffer.iter().take(read)),
                }
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        }
        Ok(())
    })
}

/// Allocations of the gateway's thread while it serves so many requests, and all around them.
fn allocations(requests: usize) -> Result<u64, BoxError> {
    let local = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (upstream, listener) = (local()?, local()?);
    let (service, front) = (upstream.local_addr()?, listener.local_addr()?);
    let origin = origin(upstream);
    let client = client(front, requests);
    let (stream, peer) = listener.accept()?;
    stream.set_nonblocking(true)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mesh = MeshIngress::builder()
        .route(
            Route::host("shop.example.com")
                .path_prefix("/")
                .to("web.default:80".parse()?),
        )
        .resolver(At(service))
        .mesh(Mesh::IstioSidecar)
        .verdict_extension(false)
        .build()?;
    let downstream = Downstream::new(peer).listener_port(front.port());
    let mut served = Ok(());
    let counted = measure(|| {
        served = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            ConnectionServer::new()
                .serve_connection(stream, downstream, mesh.clone())
                .await
        });
    });
    served?;
    client.join().map_err(|_| "the client panicked")??;
    // Closes what is pooled: the origin sees the end.
    drop((mesh, runtime));
    let came = origin.join().map_err(|_| "the origin panicked")??;
    assert_eq!(came, requests, "all on one connection to the origin");
    Ok(counted.count_total)
}

#[test]
fn a_get_allocates_no_more_than_recorded() -> Result<(), BoxError> {
    const FEW: usize = 100;
    const MANY: usize = 1100;
    // One-time allocations of the process happen now.
    allocations(FEW)?;
    let (few, many) = (allocations(FEW)?, allocations(MANY)?);
    let counted = many.saturating_sub(few) as f64 / (MANY - FEW) as f64;
    let recorded = recorded("allocations_per_get")?;
    println!("allocations_per_get: {counted:.2}, recorded {recorded}");
    assert!(
        counted <= recorded * (1.0 + SLACK),
        "a GET allocates {counted:.2} times, {recorded} are recorded in benches/gates.toml"
    );
    if counted < recorded * (1.0 - SLACK) {
        println!("well below: put {counted:.0} into benches/gates.toml, which keeps it there");
    }
    Ok(())
}
