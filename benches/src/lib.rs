//! The side-by-side harness and the gates, shared by the programs of this package. See its README.

mod side_by_side;

pub use side_by_side::{gates, main, recorded};

/// An error, as the programs print it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
