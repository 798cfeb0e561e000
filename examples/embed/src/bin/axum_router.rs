//! An axum application served by the gateway's server.
//!
//! ```text
//! cargo run --manifest-path examples/embed/Cargo.toml --bin axum_router -- 127.0.0.1:8080
//! curl http://127.0.0.1:8080/connect-info
//! curl -H 'Host: shop.example.com' http://127.0.0.1:8080/
//! ```

use std::error::Error;
use std::time::Duration;

use mesh_ingress::server::{Server, drain};
use mesh_ingress::{MeshIngress, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::args().nth(1);
    let listen = listen.as_deref().unwrap_or("127.0.0.1:8080").parse()?;
    let web = Route::host("shop.example.com")
        .path_prefix("/")
        .to("web.default:80".parse()?);
    let mesh = MeshIngress::builder().route(web).build()?;
    let drain = drain::when(tokio::signal::ctrl_c(), Duration::from_secs(30));
    Server::bind(listen)?
        .serve(embed::router(mesh))
        .with_graceful_shutdown(drain)
        .await?;
    Ok(())
}
