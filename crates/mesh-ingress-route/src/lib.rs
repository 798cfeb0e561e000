//! The route table of [mesh-ingress](https://docs.rs/mesh-ingress): maps requests to Services. Pure
//! data and pure functions: no runtime, no sockets, no clock.
//!
//! Kubernetes has two models of HTTP routing, with the same terms and different rules. This table
//! serves both:
//!
//! | | Ingress (`networking.k8s.io/v1`) | Gateway API (`HTTPRoute`) |
//! |---|---|---|
//! | host `*.example.com` | covers one label ([`WildcardScope::OneLabel`], the default) | covers one or more ([`WildcardScope::ManyLabels`]) |
//! | path | Exact, Prefix, ImplementationSpecific | Exact, PathPrefix, RegularExpression |
//! | conditions | none (ingress-nginx canaries have headers) | method, headers, query parameters |
//!
//! # Precedence
//!
//! Of all routes that match a request, the first in this order wins:
//!
//! 1. host: exact, then the longest wildcard, then any host;
//! 2. path: [exact](Route::path_exact), then the longest [prefix](Route::path_prefix), then regular
//!    expressions in the given order;
//! 3. a route with a method before one without;
//! 4. the larger number of header conditions;
//! 5. the larger number of query conditions;
//! 6. the route given first.
//!
//! That is the order of the
//! [Gateway API](https://gateway-api.sigs.k8s.io/reference/spec/#httprouterule), which contains the
//! one of [Ingress](https://kubernetes.io/docs/concepts/services-networking/ingress/#multiple-matches).
//! A host without a route for the path does not end the search: it goes on with wildcards and then
//! with routes for any host, as an Ingress's `defaultBackend` requires. (In ingress-nginx a host with
//! rules of its own never reaches the rules of a wildcard.)
//!
//! # Matching
//!
//! ```
//! use http::{HeaderMap, Method};
//! use mesh_ingress_route::{Route, RouteQuery, RouteTable};
//!
//! let table = RouteTable::new([
//!     (Route::host("shop.example.com").path_prefix("/").to("web.default:80".parse()?), "web"),
//!     (Route::host("shop.example.com").path_prefix("/api").to("api.default:80".parse()?), "api"),
//! ])?;
//!
//! let headers = HeaderMap::new();
//! let uri = "/api/v1".parse()?;
//! let mut query = RouteQuery::new("Shop.Example.com:8443", &Method::GET, &uri, &headers);
//! assert_eq!(table.find(&query), Some(&"api"));
//! // Prefixes match whole elements.
//! query.path = "/apiary";
//! assert_eq!(table.find(&query), Some(&"web"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Cost
//!
//! [`RouteTable::find`] does not allocate. Hosts are found by hash. The paths of a host are one sorted
//! list with binary search, each entry linked to the longest other entry that is a prefix of it. The
//! cost of a request grows with the logarithm of the number of paths and with the depth of nested
//! prefixes in the table, not with the number of slashes that a client sends.
//!
//! # Features
//!
//! * `regex` (off): `Route::path_regex` and regular expressions on header values.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod action;
mod backend;
mod compact;
mod condition;
mod error;
mod hash;
mod host;
pub mod path;
mod paths;
#[cfg(feature = "regex")]
mod pattern;
mod route;
mod table;
mod text;

pub use self::action::{Action, Redirect};
pub use self::backend::Backend;
pub use self::condition::{HeaderMatch, QueryMatch, ValueMatch};
pub use self::error::{Miss, RouteError};
pub use self::host::WildcardScope;
pub use self::path::PathMatch;
pub use self::route::{MatchKey, Route};
pub use self::table::{DotSegments, RouteQuery, RouteTable};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
