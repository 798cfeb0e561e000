//! Events. One test, alone in its process: a subscriber for one thread does not see every event when
//! other threads meet the same code first.
#![cfg(feature = "hickory")]
#![allow(clippy::unwrap_used)]

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use mesh_ingress_resolve::IpFamilies;
use mesh_ingress_testkit::Fault;
use support::{IP, IP2, WEB, asking, failures, refreshes, secs, server, warp, watch};
use tracing_subscriber::fmt::MakeWriter;

/// Takes what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn changes_failures_and_recoveries_are_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .without_time()
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = server().await;
    let dns = asking(&server).ip_families(IpFamilies::V4).build().unwrap();
    let watch = watch(&dns, "web.default:80");
    let mut changes = watch.changes();
    changes.next().await.unwrap();
    let text = log.take();
    assert!(text.contains("INFO"), "{text}");
    assert!(
        text.contains("resolved service=web.default:80 addresses=[10.96.0.7:80]"),
        "{text}"
    );

    server.set_fault(Some(Fault::ServFail));
    warp(secs(5)).await;
    failures(&dns, 3).await;
    let text = log.take();
    assert_eq!(text.matches("WARN").count(), 1, "{text}");
    assert!(
        text.contains("cannot resolve service=web.default:80"),
        "{text}"
    );
    assert!(text.contains("SERVFAIL"), "{text}");
    assert!(text.contains("kept=true"), "{text}");

    server.set_a(WEB, [IP2]);
    server.set_fault(None);
    changes.next().await.unwrap();
    let text = log.take();
    assert!(text.contains("the addresses have changed"), "{text}");
    assert!(
        text.contains("before=[10.96.0.7:80] addresses=[10.96.0.8:80]"),
        "{text}"
    );

    server.set_fault(Some(Fault::ServFail));
    let before = dns.counters().failures;
    warp(secs(5)).await;
    failures(&dns, before + 1).await;
    server.set_fault(None);
    let before = dns.counters().refreshes;
    refreshes(&dns, before + 1).await;
    let text = log.take();
    assert!(text.contains("cluster DNS answers again"), "{text}");

    server.remove(WEB);
    warp(secs(5)).await;
    refreshes(&dns, before + 2).await;
    warp(secs(1)).await;
    changes.next().await.unwrap_err();
    let text = log.take();
    assert!(text.contains("kept=false"), "{text}");
    server.set_a(WEB, [IP]);
    warp(secs(5)).await;
    changes.next().await.unwrap();
    assert!(log.take().contains("resolved after failures"));
}
