//! Why a gateway needs both halves: the Service's own name *and* its ClusterIP.
//!
//! Starts two small meshes in this process, each with cluster DNS, a mesh router and a pod, and
//! sends the same request through each in four ways. All of them are answered with 200; only one
//! way is in the mesh on both.
//!
//! ```text
//! cargo run --example quickstart
//! cargo run --example quickstart -- --serve    # and then ask with curl
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

/// What the gateway says and where it connects to.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    title: &'static str,
    vhost: bool,
    cluster_ip: bool,
    why: &'static str,
}

const WAYS: [Way; 4] = [
    Way {
        name: "both",
        title: "vhost + ClusterIP",
        vhost: true,
        cluster_ip: true,
        why: "each mesh finds what it picks by; what MeshIngress does unless told otherwise",
    },
    Way {
        name: "no-vhost",
        title: "public Host + ClusterIP",
        vhost: false,
        cluster_ip: true,
        why: "a sidecar knows no Service of that name and lets it out: no mTLS, no policy",
    },
    Way {
        name: "no-clusterip",
        title: "vhost + pod address",
        vhost: true,
        cluster_ip: false,
        why: "a pod is no Service: a sidecar lets it out, ambient skips the Service's waypoint",
    },
    Way {
        name: "neither",
        title: "public Host + pod address",
        vhost: false,
        cluster_ip: false,
        why: "what most reverse proxies do",
    },
];

/// A cluster of one Service and one pod, with a mesh that picks destinations in one of two ways.
struct Cluster {
    name: &'static str,
    picks_by: &'static str,
    dns: DnsServer,
    mesh: Mesh,
    pod: Origin,
}

enum Mesh {
    Sidecar(HostRouter),
    Ambient(VipRouter),
}

/// A resolver of one's own: the address of a pod instead of the Service's. Don't.
#[derive(Debug)]
struct PodAddress(Upstream);

impl Resolve for PodAddress {
    fn watch(&self, service: &ServiceRef) -> Watch {
        Watch::fixed(service.clone(), self.0.clone())
    }
}

/// What one request led to.
struct Seen {
    status: StatusCode,
    host: String,
    fate: &'static str,
}

impl Cluster {
    /// An Istio sidecar captures what goes to the ClusterIP, at a port that is named `http`.
    async fn sidecar(web: &ServiceRef) -> Result<Self, BoxError> {
        let pod = Origin::builder().name("pod-1").start().await?;
        let router = HostRouter::start_on(cluster_ip(1)).await?;
        let addr = router.addr();
        router.add_service(web, &ClusterDomain::default(), Some(addr.ip()), pod.addr());
        // Istio's ALLOW_ANY: what it does not know goes on to where it was meant to go, which
        // kube-proxy turns into the same pod.
        router.set_passthrough(Some(pod.addr()));
        let name = "sidecar";
        let picks_by = "Host";
        let mesh = Mesh::Sidecar(router);
        Self::named(name, picks_by, web, addr, mesh, pod).await
    }

    /// Istio ambient: the ClusterIP and port are all that counts.
    async fn ambient(web: &ServiceRef) -> Result<Self, BoxError> {
        let pod = Origin::builder().name("pod-2").start().await?;
        let router = VipRouter::new();
        let addr = router.add_service(web, cluster_ip(2), pod.addr()).await?;
        let name = "ambient";
        let picks_by = "ClusterIP:port";
        let mesh = Mesh::Ambient(router);
        Self::named(name, picks_by, web, addr, mesh, pod).await
    }

