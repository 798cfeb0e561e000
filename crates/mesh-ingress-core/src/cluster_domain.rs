//! The DNS zone of the cluster.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::ParseError;
use crate::name::{LabelRule, check_label};

/// The longest domain that leaves room for a Service: 253 bytes for the whole name (RFC 1035 §2.3.4,
/// without the root dot), less `svc.` and two labels of 63 with their dots.
const MAX_DOMAIN: usize = 253 - 4 - 2 * 64;

/// The DNS zone of the cluster, `cluster.local` unless the cluster was set up otherwise
/// (kubelet `--cluster-domain`, kubeadm `networking.dnsDomain`).
///
/// ```
/// use mesh_ingress_core::ClusterDomain;
///
/// assert_eq!(ClusterDomain::default().as_str(), "cluster.local");
/// // A trailing dot is accepted and dropped: it belongs on the wire, never in `Host`.
/// assert_eq!("k8s.example.com.".parse::<ClusterDomain>()?.as_str(), "k8s.example.com");
/// # Ok::<(), mesh_ingress_core::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClusterDomain(Arc<str>);

impl ClusterDomain {
    /// The domain, lower-case, without a trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ClusterDomain {
    fn default() -> Self {
        Self(Arc::from("cluster.local"))
    }
}

impl FromStr for ClusterDomain {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        let error = |reason: &str| ParseError::new("cluster domain", input, reason);
        let domain = input.strip_suffix('.').unwrap_or(input);
        if domain.is_empty() {
            return Err(error("it is empty, expected something like cluster.local"));
        }
        for label in domain.split('.') {
            check_label("label", label, LabelRule::Rfc1123).map_err(|reason| error(&reason))?;
        }
        if domain.len() > MAX_DOMAIN {
            return Err(error(&format!(
                "it has {} characters, {MAX_DOMAIN} leave room for a Service's name",
                domain.len()
            )));
        }
        Ok(Self(Arc::from(domain)))
    }
}

impl fmt::Display for ClusterDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClusterDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterDomain")
            .field(&self.as_str())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_zones_are_refused() {
        for bad in [
            "",
            ".",
            "cluster..local",
            ".local",
            "Cluster.local",
            "cluster.local..",
            "-a.local",
            "a_b.local",
            "cluster.local:80",
            "cluster local",
        ] {
            assert!(bad.parse::<ClusterDomain>().is_err(), "{bad:?}");
        }
        assert!("a.".repeat(70).parse::<ClusterDomain>().is_err());
    }

    #[test]
    fn single_labels_and_digits_are_accepted() {
        for good in ["local", "k8s", "1.example", "a-b.c"] {
            assert_eq!(good.parse::<ClusterDomain>().unwrap().as_str(), good);
        }
    }
}
