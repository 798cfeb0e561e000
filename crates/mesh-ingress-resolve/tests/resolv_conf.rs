//! A file of name servers that changes.
#![cfg(feature = "hickory")]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use mesh_ingress_resolve::{ClusterDns, IpFamilies, Watch};
use mesh_ingress_testkit::DnsServer;
use support::{IP2, TempDir, WEB, addrs, nameserver_line, refreshes, secs, server, warp, watch};

/// A target asked for at the first of two servers, which differ in their answer.
struct Fixture {
    dir: TempDir,
    first: DnsServer,
    second: DnsServer,
    dns: ClusterDns,
    watch: Watch,
}

impl Fixture {
    async fn new() -> Self {
        let (first, second) = (server().await, server().await);
        second.set_a(WEB, [IP2]);
        let dir = TempDir::new();
        let path = dir.file("resolv.conf");
        std::fs::write(&path, nameserver_line(&first)).unwrap();
        let dns = ClusterDns::builder()
            .resolv_conf(&path)
            .ip_families(IpFamilies::V4)
            .build()
            .unwrap();
        let watch = watch(&dns, "web.default:80");
        watch.ready().await.unwrap();
        Self {
            dir,
            first,
            second,
            dns,
            watch,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.file("resolv.conf")
    }

    /// The next refresh goes to the first server still.
    async fn nothing_changes(&self) {
        self.first.clear_queries();
        let before = self.dns.counters().refreshes;
        warp(secs(5)).await;
        refreshes(&self.dns, before + 1).await;
        assert_eq!(self.first.queries().len(), 1);
        assert!(self.second.queries().is_empty());
    }

    async fn the_second_is_asked(&self) {
        let mut changes = self.watch.changes();
        changes.next().await.unwrap();
        self.first.clear_queries();
        warp(secs(5)).await;
        assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.8:80"]));
        assert!(self.first.queries().is_empty());
    }
}

/// As Kubernetes and editors do: the old file is there until the new one is.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn a_replaced_file_is_read_again() {
    let fixture = Fixture::new().await;
    fixture.nothing_changes().await;
    replace(&fixture.path(), &nameserver_line(&fixture.second));
    fixture.the_second_is_asked().await;
}

#[tokio::test]
async fn a_file_written_into_is_read_again() {
    let fixture = Fixture::new().await;
    let text = format!("# moved\n{}", nameserver_line(&fixture.second));
    std::fs::write(fixture.path(), text).unwrap();
    fixture.the_second_is_asked().await;
}

#[tokio::test]
async fn a_file_that_is_gone_or_broken_changes_nothing() {
    let fixture = Fixture::new().await;
    std::fs::remove_file(fixture.path()).unwrap();
    fixture.nothing_changes().await;
    replace(&fixture.path(), "search cluster.local\n");
    fixture.nothing_changes().await;
    replace(&fixture.path(), "nameserver not-an-address\n");
    fixture.nothing_changes().await;
    // And one that is well again is read.
    replace(&fixture.path(), &nameserver_line(&fixture.second));
    fixture.the_second_is_asked().await;
}
