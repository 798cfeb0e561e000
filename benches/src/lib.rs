//! What the programs of this package share: the side-by-side harness and the gates. See its README.

mod side_by_side;

pub use side_by_side::{gates, main, recorded};

/// What went wrong, for whoever started the program.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
