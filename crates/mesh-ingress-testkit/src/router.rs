//! The mesh's data planes, by what they pick a destination by.

mod envoy;
mod host;
mod ledger;
mod registry;
mod relay;
mod vip;

pub(crate) use self::envoy::MESH_ROUTER;
pub use self::host::{HostRouter, OutboundPolicy};
pub use self::ledger::{Outcome, Verdict};
pub use self::vip::VipRouter;
