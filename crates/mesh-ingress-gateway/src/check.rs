//! `mesh-ingress check`: what a manifest means here.

use std::path::Path;

use mesh_ingress_kube::{Imported, Severity};

use crate::Failure;
use crate::args::Check;

/// Reads a manifest file.
pub(crate) fn read(path: &Path) -> Result<Imported, Failure> {
    let name = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    mesh_ingress_kube::from_yaml(&text).map_err(|error| format!("{name}: {error}").into())
}

/// Prints routes and findings of each file; fails if a finding is an error.
pub(crate) fn run(args: &Check) -> Result<(), Failure> {
    let mut errors = 0;
    for path in &args.files {
        let imported = read(path)?;
        println!("{}: {} route(s)", path.display(), imported.routes.len());
        for route in &imported.routes {
            println!("  {route}");
        }
        for finding in &imported.findings {
            println!("  {finding}");
            errors += usize::from(finding.severity() == Severity::Error);
        }
    }
    match errors {
        0 => Ok(()),
        errors => Err(format!("{errors} finding(s) need attention").into()),
    }
}