    /// Cluster DNS tells the ClusterIP of the Service and the number of its port.
    async fn named(
        name: &'static str,
        picks_by: &'static str,
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
            picks_by,
            dns,
            mesh,
            pod,
        })
    }

    /// A gateway in front of this cluster. In a real one, `MeshIngress::builder().route(…).build()`
    /// is all of it: the rest is for ClusterIPs on loopback, and for doing it wrong on purpose.
    fn gateway(&self, web: &ServiceRef, way: Way) -> Result<MeshIngress, BoxError> {
        let mut route = Route::host(PUBLIC_HOST).path_prefix("/").to(web.clone());
        if !way.vhost {
            route = route.vhost(VhostPolicy::Preserve);
        }
        let builder = MeshIngress::builder().route(route);
        if !way.cluster_ip {
            let pod = PodAddress(Upstream::new(self.pod.addr()));
            return Ok(builder.resolver(pod).build()?);
        }
        let dns = ClusterDns::builder()
            .nameserver(self.dns.addr())
            .address_policy(AddressPolicy::default().allow("127.0.0.0/8".parse()?))
            .build()?;
        Ok(builder.resolver(dns).build()?)
    }

    /// Sends the request and looks at what the mesh did with it, and at what the pod received.
    async fn ask(&self, gateway: &MeshIngress) -> Result<Seen, BoxError> {
        self.mesh.forget();
        self.pod.clear_requests();
        let request = Request::get("/cart")
            .header(HOST, PUBLIC_HOST)
            .body(Body::empty())?;
        let response = gateway.handle(request).await?;
        let received = self.pod.requests();
        let verdict = self.mesh.outcomes().first().map(|outcome| outcome.verdict);
        Ok(Seen {
            status: response.status(),
            host: received
                .first()
                .and_then(|received| received.host())
                .unwrap_or("-")
                .to_owned(),
            fate: match (verdict, received.first()) {
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

    fn forget(&self) {
        match self {
            Self::Sidecar(router) => router.clear_outcomes(),
            Self::Ambient(router) => router.clear_outcomes(),
        }
    }
}

/// Loopback addresses stand for ClusterIPs; only Linux has more than one of them.
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

/// Whether what should be meshed was.
async fn run() -> Result<bool, BoxError> {
    let web: ServiceRef = "web.default:http".parse()?;
    let clusters = [Cluster::sidecar(&web).await?, Cluster::ambient(&web).await?];

    println!(
        "GET http://{PUBLIC_HOST}/cart for the Service {web}, four ways through two meshes:\n"
    );
    let names = clusters.each_ref().map(|c| format!("Istio {}", c.name));
    let picks = clusters
        .each_ref()
        .map(|c| format!("picks by {}", c.picks_by));
    row("the gateway sends", "the pod is told", &names);
    row("", "(Host)", &picks);
    println!("{}", "-".repeat(98));

    let mut good = true;
    let mut app = Router::new();
    for way in WAYS {
        let mut cells = Vec::new();
        let mut host = String::new();
        for cluster in &clusters {
            let gateway = cluster.gateway(&web, way)?;
            let seen = cluster.ask(&gateway).await?;
            good &= !(way.vhost && way.cluster_ip) || seen.fate == "meshed";
            cells.push(format!("{} {}", seen.status.as_u16(), seen.fate));
            host = seen.host;
            app = app.nest_service(&format!("/{}/{}", cluster.name, way.name), gateway);
        }
        row(way.title, &host, &cells);
    }

    println!("\nEvery answer is a 200, so nobody would notice what left the mesh. Why:");
    for way in WAYS {
        println!("  {:<26} {}", way.title, way.why);
    }

    if std::env::args().any(|argument| argument == "--serve") {
        serve(app).await?;
    }
    Ok(good)
}

fn row(way: &str, host: &str, cells: &[String]) {
    let cells: String = cells.iter().map(|cell| format!("{cell:<18}")).collect();
    println!("{}", format!("{way:<27}{host:<31}{cells}").trim_end());
}

/// Serves all gateways side by side, each under a path of its own, until Ctrl-C.
async fn serve(app: Router) -> Result<(), BoxError> {
    let listener = tokio::net::TcpListener::bind(LISTEN)
        .await
        .map_err(|error| format!("cannot listen on {LISTEN}: {error}"))?;
    println!("\nServing on {LISTEN}. The pod echoes what it received; x-mesh-router is there only");
    println!("if the request came through the mesh. Ctrl-C ends it.\n");
    for plane in ["sidecar", "ambient"] {
        for way in WAYS {
            let name = way.name;
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
