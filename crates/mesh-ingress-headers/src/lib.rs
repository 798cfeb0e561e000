//! The header rules of an HTTP intermediary, pure: no I/O, no runtime, no server. Part of
//! [mesh-ingress](https://docs.rs/mesh-ingress).
//!
//! A proxy must not forward a message that two parties can read in two ways, nor a field that only the
//! mesh may set: a second request hidden in the first, a forged client address, a field that steers
//! the mesh. These are the rules against that, each a function over a
//! [`HeaderMap`](http::HeaderMap), in the order to call them:
//!
//! | step | rule | by |
//! |---|---|---|
//! | 0 | refuse ambiguous bytes, if you own the connection | [`guard::RequestGuard`] |
//! | 1 | refuse invalid requests | [`framing::check_request`], [`RequestHost::of`] |
//! | 2 | remove hop-by-hop fields | [`hop_by_hop::strip`] |
//! | 3 | remove fields that only the mesh may set | [`EdgeHygiene`] |
//! | 4 | answer or count down `Max-Forwards` | [`max_forwards::check`] |
//! | | *routing, rewriting, your own layers* | |
//! | 5 | tell the upstream about the client, and detect loops | [`ForwardedPolicy`], [`Via`] |
//! | 6 | join cookies that HTTP/2 has split, for HTTP/1 | [`cookies::join`] |
//! | 7 | filter the trailers after the body | [`trailers::filter`] |
//! | 8 | check and clean the response | [`framing::check_response`], [`response::scrub`] |
//!
//! Step 2 comes before the gateway adds fields, so that no client can have them removed.
//! [`layer`] has 2, 3 and 5 as tower layers.
//!
//! ```
//! use http::{HeaderMap, HeaderValue, Method, Uri, Version};
//! use mesh_ingress_core::Downstream;
//! use mesh_ingress_headers::{Client, EdgeHygiene, ForwardedPolicy, RequestHost, framing, hop_by_hop};
//!
//! // Once a process, and once a connection.
//! let (hygiene, forwarded) = (EdgeHygiene::default(), ForwardedPolicy::default());
//! let client = Client::new(&Downstream::new("203.0.113.7:51000".parse()?));
//!
//! // Once a request.
//! let (method, uri, version) = (Method::GET, Uri::from_static("/cart"), Version::HTTP_11);
//! let mut headers = HeaderMap::new();
//! headers.insert("host", HeaderValue::from_static("shop.example.com"));
//! headers.insert("connection", HeaderValue::from_static("keep-alive, x-forwarded-for"));
//! headers.insert("x-forwarded-for", HeaderValue::from_static("127.0.0.1"));
//! headers.insert("l5d-dst-override", HeaderValue::from_static("admin.internal:80"));
//!
//! framing::check_request(&method, &uri, version, &headers)?;
//! let host = RequestHost::of(&uri, &headers, version)?;
//! let options = hop_by_hop::strip(&mut headers);
//! hygiene.apply(&mut headers, forwarded.is_trusted(&client))?;
//! forwarded.apply(&mut headers, &client, &host);
//!
//! assert_eq!(headers["x-forwarded-for"], "203.0.113.7");
//! assert!(!headers.contains_key("l5d-dst-override"));
//! # let _ = options;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod authority;
mod client;
pub mod cookies;
mod edge;
mod error;
mod forwarded;
pub mod framing;
pub mod guard;
mod header_presence;
pub mod hop_by_hop;
mod host;
pub mod layer;
mod list;
pub mod max_forwards;
mod name_patterns;
mod names;
mod prepared;
pub mod response;
pub mod trailers;
mod trusted;
pub mod verdict;
pub mod via;

pub use self::client::Client;
#[doc(hidden)]
pub use self::edge::RequestId;
pub use self::edge::{EdgeHygiene, EdgeHygieneBuilder, Peers, RequestIdPolicy, UnderscorePolicy};
pub use self::error::{InvalidRequest, InvalidResponse, LoopDetected, RequestRule};
pub use self::forwarded::{ForwardedField, ForwardedPolicy, ForwardedPolicyBuilder};
#[doc(hidden)]
pub use self::header_presence::HeaderPresence;
pub use self::hop_by_hop::ConnectionOptions;
pub use self::host::RequestHost;
pub use self::names::FieldGroup;
#[doc(hidden)]
pub use self::prepared::{PreparedClient, PreparedFields};
pub use self::trusted::TrustedPeers;
pub use self::verdict::{Evidence, VerdictRules, VerdictRulesBuilder};
pub use self::via::Via;

#[doc(no_inline)]
pub use mesh_ingress_core::InvalidSetting;
