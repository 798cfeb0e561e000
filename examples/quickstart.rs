//! Why a gateway needs both halves: the Service's own name *and* its ClusterIP.
//!
//! Starts two small meshes in this process, each with cluster DNS, a mesh router and a pod, and sends
//! the same request to each with four settings. All responses are 200, but only one setting is in the
//! mesh on both.
//!
//! ```text
//! cargo run --example quickstart
//! cargo run --example quickstart -- --serve    # then send requests with curl
//! ```

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use axum::Router;
use http::{Request, StatusCode, header::HOST};
use mesh_ingress::{
    AddressPolicy, Body, ClusterDns, ClusterDomain, MeshIngress, Resolve, Route, ServiceRef,
    Upstream, VhostPolicy, Watch,
};
use mesh_ingress_testkit::{DnsServer, HostRouter, Origin, Outcome, Verdict, VipRouter};

type BoxError = Box<dyn Error + Send + Sync>;

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const PUBLIC_HOST: &str = "shop.example.com";

/// Which `Host` the gateway sends, and to which address.
#[derive(Clone, Copy)]
struct Setting {
    name: &'static str,
    title: &'static str,
    vhost: bool,
    cluster_ip: bool,
    why: &'static str,
}

const SETTINGS: [Setting; 4] = [
    Setting {
        name: "both",
        title: "vhost + ClusterIP",
        vhost: true,
        cluster_ip: true,
        why: "each mesh gets what it routes by; the default of MeshIngress",
    },
    Setting {
        name: "no-vhost",
        title: "public Host + ClusterIP",
        vhost: false,
        cluster_ip: true,
        why: "a sidecar knows no Service of that name and passes it through: no mTLS, no policy",
    },
    Setting {
        name: "no-clusterip",
        title: "vhost + pod address",
        vhost: true,
        cluster_ip: false,
        why: "a pod is no Service: a sidecar passes it through, ambient skips the waypoint",
    },
    Setting {
        name: "neither",
        title: "public Host + pod address",
        vhost: false,
        cluster_ip: false,
        why: "the behaviour of most reverse proxies",
    },
];

/// A cluster of one Service and one pod, with a mesh that routes by `Host` or by ClusterIP.
struct Cluster {
    name: &'static str,
    routes_by: &'static str,
    dns: DnsServer,
    mesh: Mesh,
    pod: Origin,
}

enum Mesh {
    Sidecar(HostRouter),
    Ambient(VipRouter),
}

/// A custom resolver that returns a pod's address instead of the Service's. Don't do this.
#[derive(Debug)]
struct PodAddress(Upstream);

impl Resolve for PodAddress {
    fn watch(&self, service: &ServiceRef) -> Watch {
        Watch::fixed(service.clone(), self.0.clone())
    }
}

/// The outcome of one request.
struct Observed {
    status: StatusCode,
    host: String,
    path: &'static str,
}

impl Cluster {
    /// An Istio sidecar captures what goes to the ClusterIP, at a port that is named `http`.
    async fn sidecar(web: &ServiceRef) -> Result<Self, BoxError> {
        let pod = Origin::builder().name("pod-1").start().await?;
        let router = HostRouter::start_on(cluster_ip(1)).await?;
        let addr = router.addr();
        router.add_service(web, &ClusterDomain::default(), Some(addr.ip()), pod.addr());
        // Istio's ALLOW_ANY: a request for an unknown host goes to its original address, which
        // kube-proxy maps to the same pod.
        router.set_passthrough(Some(pod.addr()));
        let name = "sidecar";
        let routes_by = "Host";
        let mesh = Mesh::Sidecar(router);
        Self::with_dns(name, routes_by, web, addr, mesh, pod).await
    }

    /// Istio ambient routes by ClusterIP and port only.
    async fn ambient(web: &ServiceRef) -> Result<Self, BoxError> {
        let pod = Origin::builder().name("pod-2").start().await?;
        let router = VipRouter::new();
        let addr = router.add_service(web, cluster_ip(2), pod.addr()).await?;
        let name = "ambient";
        let routes_by = "ClusterIP:port";
        let mesh = Mesh::Ambient(router);
        Self::with_dns(name, routes_by, web, addr, mesh, pod).await
    }

    /// Adds cluster DNS, which has the ClusterIP of the Service and the number of its port.
    async fn with_dns(
        name: &'static str,
        routes_by: &'static str,
        web: &ServiceRef,
        cluster_ip: SocketAddr,
        mesh: Mesh,
        pod: Origin,
    ) -> Result<Self, BoxError> {
        let dns = DnsServer::start().await?;
        let domain = ClusterDomain::default();
        dns.add_service_port(web, &domain, cluster_ip.ip(), cluster_ip.port());
        Ok(Self {
            name,
            routes_by,
            dns,
            mesh,
            pod,
        })
    }

