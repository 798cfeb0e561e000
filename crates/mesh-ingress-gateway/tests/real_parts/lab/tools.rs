//! The programs the suite needs, and where they are.

use std::path::{Path, PathBuf};

const PROGRAMS: &[&str] = &[
    "curl", "dnsmasq", "envoy", "h2load", "ip", "iptables", "nginx", "openssl", "setpriv",
];

/// Panics, naming the script that helps, unless this is root and every program is there.
pub(crate) fn require() {
    let help = "run .ci/install-real-parts as root, then this suite as root";
    assert!(
        rustix::process::geteuid().is_root(),
        "the real-parts suite makes network namespaces and must run as root; {help}"
    );
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|name| find(name).is_none())
        .collect();
    assert!(missing.is_empty(), "missing {missing:?}; {help}");
}

/// Where a program is.
pub(crate) fn tool(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("missing {name:?}; run .ci/install-real-parts as root"))
}

fn find(name: &str) -> Option<PathBuf> {
    // Cargo's own directory for this suite's files lies in the target directory, where the install
    // script puts Envoy.
    let parts = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../real-parts");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain([parts])
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}
