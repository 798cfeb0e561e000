//! A gateway inside an axum application: its own routes, and the mesh for all others.
//!
//! ```text
//! cargo run --example axum_gateway -- 127.0.0.1:8080
//! curl http://127.0.0.1:8080/healthz
//! curl -H 'Host: shop.example.com' http://127.0.0.1:8080/
//! ```
//!
//! In a cluster the Service `web` in the namespace `default` answers the second request. On a machine
//! without cluster DNS the response is a 503 with the error in `Proxy-Status`.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mesh_ingress::server::{Server, drain};
use mesh_ingress::{MeshIngress, Route};
use tower_http::ServiceBuilderExt as _;
use tower_http::request_id::MakeRequestUuid;
use tower_http::trace::TraceLayer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter("info,tower_http=debug")
        .init();
    let listen = std::env::args().nth(1);
    let listen = listen.as_deref().unwrap_or("127.0.0.1:8080").parse()?;

    let mesh = MeshIngress::builder()
        .route(
            Route::host("shop.example.com")
                .path_prefix("/")
                .to("web.default:80".parse()?),
        )
        .route(
            Route::host("shop.example.com")
                .path_prefix("/api")
                .to("api.default:http".parse()?),
        )
        .build()?;

    let middleware = tower::ServiceBuilder::new()
        .set_x_request_id(MakeRequestUuid)
        .layer(TraceLayer::new_for_http())
        .propagate_x_request_id();
    let app = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .fallback_service(mesh)
        .layer(middleware);

    let server = Server::bind(listen)?;
    println!("serving on {:?}", server.local_addrs());
    // The server tells the mesh the client's address, for `X-Forwarded-For`.
    server
        .serve(app)
        .with_graceful_shutdown(drain::when(
            tokio::signal::ctrl_c(),
            Duration::from_secs(30),
        ))
        .await?;
    Ok(())
}
