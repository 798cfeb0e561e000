//! Resolves Kubernetes Services to addresses, off the request path.
//!
//! To reach a Service as a mesh expects, a gateway connects to its ClusterIP: *service-upstream*.
//! Cluster DNS knows that address. This crate asks in the background, keeps the last good answer
//! through failures, and hands it to requests as an atomic snapshot:
//!
//! * [`ClusterDns`] resolves Services through cluster DNS (feature `hickory`, on by default);
//! * [`Watch`] is the address of one target: [`get`](Watch::get) is one atomic load;
//! * [`ServiceUpstreamLayer`] puts it into requests, for the forwarder to connect to;
//! * [`Resolve`] is the trait for a resolver of your own;
//! * [`AddressPolicy`] says which addresses an answer may hold.
//!
//! The crate's README lists, fault by fault, what requests see when name servers fail.
#![cfg_attr(
    feature = "hickory",
    doc = r#"
```no_run
# async fn example() -> Result<(), Box<dyn std::error::Error>> {
use http::{Request, Response};
use mesh_ingress_core::{Error, ServiceRef, Upstream};
use mesh_ingress_resolve::{ClusterDns, ServiceUpstreamLayer};
use tower::{ServiceBuilder, ServiceExt as _};

let dns = ClusterDns::from_system()?;
let web: ServiceRef = "web.default:80".parse()?;
let service = ServiceBuilder::new()
    .layer(ServiceUpstreamLayer::new(dns.watch(&web)))
    .service_fn(async |request: Request<()>| {
        // A forwarder connects to it.
        println!("{:?}", request.extensions().get::<Upstream>());
        Ok::<_, Error>(Response::new(()))
    });
service.oneshot(Request::new(())).await?;
# Ok(())
# }
```
"#
)]
#![cfg_attr(
    not(feature = "hickory"),
    doc = "\n\n[`ClusterDns`]: https://docs.rs/mesh-ingress-resolve"
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod changes;
mod error;
mod future;
mod layer;
mod policy;
mod ready;
mod resolve;
mod sender;
mod snapshot_cell;
mod spread;
mod watch;

#[cfg(feature = "hickory")]
mod dns;

// For the ranges of an `AddressPolicy`.
pub use ipnet::IpNet;

pub use self::changes::Changes;
#[cfg(feature = "hickory")]
pub use self::dns::{
    BuildError, ClusterDns, ClusterDnsBuilder, Counters, ExternalNames, Headless, IpFamilies,
    TargetState,
};
pub use self::error::ResolveError;
pub use self::future::ResponseFuture;
pub use self::layer::{ServiceUpstream, ServiceUpstreamLayer};
pub use self::policy::AddressPolicy;
pub use self::ready::Ready;
pub use self::resolve::Resolve;
pub use self::sender::WatchSender;
pub use self::spread::{Balance, InFlight};
pub use self::watch::{Revision, Watch};

/// Runs the example of the README.
#[cfg(all(doctest, feature = "hickory"))]
#[doc = include_str!("../README.md")]
struct Readme;
