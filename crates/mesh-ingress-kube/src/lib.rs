#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod canary;
mod catalogue;
mod convert;
mod error;
mod finding;
mod identity;
mod import;
mod ingress;
mod lint;
mod node;
mod settings;
mod slots;
mod vhost;
mod yaml;

pub use self::error::ImportError;
pub use self::finding::{Finding, Severity};
pub use self::import::{Imported, from_yaml};
pub use self::ingress::Tls;
