//! Envoy as the sidecar, and what its admin interface tells.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::config::{self, ADMIN, BLACK_HOLE, PASSTHROUGH, READY_PORT};
use super::network::SIDECAR_USER;
use super::service::{Outbound, Service};
use crate::lab::{Curl, Lab, Process, WAIT_TIMEOUT, poll, tool};

/// The files that Envoy reads, which stand in for istiod.
pub(crate) struct ControlPlane {
    bootstrap: PathBuf,
    listeners: PathBuf,
    clusters: PathBuf,
    version: u32,
    outbound: Outbound,
    certificates: Option<PathBuf>,
}

/// A running Envoy.
pub(crate) struct Sidecar {
    process: Process,
}

/// A request as the sidecar took it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    /// When its head came, in time since 1970.
    pub(crate) started: Duration,
    /// Where the gateway connected to, before iptables redirected it.
    pub(crate) destination: String,
    /// `Host` or `:authority`.
    pub(crate) authority: String,
    /// The cluster it was sent to; `-` if the sidecar answered itself.
    pub(crate) cluster: String,
    pub(crate) status: u16,
}

/// Envoy's counters and gauges at one moment.
#[derive(Debug)]
pub(crate) struct Stats(BTreeMap<String, u64>);

impl ControlPlane {
    pub(crate) fn new(lab: &Lab, outbound: Outbound, certificates: Option<PathBuf>) -> Self {
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
            outbound,
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
            &config::listeners(self.version, services, &self.outbound),
        );
        self.version
    }
}

impl Sidecar {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(control: &ControlPlane) -> Self {
        let mut command = Command::new(tool("setpriv"));
        // A user of its own that can read this suite's files wherever they lie.
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
            .args([
                "--drain-time-s",
                "45",
                "--file-flush-interval-msec",
                "50",
                "--config-path",
            ])
            .arg(&control.bootstrap);
        let mut sidecar = Self {
            process: Process::start("envoy", &command),
        };
        poll(WAIT_TIMEOUT, "the sidecar is ready", || {
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

    /// The answer to a kubelet's readiness probe.
    pub(crate) fn is_ready() -> bool {
        let url = format!("http://127.0.0.1:{READY_PORT}/healthz/ready");
        Curl::get(&url)
            .try_send()
            .is_some_and(|response| response.status == 200)
    }

    /// Waits until it has taken over what the control plane told.
    pub(crate) fn wait_for_version(&self, version: u32) {
        poll(WAIT_TIMEOUT, "the sidecar has the configuration", || {
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

    /// The HTTP requests logged so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.process
            .lines()
            .iter()
            .filter_map(|line| Request::parse(line))
            .collect()
    }

    /// Waits until as many HTTP requests have been logged, which is when they are complete.
    pub(crate) fn wait_for_requests(&self, count: usize) -> Vec<Request> {
        self.process
            .wait_for(&format!("{count} requests"), |lines| {
                let requests: Vec<_> = lines
                    .iter()
                    .filter_map(|line| Request::parse(line))
                    .collect();
                (requests.len() >= count).then_some(requests)
            })
    }

    /// Ends it as a restart of the container does.
    pub(crate) fn stop(mut self) {
        self.process.stop();
    }
}

impl Request {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.strip_prefix("request|")?.split('|').map(str::to_owned);
        let started = Duration::from_millis(fields.next()?.parse().ok()?);
        let (destination, authority) = (fields.next()?, fields.next()?);
        // Names of clusters have bars, too.
        let mut rest: Vec<_> = fields.collect();
        rest.pop()?;
        let status = rest.pop()?.parse().ok()?;
        Some(Self {
            started,
            destination,
            authority,
            cluster: rest.join("|"),
            status,
        })
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

    /// Connections that the mesh knew no place for, under REGISTRY_ONLY.
    pub(crate) fn black_holed_connections(&self) -> u64 {
        self.get(&format!("cluster.{BLACK_HOLE}.upstream_cx_none_healthy"))
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
