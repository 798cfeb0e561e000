//! A gateway with graceful shutdown, in 14 lines.
//!
//! ```text
//! cargo run --manifest-path examples/embed/Cargo.toml -- 127.0.0.1:8080
//! curl -H 'Host: shop.example.com' http://127.0.0.1:8080/
//! ```

use mesh_ingress::server::{Server, drain};
use mesh_ingress::{MeshIngress, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let web: Route = "shop.example.com/=web.default:80".parse()?;
    let mesh = MeshIngress::builder().route(web).build()?;
    let drain = drain::when(tokio::signal::ctrl_c(), std::time::Duration::from_secs(30));
    Server::bind(listen.parse()?)?
        .serve(mesh)
        .with_graceful_shutdown(drain)
        .await?;
    Ok(())
}
