//! The rules as tower layers, for stacks composed by hand.
//!
//! Each only calls the pure function it names. The order is this, the first one outermost:
//!
//! ```
//! # use http::{Request, Response};
//! # use mesh_ingress_core::{BoxError, Downstream};
//! use mesh_ingress_headers::layer::{EdgeHygieneLayer, ForwardedLayer, HopByHopLayer};
//! use mesh_ingress_headers::{EdgeHygiene, ForwardedPolicy, TrustedPeers};
//! use tower_layer::Layer;
//! # use tower_service::Service;
//! # #[derive(Clone)] struct Upstream;
//! # impl Service<Request<()>> for Upstream {
//! #     type Response = Response<()>;
//! #     type Error = BoxError;
//! #     type Future = std::future::Ready<Result<Response<()>, BoxError>>;
//! #     fn poll_ready(&mut self, _: &mut std::task::Context<'_>)
//! #         -> std::task::Poll<Result<(), BoxError>> { Ok(()).into() }
//! #     fn call(&mut self, request: Request<()>) -> Self::Future {
//! #         std::future::ready(Ok(Response::new(())))
//! #     }
//! # }
//! # let upstream = Upstream;
//!
//! let trusted = TrustedPeers::parse(["10.0.0.0/8"])?;
//! let forwarded = ForwardedPolicy::builder().trusted(trusted.clone()).build()?;
//! let stack = (
//!     HopByHopLayer::new(),
//!     EdgeHygieneLayer::new(EdgeHygiene::default(), trusted),
//!     ForwardedLayer::new(forwarded),
//! );
//! let service = stack.0.layer(stack.1.layer(stack.2.layer(upstream)));
//! # let _ = service;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! They take the client from a [`Client`] in the request's extensions, or else from a [`Downstream`],
//! whose address is then formatted for each request. Without either the client is unknown: it is not
//! trusted, and no fields about it are written.
//!
//! A service whose requests may be refused must have an error type that converts from a
//! [`mesh_ingress_core::Error`]: that type itself, or a
//! [`BoxError`](mesh_ingress_core::BoxError).

mod edge;
mod forwarded;
mod future;
mod hop_by_hop;

use http::Extensions;
use mesh_ingress_core::Downstream;

pub use self::edge::{EdgeHygieneLayer, EdgeHygieneService};
pub use self::forwarded::{ForwardedLayer, ForwardedService};
pub use self::future::{HopByHopFuture, ResponseFuture};
pub use self::hop_by_hop::{HopByHopLayer, HopByHopService};
use crate::Client;

/// The client of a request.
fn client(extensions: &Extensions) -> Client {
    if let Some(client) = extensions.get::<Client>() {
        return client.clone();
    }
    extensions
        .get::<Downstream>()
        .map_or_else(Client::unknown, Client::new)
}

macro_rules! inner_service {
    ($service:ident) => {
        impl<S> $service<S> {
            /// The service inside.
            pub fn get_ref(&self) -> &S {
                &self.inner
            }

            /// The service inside, mutably.
            pub fn get_mut(&mut self) -> &mut S {
                &mut self.inner
            }

            /// Unwraps the service inside.
            pub fn into_inner(self) -> S {
                self.inner
            }
        }
    };
}
use inner_service;
