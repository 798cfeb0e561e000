//! The layers composed by hand around a tower service, instead of the facade.
//!
//! Runs against a name server and an origin in this process, prints the requests that arrive, and
//! ends. The facade adds routes, forwarded headers, edge hygiene, and errors as responses.
//!
//! ```text
//! cargo run --example layers
//! ```

use std::error::Error;

use http::{Request, header::HOST};
use http_body_util::BodyExt as _;
use mesh_ingress::{
    AddressPolicy, Body, ClusterDns, ClusterDomain, Forwarder, ServiceRef, ServiceUpstreamLayer,
    UpstreamVhostLayer,
};
use mesh_ingress_testkit::{DnsServer, VipRouter};
use tower::{ServiceBuilder, ServiceExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let domain = ClusterDomain::default();
    let web: ServiceRef = "web.default:http".parse()?;

    // The cluster: a pod, a mesh that picks it by ClusterIP and port, and cluster DNS.
    let pod = mesh_ingress_testkit::Origin::start().await?;
    let mesh = VipRouter::new();
    let vip = mesh
        .add_service(&web, "127.0.0.1:0".parse()?, pod.addr())
        .await?;
    let cluster_dns = DnsServer::start().await?;
    cluster_dns.add_service_port(&web, &domain, vip.ip(), vip.port());

    // In a cluster this is `ClusterDns::from_system()?`. Here the ClusterIP is a loopback address,
    // which has to be allowed.
    let dns = ClusterDns::builder()
        .nameserver(cluster_dns.addr())
        .address_policy(AddressPolicy::default().allow("127.0.0.0/8".parse()?))
        .build()?;

    // Outermost first: set the Service's name, find its address, send the request there.
    let svc = ServiceBuilder::new()
        .layer(UpstreamVhostLayer::new(web.vhost(&domain)))
        .layer(ServiceUpstreamLayer::new(dns.watch(&web)))
        .service(Forwarder::builder().build());

    for path in ["/first", "/second"] {
        let request = Request::get(path)
            .header(HOST, "shop.example.com")
            .header("connection", "x-hop")
            .header("x-hop", "not for the pod")
            .body(Body::empty())?;
        let response = svc.clone().oneshot(request).await?;
        println!("{}", response.status());
        let body = response.into_body().collect().await?.to_bytes();
        for line in String::from_utf8_lossy(&body).lines() {
            println!("    {line}");
        }
    }
    println!(
        "through the mesh: {}, bypassing it: {}, connections to the ClusterIP: {}",
        mesh.meshed(&web),
        pod.bypassed(),
        mesh.connections(&web),
    );

    // Errors stay typed here: code that composes layers decides how to answer them.
    mesh.remove_service(&web);
    let request = Request::get("/third").body(Body::empty())?;
    if let Err(error) = svc.clone().oneshot(request).await {
        println!("without the mesh: {} ({})", error.report(), error.kind());
    }
    Ok(())
}
