//! Building what is compared.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::BoxError;

use super::args::Args;

/// The repository.
pub(crate) fn root() -> PathBuf {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    benches.parent().unwrap_or(benches).to_path_buf()
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The gateway as it is shipped.
pub(crate) fn ours(args: &Args) -> Result<PathBuf, BoxError> {
    if let Some(ours) = &args.ours {
        return Ok(ours.clone());
    }
    gateway(args.build)
}

/// The gateway as it is shipped, built if need be.
pub(crate) fn gateway(build: bool) -> Result<PathBuf, BoxError> {
    if build {
        cargo(&[
            "build",
            "--release",
            "--locked",
            "-p",
            "mesh-ingress-gateway",
        ])?;
    }
    built(target().join("release/mesh-ingress"))
}

/// The peers and floors from the registry, in one program.
pub(crate) fn peers(args: &Args) -> Result<PathBuf, BoxError> {
    of_peers("mesh-ingress-bench-peers", "peers", args)
}

/// The library in a program of its own.
pub(crate) fn embedded(args: &Args) -> Result<PathBuf, BoxError> {
    of_peers("embedded", "embedded", args)
}

/// A program of the package `benches/peers`.
fn of_peers(program: &str, feature: &str, args: &Args) -> Result<PathBuf, BoxError> {
    let target = target().join("peers");
    if args.build {
        let manifest = root().join("benches/peers/Cargo.toml");
        cargo(&[
            "build",
            "--release",
            "--locked",
            "--no-default-features",
            "--features",
            feature,
            "--bin",
            program,
            "--manifest-path",
            &manifest.to_string_lossy(),
            "--target-dir",
            &target.to_string_lossy(),
        ])?;
    }
    built(target.join("release").join(program))
}

/// Envoy, from where `.ci/install-real-parts` puts it.
pub(crate) fn envoy(args: &Args) -> Result<PathBuf, BoxError> {
    let envoy = args.envoy.clone();
    let envoy = envoy.unwrap_or_else(|| target().join("real-parts/envoy"));
    built(envoy).map_err(|error| format!("{error}; .ci/install-real-parts installs it").into())
}

/// nginx of the mainline branch, from where `.ci/install-real-parts` puts it.
pub(crate) fn nginx_mainline(args: &Args) -> Result<PathBuf, BoxError> {
    let nginx = args.nginx_mainline.clone();
    let nginx = nginx.unwrap_or_else(|| target().join("real-parts/nginx-mainline"));
    built(nginx).map_err(|error| format!("{error}; .ci/install-real-parts installs it").into())
}

/// The newer nginx of Debian.
pub(crate) fn nginx_current(args: &Args) -> Result<PathBuf, BoxError> {
    current("nginx-current", args.nginx_current.as_ref())
}

/// The newer haproxy of Debian.
pub(crate) fn haproxy_current(args: &Args) -> Result<PathBuf, BoxError> {
    current("haproxy-current", args.haproxy_current.as_ref())
}

/// A peer from where `.ci/install-current-peers` puts it, unless another program is given.
fn current(name: &str, given: Option<&PathBuf>) -> Result<PathBuf, BoxError> {
    let program = given.cloned();
    let program = program.unwrap_or_else(|| target().join("real-parts").join(name));
    built(program).map_err(|error| {
        format!("{error}; .ci/install-current-peers installs it, --without {name} leaves it out")
            .into()
    })
}

pub(crate) fn all(args: &Args) -> Result<(), BoxError> {
    for program in [
        ours(args)?,
        embedded(args)?,
        peers(args)?,
        envoy(args)?,
        nginx_current(args)?,
        nginx_mainline(args)?,
        haproxy_current(args)?,
    ] {
        println!("{}", program.display());
    }
    Ok(())
}

fn cargo(args: &[&str]) -> Result<(), BoxError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(args)
        .current_dir(root())
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("cargo {} failed", args.join(" ")).into()),
    }
}

fn built(program: PathBuf) -> Result<PathBuf, BoxError> {
    match program.exists() {
        true => Ok(program),
        false => Err(format!("there is no {}", program.display()).into()),
    }
}
