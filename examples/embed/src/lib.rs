//! An axum application that leaves to the mesh what its own routes do not match.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request};
use axum::middleware::map_request;
use axum::routing::get;
use axum::{Extension, Router};
use mesh_ingress::{Downstream, MeshIngress};

/// The application. Two of its routes answer with the client's address.
pub fn router(mesh: MeshIngress) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        // The server's own extension.
        .route(
            "/downstream",
            get(async |Extension(client): Extension<Downstream>| client.peer.to_string()),
        )
        // axum's extractor, by the layer below.
        .route(
            "/connect-info",
            get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()),
        )
        // On these routes only: the mesh reads `Downstream`.
        .route_layer(map_request(
            async |Extension(client): Extension<Downstream>, mut request: Request| {
                request.extensions_mut().insert(ConnectInfo(client.peer));
                request
            },
        ))
        .fallback_service(mesh)
}
