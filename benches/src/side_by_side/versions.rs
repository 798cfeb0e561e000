//! The versions of the proxies, as they tell them themselves, or as the lock file of the peers does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::BoxError;

use super::build;
use super::process;
use super::subject::Kind;

/// The version of each kind that has one, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions(Vec<(String, String)>);

impl Versions {
    /// Asks the programs of `kinds`, where `program` knows one, and the lock file for the others.
    pub(crate) fn ask(
        kinds: &[Kind],
        program: impl Fn(Kind) -> Option<PathBuf>,
    ) -> Result<Self, BoxError> {
        let lock = fs::read_to_string(build::root().join("benches/peers/Cargo.lock"))?;
        let mut versions = Vec::new();
        for kind in kinds {
            let version = match program(*kind) {
                Some(program) => Some(version_of(*kind, &program)?),
                None => package(*kind).and_then(|package| locked(&lock, package)),
            };
            versions.extend(version.map(|version| (kind.name().to_owned(), version)));
        }
        Ok(Self(versions))
    }

    /// A subject as tables and chart call it: `nginx (1.22.1) ×2`.
    pub(crate) fn label(&self, subject: &str) -> String {
        let (name, variant) = match subject.split_once(' ') {
            Some((name, variant)) => (name, format!(" {variant}")),
            None => (subject, String::new()),
        };
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, version)) => format!("{name} ({version}){variant}"),
            None => subject.to_owned(),
        }
    }

    /// `nginx 1.22.1, haproxy 2.6.12`
    pub(crate) fn write(&self) -> String {
        let each = self
            .0
            .iter()
            .map(|(name, version)| format!("{name} {version}"));
        each.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn read(text: &str) -> Self {
        let each = text.split(", ").filter_map(|each| each.split_once(' '));
        Self(
            each.map(|(name, version)| (name.to_owned(), version.to_owned()))
                .collect(),
        )
    }
}

fn version_of(kind: Kind, program: &Path) -> Result<String, BoxError> {
    let option = if kind == Kind::Envoy {
        "--version"
    } else {
        "-v"
    };
    let output = Command::new(program)
        .arg(option)
        .env("PATH", process::search_path())
        .output()
        .map_err(|error| format!("{} does not start: {error}", program.display()))?;
    // nginx tells its version on the standard error stream.
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    number(&told).ok_or_else(|| format!("{} does not tell its version", program.display()).into())
}

/// The first word of three numbers: `nginx/1.22.1`, `HAProxy version 2.6.12-1+deb12u4`,
/// `envoy  version: 9e55/1.40.0/Clean`.
fn number(text: &str) -> Option<String> {
    let mut words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let number = words.find(|word| word.split('.').filter(|part| !part.is_empty()).count() == 3);
    number.map(str::to_owned)
}

/// The crate that a peer of ours is made of.
fn package(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Pingora => Some("pingora-proxy"),
        Kind::AxumReverseProxy => Some("axum-reverse-proxy"),
        Kind::LegacyClient => Some("hyper-util"),
        Kind::FloorHyper => Some("hyper"),
        _ => None,
    }
}

fn locked(lock: &str, package: &str) -> Option<String> {
    let (_, after) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    Some(after.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Versions, locked, number};

    #[test]
    fn version_is_found_in_the_words_of_each_program() {
        for (told, version) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            (
                "HAProxy version 3.4.7-1 2026/10/14 - https://haproxy.org/\n",
                "3.4.7",
            ),
            (
                "/usr/bin/envoy  version: 9e55809337/1.40.0/Clean/RELEASE/BoringSSL\n",
                "1.40.0",
            ),
        ] {
            assert_eq!(number(told).as_deref(), Some(version));
        }
        assert_eq!(number("no version"), None);
    }

    #[test]
    fn version_of_a_crate_is_that_of_the_lock_file() {
        let lock = "[[package]]\nname = \"hyper-util\"\nversion = \"0.1.21\"\n\n\
            [[package]]\nname = \"hyper\"\nversion = \"1.12.0\"\n";
        assert_eq!(locked(lock, "hyper").as_deref(), Some("1.12.0"));
        assert_eq!(locked(lock, "hyper-utils"), None);
    }

    #[test]
    fn label_has_the_version_before_the_variant() {
        let versions = Versions::read("nginx 1.22.1, haproxy-current 3.4.7");
        assert_eq!(versions.label("nginx ×2"), "nginx (1.22.1) ×2");
        assert_eq!(versions.label("haproxy-current"), "haproxy-current (3.4.7)");
        assert_eq!(versions.label("ours 1 of 1000"), "ours 1 of 1000");
    }

    #[test]
    fn written_versions_are_read_back() {
        let versions = Versions::read("nginx 1.22.1, haproxy 2.6.12");
        assert_eq!(Versions::read(&versions.write()), versions);
        assert_eq!(Versions::read(""), Versions::default());
    }
}
