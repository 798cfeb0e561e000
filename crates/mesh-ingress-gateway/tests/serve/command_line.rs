//! Runs that end before anything is served: wrong options, and commands that only report.

use std::process::Stdio;
use std::time::Duration;

use mesh_ingress_testkit::Origin;

use super::cluster;
use super::gateway::binary;

#[tokio::test]
async fn bad_options_are_one_clear_error_and_a_code() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let route = "shop.example.com/=web.default:80";
    for (options, said) in [
        (vec!["--route", "shop.example.com"], "expected"),
        (vec!["--route", "shop.example.com/=web:80"], "namespace"),
        (
            vec!["--route", "shop.example.com/=Web.default:80"],
            "lower-case",
        ),
        (vec!["--route", "shop.example.com/=web.default:0"], "65535"),
        (
            vec!["--route", route, "--upstream-cidr", "10.0.0.0/33"],
            "10.0.0.0/33",
        ),
        (vec!["--route", route, "--dns", "nowhere"], "nowhere"),
        (vec!["--route", route, "--cluster-domain", "a..b"], "a..b"),
        (vec!["--route", route, "--workers", "0"], "0"),
        (vec!["--route", route, "--route", route], "shop.example.com"),
        (
            vec!["--route", route, "--listen", &taken, "--dns", "127.0.0.1:1"],
            "already in use",
        ),
        (
            vec![
                "--route",
                route,
                "--listen",
                &taken,
                "--workers",
                "4",
                "--dns",
                "127.0.0.1:1",
            ],
            "another process",
        ),
        (vec!["--dns", "127.0.0.1:1"], "--route"),
        (
            vec!["--ingress", "/does/not/exist.yaml"],
            "/does/not/exist.yaml",
        ),
    ] {
        let mut command = binary();
        command.arg("serve").args(&options).stdin(Stdio::null());
        let output = tokio::time::timeout(Duration::from_secs(20), command.output());
        let output = output
            .await
            .unwrap_or_else(|_| panic!("{options:?} is taken"))
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{options:?}");
        assert!(
            text.contains("error: ") && text.contains(said),
            "{options:?}: {text}"
        );
        assert!(!text.contains("panicked"), "{text}");
        assert_eq!(text.matches("error: ").count(), 1, "{text}");
    }
}

#[tokio::test]
async fn explain_sends_nothing_and_doctor_probes() {
    let origin = Origin::start().await.unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let run = async |command: &str, more: &[&str]| {
        let mut process = binary();
        process.arg(command).args(&options).args(more);
        let output = process.output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let url = "http://shop.example.com/cart?id=7";
    let (code, text) = run("explain", &["-H", "x-envoy-force-trace: 1", url]).await;
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "vhost     web.default.svc.cluster.local",
        &format!("address   {}", origin.addr()),
        "target    /cart?id=7",
        "- x-envoy-force-trace: 1",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let (code, text) = run("explain", &["http://other.example.com/"]).await;
    assert_eq!(code, Some(1));
    assert!(text.starts_with("refused: "), "{text}");
    assert_eq!(origin.connections(), 0);

    let (code, text) = run("doctor", &[]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("HEAD / answers 200 OK"), "{text}");
    assert_eq!(origin.requests()[0].method, http::Method::HEAD);
}
