//! An operator's mistake is answered with one clear line and an exit code that is not 0.

use std::net::TcpListener;

use crate::lab::{Gateway, Lab, Process, WAIT_TIMEOUT};

const ROUTE: [&str; 2] = ["--route", "shop.example.com/=web.default:80"];

/// The arguments, and what the line must name.
const CASES: &[(&[&str], &[&str])] = &[
    // The service reference of a route.
    (&["--route", "shop.example.com/=web"], &["\"web\"", "port"]),
    (
        &["--route", "shop.example.com/=web:80"],
        &["\"web:80\"", "namespace"],
    ),
    (
        &["--route", "shop.example.com/=web.default:0"],
        &["web.default:0", "65535"],
    ),
    (
        &["--route", "shop.example.com/=we_b.default:80"],
        &["we_b.default:80", "'_'"],
    ),
    (
        &["--route", "shop.example.com/=Web.default:80"],
        &["Web.default:80", "'W'"],
    ),
    (
        &[
            "--route",
            "shop.example.com/=web.default.svc.cluster.local:80",
        ],
        &["cluster domain"],
    ),
    // The route itself.
    (&["--route", ""], &["--route"]),
    (&["--route", "shop.example.com/"], &["shop.example.com/"]),
    (&["--route", "=web.default:80"], &["=web.default:80"]),
    (
        &["--route", "shop example.com/=web.default:80"],
        &["shop example.com"],
    ),
    (
        &["--route", "*.*.example.com/=web.default:80"],
        &["*.*.example.com"],
    ),
    // The other arguments.
    (&["--upstream-cidr", "127.0.0.0/33"], &["127.0.0.0/33"]),
    (&["--upstream-cidr", "loopback"], &["loopback"]),
    (&["--dns", "127.0.0.1:99999"], &["127.0.0.1:99999"]),
    (&["--dns", "kube-dns"], &["kube-dns"]),
    (&["--cluster-domain", "cluster..local"], &["cluster..local"]),
    (&["--workers", "none"], &["none"]),
    (&["--workers", "0"], &["--workers"]),
    (&["--no-such-option"], &["--no-such-option"]),
];

#[test]
fn a_malformed_argument_is_one_clear_line() {
    Lab::run(|_| {
        for (args, named) in CASES {
            // Everything else is right, so that it is this that is refused.
            let mut all = vec!["--dns", "127.0.0.1:5353"];
            if args.first() != Some(&"--route") {
                all.extend(ROUTE);
            }
            if args.first() == Some(&"--dns") {
                all.drain(..2);
            }
            all.extend(*args);
            let (code, line) = refused(&all);
            println!("{code}: {line}");
            for word in *named {
                assert!(line.contains(word), "{args:?}: no {word:?} in {line:?}");
            }
        }
    });
}

#[test]
fn no_route_is_refused() {
    Lab::run(|_| {
        let (_, line) = refused(&["--dns", "127.0.0.1:5353"]);
        assert!(line.contains("--route"), "{line:?}");
    });
}

#[test]
fn two_routes_for_the_same_are_refused() {
    Lab::run(|_| {
        let other = ["--route", "shop.example.com/=other.default:80"];
        let (_, line) = refused(&[ROUTE, other].concat());
        assert!(line.contains("shop.example.com"), "{line:?}");
    });
}

#[test]
fn a_port_in_use_is_refused() {
    Lab::run(|_| {
        let _taken = TcpListener::bind(Gateway::ADDR).unwrap();
        let (_, line) = refused(&[&["--dns", "127.0.0.1:5353"], ROUTE.as_slice()].concat());
        assert!(
            line.contains(Gateway::ADDR) && line.contains("in use"),
            "{line:?}"
        );
    });
}

#[test]
fn a_second_gateway_on_the_same_port_is_refused() {
    Lab::run(|_| {
        let args = [&["--dns", "127.0.0.1:5353"], ROUTE.as_slice()].concat();
        let first = Gateway::serve(&args);
        let (_, line) = refused(&args);
        assert!(
            line.contains(Gateway::ADDR) && line.contains("in use"),
            "{line:?}"
        );
        assert!(first.stop().success());
    });
}

/// Runs the gateway, which must refuse; returns its exit code and the line that says why.
fn refused(args: &[&str]) -> (i32, String) {
    let mut process = Process::start("mesh-ingress", &Gateway::command(args));
    let status = process.wait(WAIT_TIMEOUT);
    let lines = process.lines();
    let code = status
        .code()
        .unwrap_or_else(|| panic!("{args:?}: {status}: {lines:?}"));
    assert!((1..=125).contains(&code), "{args:?}: {code}: {lines:?}");
    assert!(
        !lines.iter().any(|line| line.contains("panicked")),
        "{args:?}: {lines:?}"
    );
    let errors: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("error: "))
        .collect();
    let [line] = errors.as_slice() else {
        panic!("{args:?}: one line that begins with \"error: \", not {lines:?}");
    };
    (code, (*line).clone())
}
