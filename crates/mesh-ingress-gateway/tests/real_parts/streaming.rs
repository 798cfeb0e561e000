//! Bodies stream: a gibibyte either way leaves the gateway's memory as it was.

use std::fs;
use std::path::Path;

use crate::dns_and_nginx::{SERVE, VHOST, WEB, dns, shop, web};
use crate::lab::{Curl, Dnsmasq, Gateway, Lab, Nginx, Record};

const GIB: u64 = 1 << 30;
/// The bound on growth, in KiB.
const FLAT: u64 = 32 * 1024;

/// The protocols a client can speak to the listener.
const CLIENTS: [(&str, &str); 2] = [("h1", "--http1.1"), ("h2c", "--http2-prior-knowledge")];

#[test]
fn a_gibibyte_down_streams_in_flat_memory() {
    Lab::run(|lab| {
        lab.sparse_file("download", GIB);
        let root = lab.path("");
        let serve_file = format!("root {}; sendfile on;", root.display());
        with_gateway(lab, &serve_file, |gateway| {
            for (client, flag) in CLIENTS {
                flat(gateway, &format!("download, {client} client"), || {
                    assert_eq!(shop("/download").flag(flag).send_counting_body(), GIB);
                });
            }
        });
    });
}

#[test]
fn a_gibibyte_up_streams_in_flat_memory() {
    Lab::run(|lab| {
        let file = lab.sparse_file("source", GIB);
        let root = lab.path("uploads");
        fs::create_dir(&root).unwrap();
        // nginx writes the body to disk as it comes and renames it when it is complete.
        let put_file = format!("root {}; dav_methods PUT;", root.display());
        with_gateway(lab, &put_file, |gateway| {
            for (client, flag) in CLIENTS {
                flat(
                    gateway,
                    &format!("upload with content-length, {client} client"),
                    || {
                        upload(
                            shop(&format!("/{client}")).flag(flag),
                            &file,
                            &root.join(client),
                        );
                    },
                );
            }
            flat(gateway, "chunked upload, h1 client", || {
                let request = shop("/chunked").option("-H", "Transfer-Encoding: chunked");
                upload(request, &file, &root.join("chunked"));
            });
        });
    });
}

fn with_gateway(lab: &Lab, directives: &str, test: impl FnOnce(&Gateway)) {
    let _dnsmasq = Dnsmasq::start(lab, dns(), &[Record::address(VHOST, WEB)]);
    let _nginx = Nginx::start(lab, web(), directives);
    let gateway = Gateway::serve(SERVE);
    // The first request builds things once: they are not growth.
    shop("/").send();
    test(&gateway);
    assert!(gateway.stop().success());
}

fn upload(request: Curl, file: &Path, arrived: &Path) {
    let response = request
        .option("--upload-file", file)
        // Without waiting for a 100 (Continue) that need not come.
        .option("-H", "Expect:")
        .send();
    assert_eq!(response.status, 201, "{response:?}");
    assert_eq!(fs::metadata(arrived).unwrap().len(), GIB);
    fs::remove_file(arrived).unwrap();
}

/// Fails if a transfer makes the gateway's memory grow, now or at its peak.
fn flat(gateway: &Gateway, what: &str, transfer: impl FnOnce()) {
    let before = gateway.process().memory();
    transfer();
    let after = gateway.process().memory();
    let peak = after.peak.saturating_sub(before.resident);
    println!(
        "1 GiB {what}: resident {} -> {} KiB, peak {} KiB, so at most {peak} KiB more",
        before.resident, after.resident, after.peak
    );
    assert!(peak < FLAT, "{what}: grew by {peak} KiB");
}
