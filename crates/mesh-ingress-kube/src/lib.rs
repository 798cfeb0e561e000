#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod canary;
mod convert;
mod error;
mod finding;
mod host_paths;
mod identity;
mod import;
mod ingress;
mod lint;
mod node;
mod settings;
mod unsupported;
mod vhost;
mod yaml;

pub use self::error::ImportError;
pub use self::finding::{Finding, Severity};
pub use self::import::{Imported, from_yaml};
pub use self::ingress::Tls;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
