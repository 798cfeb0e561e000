//! Envoy as the sidecar, and what its admin interface tells.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::config::{self, ADMIN, PASSTHROUGH, READY_PORT};
use super::network::SIDECAR_USER;
use super::service::{OutboundPolicy, Service};
use crate::lab::{Curl, Lab, Process, SOON, poll, tool};

/// The files that Envoy reads, which stand in for istiod.
pub(crate) struct ControlPlane {
    bootstrap: PathBuf,
    listeners: PathBuf,
    clusters: PathBuf,
    version: u32,
    policy: OutboundPolicy,
    certificates: Option<PathBuf>,
}

/// A running Envoy.
pub(crate) struct Sidecar {
    process: Process,
}

/// Envoy's counters and gauges at one moment.
#[derive(Debug)]
pub(crate) struct Stats(BTreeMap<String, u64>);

impl ControlPlane {
    pub(crate) fn new(lab: &Lab, policy: OutboundPolicy, certificates: Option<PathBuf>) -> Self {
        let dir = lab.path("xds");
        fs::create_dir(&dir).expect("a directory");
        let (listeners, clusters) = (dir.join("lds.json"), dir.join("cds.json"));
        let bootstrap = config::bootstrap(&listeners, &clusters).to_string();
        let bootstrap = lab.write("envoy.json", &bootstrap);
        Self {
            bootstrap,
            listeners,
            clusters,
            version: 0,
            policy,
            certificates,
        }
    }

    /// Tells what there is. A running sidecar learns of it, see [`Sidecar::wait_for_version`].
    pub(crate) fn set_services(&mut self, services: &[Service]) -> u32 {
        self.version += 1;
        let certificates = self.certificates.as_deref();
        replace(
            &self.clusters,
            &config::clusters(self.version, services, certificates),
        );
        replace(
            &self.listeners,
            &config::listeners(self.version, services, self.policy),
        );
        self.version
    }
}

impl Sidecar {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(control: &ControlPlane) -> Self {
        let mut command = Command::new(tool("setpriv"));
        // A user of its own, who may yet read this suite's files wherever they lie.
        command
            .arg(format!("--reuid={SIDECAR_USER}"))
            .arg(format!("--regid={SIDECAR_USER}"))
            .args(["--clear-groups", "--pdeathsig=KILL"])
            .args([
                "--inh-caps=+dac_read_search",
                "--ambient-caps=+dac_read_search",
            ])
            .arg(tool("envoy"))
            .args([
                "--concurrency",
                "2",
                "--log-level",
                "warning",
                "--disable-hot-restart",
            ])
            .args(["--drain-time-s", "45", "--config-path"])
            .arg(&control.bootstrap);
        let mut sidecar = Self {
            process: Process::start("envoy", &command),
        };
        poll(SOON, "the sidecar is ready", || {
            assert!(
                sidecar.process.is_running(),
                "Envoy ended: {:#?}",
                sidecar.process.lines()
            );
            Self::is_ready().then_some(())
        });
        sidecar.wait_for_version(control.version);
        sidecar
    }

    /// What a kubelet would be told.
    pub(crate) fn is_ready() -> bool {
        let url = format!("http://127.0.0.1:{READY_PORT}/healthz/ready");
        Curl::get(&url)
            .try_send()
            .is_some_and(|response| response.status == 200)
    }

    /// Waits until it has taken over what the control plane told.
    pub(crate) fn wait_for_version(&self, version: u32) {
        poll(SOON, "the sidecar has the configuration", || {
            let text = admin("/stats?filter=(listener_manager.lds|cds).version_text");
            let marks = format!(": \"{version}\"");
            (text.matches(&marks).count() == 2).then_some(())
        });
        let rejected = Stats::read().sum(|name| name.ends_with("update_rejected"));
        assert_eq!(rejected, 0, "Envoy refuses: {:#?}", self.process.lines());
    }

    pub(crate) fn stats() -> Stats {
        Stats::read()
    }

    /// Ends it as a restart of the container does.
    pub(crate) fn stop(mut self) {
        self.process.stop();
    }
}

impl Stats {
    fn read() -> Self {
        let parse = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(admin("/stats").lines().filter_map(parse).collect())
    }

    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn sum(&self, of: impl Fn(&str) -> bool) -> u64 {
        self.0
            .iter()
            .filter(|(name, _)| of(name))
            .map(|(_, value)| value)
            .sum()
    }

    /// Requests sent to the pods of a service, through its own cluster.
    pub(crate) fn meshed(&self, service: &Service) -> u64 {
        self.get(&format!("cluster.{}.upstream_rq_total", service.cluster()))
    }

    /// Requests that Envoy sent a second time to a service.
    pub(crate) fn retried(&self, service: &Service) -> u64 {
        self.get(&format!("cluster.{}.upstream_rq_retry", service.cluster()))
    }

    /// Requests that no virtual host took, sent to where they wanted to go.
    pub(crate) fn passthrough_requests(&self) -> u64 {
        self.get(&format!("cluster.{PASSTHROUGH}.upstream_rq_total"))
    }

    /// Connections to where they wanted to go: of those requests, and those that no listener took.
    pub(crate) fn passthrough_connections(&self) -> u64 {
        self.get(&format!("cluster.{PASSTHROUGH}.upstream_cx_total"))
    }

    /// Requests that came in at a listener, by its address.
    pub(crate) fn requests_at(&self, address: &str, port: u16) -> u64 {
        let prefix = config::stat_prefix(address, port);
        self.get(&format!("http.{prefix}.downstream_rq_total"))
    }
}

fn admin(path: &str) -> String {
    let response = Curl::get(&format!("http://{ADMIN}{path}"))
        .flag("--globoff")
        .try_send();
    response.map(|response| response.text()).unwrap_or_default()
}

/// Envoy reads a file again when another one is moved to its place.
fn replace(path: &Path, contents: &Value) {
    let new = path.with_extension("new");
    fs::write(&new, contents.to_string()).expect("a configuration file");
    fs::rename(&new, path).expect("a configuration file in its place");
}
