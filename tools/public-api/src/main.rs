//! Prints the public API of a crate, sorted, one item per line, from the JSON that rustdoc wrote for it.
//! `.ci/public-api` runs it for each published crate.

use std::error::Error;
use std::io::{self, Write};

/// Traits that the compiler implements by itself and that callers do not rely on. `Send`, `Sync` and
/// `Unpin` are listed: a type that loses one of them breaks its users.
const UNLISTED_TRAITS: [&str; 5] = [
    "core::marker::Freeze for ",
    "core::marker::StructuralPartialEq for ",
    "core::marker::UnsafeUnpin for ",
    "core::panic::unwind_safe::RefUnwindSafe for ",
    "core::panic::unwind_safe::UnwindSafe for ",
];

fn main() -> Result<(), Box<dyn Error>> {
    let json = std::env::args_os().nth(1).ok_or("usage: public-api-listing RUSTDOC_JSON")?;
    // Blanket implementations are the same for every type, as `From<T> for T` is.
    let api = public_api::Builder::from_rustdoc_json(json).omit_blanket_impls(true).build()?;

    let mut out = io::stdout().lock();
    for item in api.items() {
        let line = item.to_string();
        let unlisted = line.starts_with("impl") && UNLISTED_TRAITS.iter().any(|unlisted| line.contains(unlisted));
        if !unlisted {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
