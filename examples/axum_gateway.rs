//! A gateway that is an axum application: routes of its own, and the mesh for everything else.
//!
//! ```text
//! cargo run --example axum_gateway -- 127.0.0.1:8080
//! curl http://127.0.0.1:8080/healthz
//! curl -H 'Host: shop.example.com' http://127.0.0.1:8080/
//! ```
//!
//! In a cluster the second one is answered by the Service `web` in the namespace `default`. On a
//! machine without cluster DNS it is a 503 that says so in `Proxy-Status`.

use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use mesh_ingress::{Downstream, MeshIngress, Route};
use tower_http::ServiceBuilderExt as _;
use tower_http::request_id::MakeRequestUuid;
use tower_http::trace::TraceLayer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter("info,tower_http=debug")
        .init();
    let listen = std::env::args().nth(1);
    let listen: SocketAddr = listen.as_deref().unwrap_or("127.0.0.1:8080").parse()?;

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

    let around = tower::ServiceBuilder::new()
        .set_x_request_id(MakeRequestUuid)
        .layer(TraceLayer::new_for_http())
        .propagate_x_request_id();
    let app = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .fallback_service(mesh)
        .layer(middleware::from_fn(tell_downstream))
        .layer(around);

    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("serving on {}", listener.local_addr()?);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app)
        .with_graceful_shutdown(async {
            // Where there is no signal to wait for, it serves until it is killed.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await?;
    Ok(())
}

/// Tells the mesh who the client is: without this nothing is claimed in `X-Forwarded-For`.
async fn tell_downstream(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    request.extensions_mut().insert(Downstream::new(peer));
    next.run(request).await
}
