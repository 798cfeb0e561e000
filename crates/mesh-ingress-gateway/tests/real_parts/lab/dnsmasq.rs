//! Debian's dnsmasq as cluster DNS.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    addr: SocketAddr,
    marks: AtomicUsize,
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
        Self {
            process,
            hosts,
            addr,
            marks: AtomicUsize::new(0),
        }
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
        // dnsmasq logs when it has time. A query of our own, once it is logged, comes after all
        // that were there before.
        let number = self.marks.fetch_add(1, Ordering::Relaxed);
        let mark = format!("mark-{number}.cluster.local");
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket
            .send_to(&question(&mark), self.addr)
            .expect("sending a query");
        self.process.wait_for("a query of our own", |lines| {
            let mut queries = Vec::new();
            for line in lines {
                let Some((_, query)) = line.split_once(": query[") else {
                    continue;
                };
                let Some((query, _)) = query.split_once(" from ") else {
                    continue;
                };
                if query.ends_with(&mark) {
                    return Some(queries);
                }
                if !query.contains("] mark-") {
                    queries.push(format!("query[{query}"));
                }
            }
            None
        })
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

/// A DNS message (RFC 1035 §4.1) that asks for the IPv4 address of a name.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a short label"));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}
