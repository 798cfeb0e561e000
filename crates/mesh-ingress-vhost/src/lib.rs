//! **upstream-vhost**: set the `Host` by which a service mesh routes.
//!
//! # Why
//!
//! An Istio sidecar picks the destination of HTTP traffic by service port and `Host`, and ignores
//! the address it was sent to. A gateway that forwards the public `Host`
//! (`shop.example.com`) names no service of the mesh: the request goes to the `PassthroughCluster` in
//! plaintext, without mTLS, routing or telemetry, and no error tells of it.
//!
//! [`UpstreamVhostLayer`] sets HTTP/1 `Host` and the URI's authority (the source of HTTP/2
//! `:authority`) together to the name of the service. ingress-nginx did this with the annotation
//! `nginx.ingress.kubernetes.io/upstream-vhost`, one value per Ingress; here it is one per backend.
//! [`rewrite_host`] is the function behind it, and the only place that rewrites `Host`.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, header::HOST};
//! use mesh_ingress_core::{ClusterDomain, ServiceRef};
//! use mesh_ingress_vhost::UpstreamVhostLayer;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let web: ServiceRef = "web.default:80".parse()?;
//! let upstream = service_fn(|request: Request<()>| async move {
//!     assert_eq!(request.headers()[HOST], "web.default.svc.cluster.local");
//!     assert_eq!(request.uri(), "http://web.default.svc.cluster.local/cart?id=7");
//!     Ok::<_, std::convert::Infallible>(Response::new(()))
//! });
//! let service = UpstreamVhostLayer::new(web.vhost(&ClusterDomain::default())).layer(upstream);
//!
//! let request = Request::get("/cart?id=7").header(HOST, "shop.example.com").body(())?;
//! service.oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Responses
//!
//! An upstream builds its absolute links with the `Host` it got: `Location:
//! http://web.default.svc.cluster.local/cart`. The layer remembers the public name that the client
//! used and restores it in `Location`, `Content-Location`, `Refresh`, `Link`, `Set-Cookie`
//! and `Access-Control-Allow-Origin`; [`restore()`] has the rules. Without layers, call it together with
//! [`rewrite_host`] and [`PublicIdentity`].
//!
//! # When to keep the public name
//!
//! [`UpstreamVhostLayer::preserve`] changes neither. That is safe where the mesh routes by
//! ClusterIP (Istio ambient, unnamed ports, Linkerd's transparent proxying of a ClusterIP, no mesh
//! at all) and needed by applications that build links from `Host`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod future;
mod identity;
mod internal_names;
mod layer;
mod restore;
mod rewrite;

pub use self::future::ResponseFuture;
pub use self::identity::PublicIdentity;
pub use self::layer::{UpstreamVhost, UpstreamVhostLayer};
pub use self::restore::restore;
pub use self::rewrite::rewrite_host;
