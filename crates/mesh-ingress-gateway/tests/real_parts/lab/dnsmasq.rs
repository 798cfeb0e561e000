//! Debian's dnsmasq as cluster DNS.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use rustix::process::Signal;

use super::{Host, Lab, Process};

/// A record of cluster DNS.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// A Service's name and its ClusterIP.
    Address(String, IpAddr),
    /// A named port: `_http._tcp.web.default.svc.cluster.local`, its target and number.
    Service(String, String, u16),
}

impl Record {
    pub(crate) fn address(name: &str, address: &str) -> Self {
        Self::Address(name.to_owned(), address.parse().expect("an address"))
    }
}

/// A running dnsmasq that is the authority for `cluster.local`.
pub(crate) struct Dnsmasq {
    process: Process,
    hosts: PathBuf,
}

impl Dnsmasq {
    /// Seconds an answer may be kept; what CoreDNS's kubernetes plugin says.
    pub(crate) const TTL: u32 = 5;

    /// Starts one on the test's own host.
    pub(crate) fn start(lab: &Lab, addr: SocketAddr, records: &[Record]) -> Self {
        Self::start_on(lab, lab.host(), addr, records)
    }

    /// Starts one on another host.
    pub(crate) fn start_on(lab: &Lab, host: &Host, addr: SocketAddr, records: &[Record]) -> Self {
        let mut command = host.command("dnsmasq");
        let hosts = lab.write("dnsmasq.hosts", &hosts_file(records));
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file",
                "--user=root",
            ])
            .args([
                "--log-facility=-",
                "--log-queries",
                "--no-resolv",
                "--no-hosts",
            ])
            .args(["--bind-interfaces", "--local=/cluster.local/"])
            .arg(format!("--listen-address={}", addr.ip()))
            .arg(format!("--port={}", addr.port()))
            .arg(format!("--local-ttl={}", Self::TTL))
            .arg(format!("--addn-hosts={}", hosts.display()));
        for record in records {
            if let Record::Service(name, target, port) = record {
                command.arg(format!("--srv-host={name},{target},{port}"));
            }
        }
        let process = Process::start("dnsmasq", &command);
        process.wait_for_line("started, version");
        Self { process, hosts }
    }

    /// Replaces the addresses while it runs.
    pub(crate) fn set(&self, records: &[Record]) {
        std::fs::write(&self.hosts, hosts_file(records)).expect("the hosts file");
        let reads = |lines: &[String]| {
            lines
                .iter()
                .filter(|line| line.contains("read ") && line.contains("hosts"))
                .count()
        };
        let before = reads(&self.process.lines());
        self.process.signal(Signal::HUP);
        self.process.wait_for("the hosts file read again", |lines| {
            (reads(lines) > before).then_some(())
        });
    }

    /// The queries so far, as `query[A] web.default.svc.cluster.local`.
    pub(crate) fn queries(&self) -> Vec<String> {
        let lines = self.process.lines().into_iter();
        lines
            .filter_map(|line| {
                let (_, query) = line.split_once(": query[")?;
                let (query, _) = query.split_once(" from ")?;
                Some(format!("query[{query}"))
            })
            .collect()
    }

    pub(crate) fn stop(mut self) {
        self.process.stop();
    }
}

fn hosts_file(records: &[Record]) -> String {
    records
        .iter()
        .filter_map(|record| match record {
            Record::Address(name, address) => Some(format!("{address} {name}\n")),
            Record::Service(..) => None,
        })
        .collect()
}
