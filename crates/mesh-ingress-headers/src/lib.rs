//! The header rules of an HTTP intermediary, pure: no I/O, no runtime.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod authority;
mod client;
pub mod cookies;
mod edge;
mod error;
mod forwarded;
pub mod framing;
pub mod hop_by_hop;
mod host;
pub mod layer;
mod list;
pub mod max_forwards;
mod names;
mod own;
pub mod response;
pub mod trailers;
mod trusted;
pub mod via;

pub use self::client::Client;
pub use self::edge::{EdgeHygiene, EdgeHygieneBuilder, Peers, RequestIdPolicy, UnderscorePolicy};
pub use self::error::{InvalidRequest, InvalidResponse, InvalidSetting, LoopDetected, RequestRule};
pub use self::forwarded::{ForwardedField, ForwardedPolicy, ForwardedPolicyBuilder};
pub use self::hop_by_hop::ConnectionOptions;
pub use self::host::RequestHost;
pub use self::names::Group;
pub use self::trusted::TrustedPeers;
pub use self::via::Via;