    /// A gateway in front of this cluster. In a real cluster `MeshIngress::builder().route(…).build()`
    /// is enough: the rest is for ClusterIPs on loopback, and for the wrong settings.
    fn gateway(&self, web: &ServiceRef, setting: Setting) -> Result<MeshIngress, BoxError> {
        let mut route = Route::host(PUBLIC_HOST).path_prefix("/").to(web.clone());
        if !setting.vhost {
            route = route.vhost(VhostPolicy::Preserve);
        }
        let builder = MeshIngress::builder().route(route);
        if !setting.cluster_ip {
            let pod = PodAddress(Upstream::new(self.pod.addr()));
            return Ok(builder.resolver(pod).build()?);
        }
        let dns = ClusterDns::builder()
            .nameserver(self.dns.addr())
            .address_policy(AddressPolicy::default().allow("127.0.0.0/8".parse()?))
            .build()?;
        Ok(builder.resolver(dns).build()?)
    }

    /// Sends the request, and reads what the mesh recorded and the pod received.
    async fn ask(&self, gateway: &MeshIngress) -> Result<Observed, BoxError> {
        self.mesh.clear_outcomes();
        self.pod.clear_requests();
        let request = Request::get("/cart")
            .header(HOST, PUBLIC_HOST)
            .body(Body::empty())?;
        let response = gateway.handle(request).await?;
        let received = self.pod.requests();
        let verdict = self.mesh.outcomes().first().map(|outcome| outcome.verdict);
        Ok(Observed {
            status: response.status(),
            host: received
                .first()
                .and_then(|received| received.host())
                .unwrap_or("-")
                .to_owned(),
            path: match (verdict, received.first()) {
                (Some(Verdict::Meshed), Some(received)) if received.mesh_router().is_some() => {
                    "meshed"
                }
                (Some(Verdict::Passthrough), _) => "PASSTHROUGH",
                (None, Some(_)) => "BYPASSED",
                _ => "not delivered",
            },
        })
    }
}

impl Mesh {
    fn outcomes(&self) -> Vec<Outcome> {
        match self {
            Self::Sidecar(router) => router.outcomes(),
            Self::Ambient(router) => router.outcomes(),
        }
    }

    fn clear_outcomes(&self) {
        match self {
            Self::Sidecar(router) => router.clear_outcomes(),
            Self::Ambient(router) => router.clear_outcomes(),
        }
    }
}

/// Loopback addresses serve as ClusterIPs; only Linux has more than one of them.
fn cluster_ip(number: u8) -> SocketAddr {
    let third = if cfg!(target_os = "linux") { number } else { 0 };
    let last = if cfg!(target_os = "linux") { 7 } else { 1 };
    SocketAddr::from(([127, 0, third, last], 0))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: a request with both halves was not meshed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all requests. Returns whether those with both halves were meshed.
async fn run() -> Result<bool, BoxError> {
    let web: ServiceRef = "web.default:http".parse()?;
    let clusters = [Cluster::sidecar(&web).await?, Cluster::ambient(&web).await?];

    println!(
        "GET http://{PUBLIC_HOST}/cart for the Service {web}, with four settings in two meshes:\n"
    );
    let names = clusters.each_ref().map(|c| format!("Istio {}", c.name));
    let picks = clusters
        .each_ref()
        .map(|c| format!("routes by {}", c.routes_by));
    row("the gateway sends", "the pod receives", &names);
    row("", "(Host)", &picks);
    println!("{}", "-".repeat(98));

    let mut all_meshed = true;
    let mut app = Router::new();
    for setting in SETTINGS {
        let mut cells = Vec::new();
        let mut host = String::new();
        for cluster in &clusters {
            let gateway = cluster.gateway(&web, setting)?;
            let observed = cluster.ask(&gateway).await?;
            all_meshed &= !(setting.vhost && setting.cluster_ip) || observed.path == "meshed";
            cells.push(format!("{} {}", observed.status.as_u16(), observed.path));
            host = observed.host;
            app = app.nest_service(&format!("/{}/{}", cluster.name, setting.name), gateway);
        }
        row(setting.title, &host, &cells);
    }

    println!("\nEvery response is a 200: no error tells which requests left the mesh. Why:");
    for setting in SETTINGS {
        println!("  {:<26} {}", setting.title, setting.why);
    }

    if std::env::args().any(|argument| argument == "--serve") {
        serve(app).await?;
    }
    Ok(all_meshed)
}

fn row(setting: &str, host: &str, cells: &[String]) {
    let cells: String = cells.iter().map(|cell| format!("{cell:<18}")).collect();
    println!("{}", format!("{setting:<27}{host:<31}{cells}").trim_end());
}

/// Serves all gateways, each under a path of its own, until Ctrl-C.
async fn serve(app: Router) -> Result<(), BoxError> {
    let listener = tokio::net::TcpListener::bind(LISTEN)
        .await
        .map_err(|error| format!("cannot listen on {LISTEN}: {error}"))?;
    println!("\nServing on {LISTEN}. The pod echoes what it received; x-mesh-router is there only");
    println!("if the request came through the mesh. Ctrl-C stops the server.\n");
    for plane in ["sidecar", "ambient"] {
        for setting in SETTINGS {
            let name = setting.name;
            println!("  curl -H 'Host: {PUBLIC_HOST}' http://{LISTEN}/{plane}/{name}/cart");
        }
    }
    let stop = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    Ok(axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await?)
}
