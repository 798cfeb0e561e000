//! The mesh's data planes, by how they select a destination.

mod envoy;
mod host;
mod outcome_log;
mod registry;
mod relay;
mod vip;

pub(crate) use self::envoy::MESH_ROUTER;
pub use self::host::{HostRouter, OutboundPolicy};
pub use self::outcome_log::{Outcome, Verdict};
pub use self::vip::VipRouter;
