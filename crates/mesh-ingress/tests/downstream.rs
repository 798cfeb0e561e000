//! The client's connection as a request extension: what is remembered of it, and what is not.
#![allow(clippy::unwrap_used)] // helpers of tests are tests, too

use std::net::SocketAddr;

use http::{Request, Response};
use mesh_ingress::headers::{ForwardedPolicy, TrustedPeers};
use mesh_ingress::{Body, Downstream, MeshIngress, Resolve, ResponseBody, Route, ServiceRef};
use mesh_ingress::{Upstream, Watch};
use mesh_ingress_testkit::Origin;

#[derive(Debug)]
struct At(SocketAddr);

impl Resolve for At {
    fn watch(&self, service: &ServiceRef) -> Watch {
        Watch::fixed(service.clone(), Upstream::new(self.0))
    }
}

fn mesh(origin: &Origin, trusted: &[&str]) -> MeshIngress {
    let trusted = TrustedPeers::new(trusted.iter().map(|cidr| cidr.parse().unwrap()));
    let forwarded = ForwardedPolicy::builder().trusted(trusted).build().unwrap();
    MeshIngress::builder()
        .route(Route::any_host().to("web.default:80".parse().unwrap()))
        .resolver(At(origin.addr()))
        .forwarded(forwarded)
        .build()
        .unwrap()
}

fn request(client: &Downstream) -> Request<Body> {
    Request::get("/")
        .header("host", "shop.example.com")
        .header("x-forwarded-for", "198.51.100.9")
        .extension(client.clone())
        .body(Body::empty())
        .unwrap()
}

async fn send(mesh: &MeshIngress, request: Request<Body>) -> Response<ResponseBody> {
    mesh.handle(request).await.unwrap()
}

/// What the origin was told by the last request, which it has answered.
fn forwarded_for(origin: &Origin) -> String {
    let requests = origin.requests();
    let values = requests.last().unwrap().headers.get_all("x-forwarded-for");
    let values: Vec<_> = values.iter().map(|it| it.to_str().unwrap()).collect();
    values.join(", ")
}

fn client(address: &str) -> Downstream {
    Downstream::new(format!("{address}:51000").parse().unwrap())
}

#[tokio::test]
async fn the_response_carries_the_extension_of_the_request() {
    let origin = Origin::start().await.unwrap();
    let mesh = mesh(&origin, &[]);
    let client = client("203.0.113.7");
    for _ in 0..3 {
        let response = send(&mesh, request(&client)).await;
        let carried = response.extensions().get::<Downstream>();
        assert!(carried.unwrap().is_same(&client));
    }
    let not_routed = Request::get("/").extension(client.clone());
    let response = send(&mesh, not_routed.body(Body::empty()).unwrap()).await;
    assert!(!response.status().is_success(), "no Host");
    assert!(response.extensions().get::<Downstream>().is_some());
}

#[tokio::test]
async fn each_connection_is_told_of_its_own_client() {
    let origin = Origin::start().await.unwrap();
    let mesh = mesh(&origin, &[]);
    let clients = ["203.0.113.7", "203.0.113.8"];
    let connections = clients.map(client);
    for _ in 0..3 {
        for (address, connection) in clients.iter().zip(&connections) {
            send(&mesh, request(connection)).await;
            assert_eq!(forwarded_for(&origin), *address);
        }
    }
}

/// What one gateway has prepared must not be used by another with another policy.
#[tokio::test]
async fn two_gateways_on_a_connection_keep_their_policies() {
    let origin = Origin::start().await.unwrap();
    let (strict, trusting) = (mesh(&origin, &[]), mesh(&origin, &["203.0.113.0/24"]));
    let client = client("203.0.113.7");
    for _ in 0..3 {
        send(&strict, request(&client)).await;
        assert_eq!(forwarded_for(&origin), "203.0.113.7");
        send(&trusting, request(&client)).await;
        assert_eq!(forwarded_for(&origin), "198.51.100.9, 203.0.113.7");
    }
}

#[tokio::test]
async fn other_extensions_stay_with_the_request() {
    let origin = Origin::start().await.unwrap();
    let mesh = mesh(&origin, &[]);
    let client = client("203.0.113.7");
    for _ in 0..3 {
        let mut request = request(&client);
        request.extensions_mut().insert("of a layer in front");
        send(&mesh, request).await;
        assert_eq!(forwarded_for(&origin), "203.0.113.7");
        let mut request = self::request(&client);
        request.extensions_mut().clear();
        request.extensions_mut().insert("of a layer in front");
        send(&mesh, request).await;
        assert_eq!(forwarded_for(&origin), "");
    }
}
