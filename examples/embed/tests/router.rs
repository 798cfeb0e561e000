//! The router on a real socket, with an origin behind the mesh.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use mesh_ingress::server::drain::{self, DrainTrigger};
use mesh_ingress::server::{ServeError, Server};
use mesh_ingress::{MeshIngress, Resolve, Route, ServiceRef, Upstream, Watch};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Every Service is at one address.
#[derive(Debug)]
struct Fixed(SocketAddr);

impl Resolve for Fixed {
    fn watch(&self, service: &ServiceRef) -> Watch {
        Watch::fixed(service.clone(), Upstream::new(self.0))
    }
}

struct Served {
    addr: SocketAddr,
    trigger: DrainTrigger,
    ended: JoinHandle<Result<(), ServeError>>,
}

/// Serves on a free port.
fn serve(app: Router) -> Result<Served> {
    let server = Server::bind("127.0.0.1:0".parse()?)?;
    let addr = *server.local_addrs().first().ok_or("no address")?;
    let (trigger, watcher) = drain::channel();
    let serving = server.serve(app).with_graceful_shutdown(watcher);
    Ok(Served {
        addr,
        trigger,
        ended: tokio::spawn(serving.into_future()),
    })
}

/// The example's router, with the host `shop.example.com` at `origin`.
fn gateway(origin: SocketAddr) -> Result<Served> {
    let route = Route::host("shop.example.com").path_prefix("/");
    let mesh = MeshIngress::builder()
        .route(route.to("web.default:80".parse()?))
        .resolver(Fixed(origin))
        .build()?;
    serve(embed::router(mesh))
}

/// An origin that answers with the `Host` and `X-Forwarded-For` it got, on `/slow` when it is told to.
fn origin(under_way: Arc<Notify>, go_on: Arc<Notify>) -> Result<Served> {
    let slow = async move || {
        under_way.notify_one();
        go_on.notified().await;
        "slow but whole"
    };
    let echo = async |headers: HeaderMap| {
        let field = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (host, client) = (field("host"), field("x-forwarded-for"));
        format!("{} for {}", host.unwrap_or("-"), client.unwrap_or("-"))
    };
    serve(Router::new().route("/slow", get(slow)).fallback(echo))
}

/// The client's address, and the response.
async fn get_once(to: SocketAddr, host: &str, path: &str) -> Result<(SocketAddr, String)> {
    let mut stream = TcpStream::connect(to).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok((stream.local_addr()?, response))
}

#[tokio::test]
async fn both_extractors_give_the_address_of_the_client() -> Result<()> {
    let origin = origin(Arc::default(), Arc::default())?;
    let gateway = gateway(origin.addr)?;
    for path in ["/downstream", "/connect-info"] {
        let (client, response) = get_once(gateway.addr, "any.example.com", path).await?;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(
            response.ends_with(&format!("\r\n\r\n{client}")),
            "{response}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn other_paths_reach_the_service_with_its_own_name_as_host() -> Result<()> {
    let origin = origin(Arc::default(), Arc::default())?;
    let gateway = gateway(origin.addr)?;
    let (_, response) = get_once(gateway.addr, "shop.example.com", "/cart").await?;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    let body = "web.default.svc.cluster.local for 127.0.0.1";
    assert!(response.ends_with(body), "{response}");

    let (_, response) = get_once(gateway.addr, "other.example.com", "/cart").await?;
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    let told = response.to_ascii_lowercase().contains("\r\nproxy-status: ");
    assert!(told, "{response}");
    Ok(())
}

#[tokio::test]
async fn drain_finishes_the_request_under_way() -> Result<()> {
    let (under_way, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let origin = origin(Arc::clone(&under_way), Arc::clone(&go_on))?;
    let gateway = gateway(origin.addr)?;
    let request = get_once(gateway.addr, "shop.example.com", "/slow");
    let drained = async {
        under_way.notified().await;
        gateway.trigger.start();
        go_on.notify_one();
        gateway.trigger.drain(Duration::from_secs(10)).await
    };
    let (answered, in_time) = tokio::join!(request, drained);
    let (_, response) = answered?;
    assert!(response.ends_with("slow but whole"), "{response}");
    assert!(in_time);
    gateway.ended.await??;
    assert!(TcpStream::connect(gateway.addr).await.is_err());
    Ok(())
}
