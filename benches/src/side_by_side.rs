//! The harness: proxies, scenarios, loads, and the reports of their figures.

mod args;
mod build;
mod chart;
mod check;
mod configs;
mod counts;
mod engine;
mod gate;
mod goals;
mod interrupt;
mod lab;
mod loads;
mod machine;
mod process;
mod report;
mod rows;
mod run;
mod scenario;
mod stats;
mod subject;
mod versions;

pub use gate::{gates, recorded};

use crate::BoxError;
use args::{Args, Command};

/// Runs the harness.
///
/// # Errors
/// When something is missing that it needs, or a proxy does not do what it is compared by.
pub fn main(args: impl Iterator<Item = String>) -> Result<(), BoxError> {
    let args = Args::parse(args)?;
    interrupt::watch()?;
    match &args.command {
        Command::Help => {
            println!("{}", args::HELP);
            Ok(())
        }
        Command::Build => build::all(&args),
        Command::Report => report::from_kept(),
        Command::Scenarios(scenarios) => run::scenarios(scenarios, &args),
        Command::Syscalls => counts::syscalls(&args),
        Command::Instructions => counts::instructions(&args),
    }
}
