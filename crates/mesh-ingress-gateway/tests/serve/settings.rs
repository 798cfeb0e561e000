//! The flags for upstream connections, each by its effect.

use mesh_ingress_testkit::{Behaviour, Gate, Origin, RawOrigin, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::gateway::{Gateway, exchange};
use super::{GET, cluster};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A gateway in front of an origin, with more options.
async fn gateway(
    origin: std::net::SocketAddr,
    more: &[&str],
) -> (mesh_ingress_testkit::DnsServer, Gateway) {
    let (dns, mut options) = cluster(origin).await;
    options.extend(more.iter().map(|&option| option.to_owned()));
    (dns, Gateway::start(&options).await)
}

fn status(reply: &str) -> &str {
    reply.get(9..12).unwrap_or(reply)
}

#[tokio::test]
async fn request_timeout_bounds_the_whole_exchange() {
    let gate = Gate::new();
    let silent = vec![Step::ReadHead, Step::Hold(gate)];
    let origin = RawOrigin::start([silent]).await.unwrap();
    let (_dns, gateway) = gateway(origin.addr(), &["--request-timeout", "200ms"]).await;
    let reply = exchange(gateway.addr, GET).await;
    assert_eq!(status(&reply), "504", "{reply}");
    assert!(reply.contains("error=http_response_timeout"), "{reply}");
}

#[tokio::test]
async fn request_timeout_cuts_a_response_that_has_begun() {
    let gate = Gate::new();
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!";
    let script = vec![Step::ReadHead, Step::send(half), Step::Hold(gate)];
    let origin = RawOrigin::start([script]).await.unwrap();
    let (_dns, gateway) = gateway(origin.addr(), &["--request-timeout", "300ms"]).await;
    let reply = exchange(gateway.addr, GET).await;
    // Visible to the client: less than was promised.
    assert!(reply.contains("content-length: 10\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nhalf!"), "{reply}");
}

#[tokio::test]
async fn max_connections_makes_requests_wait_and_then_fail() {
    let gate = Gate::new();
    let script = vec![Step::ReadHead, Step::Hold(gate.clone()), Step::send(OK)];
    let origin = RawOrigin::start([script]).await.unwrap();
    let options = ["--max-connections", "1", "--queue-timeout", "200ms"];
    let (_dns, gateway) = gateway(origin.addr(), &options).await;
    let mut first = TcpStream::connect(gateway.addr).await.unwrap();
    first.write_all(GET.as_bytes()).await.unwrap();
    origin.wait_for_received(0, |head| !head.is_empty()).await;
    let second = exchange(gateway.addr, GET).await;
    assert_eq!(status(&second), "503", "{second}");
    assert!(
        second.contains("error=connection_limit_reached"),
        "{second}"
    );
    assert!(second.contains("retry-after: 1\r\n"), "{second}");
    gate.open();
    let mut reply = String::new();
    first.read_to_string(&mut reply).await.unwrap();
    assert_eq!(status(&reply), "200", "{reply}");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn max_in_flight_sheds() {
    let gate = Gate::new();
    let script = vec![Step::ReadHead, Step::Hold(gate.clone()), Step::send(OK)];
    let origin = RawOrigin::start([script]).await.unwrap();
    let (_dns, gateway) = gateway(origin.addr(), &["--max-in-flight", "1"]).await;
    let mut first = TcpStream::connect(gateway.addr).await.unwrap();
    first.write_all(GET.as_bytes()).await.unwrap();
    origin.wait_for_received(0, |head| !head.is_empty()).await;
    let second = exchange(gateway.addr, GET).await;
    assert_eq!(status(&second), "503", "{second}");
    assert!(
        second.contains("error=connection_limit_reached"),
        "{second}"
    );
    gate.open();
    let mut reply = String::new();
    first.read_to_string(&mut reply).await.unwrap();
    assert_eq!(status(&reply), "200", "{reply}");
}

#[tokio::test]
async fn retry_repeats_only_retryable_requests() {
    let origin = Origin::start().await.unwrap();
    origin.set_behaviour(Behaviour::handler({
        let failed = std::sync::atomic::AtomicBool::new(false);
        move |_| {
            let first = !failed.swap(true, std::sync::atomic::Ordering::SeqCst);
            let status = if first { 503 } else { 200 };
            let mut response = http::Response::new(mesh_ingress::Body::empty());
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            async move { response }
        }
    }));
    let (_dns, gateway) = gateway(origin.addr(), &["--retry", "1"]).await;
    let reply = exchange(gateway.addr, GET).await;
    assert_eq!(status(&reply), "200", "{reply}");
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test]
async fn without_retry_no_request_is_retried() {
    let unavailable = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let script = vec![Step::ReadHead, Step::send(unavailable)];
    let origin = RawOrigin::start([script]).await.unwrap();
    let (_dns, gateway) = gateway(origin.addr(), &[]).await;
    let reply = exchange(gateway.addr, GET).await;
    assert_eq!(status(&reply), "503", "{reply}");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn auto_speaks_to_the_service_what_the_client_speaks() {
    let origin = Origin::start().await.unwrap();
    let (_dns, gateway) = gateway(origin.addr(), &["--upstream-protocol", "auto"]).await;
    assert_eq!(status(&exchange(gateway.addr, GET).await), "200");
    let reply = gateway.h2c("http://shop.example.com/x").await;
    assert_eq!(reply.status(), http::StatusCode::OK);
    // gRPC goes upstream over HTTP/2, whichever version the client speaks.
    let grpc = "POST /svc/M HTTP/1.1\r\nHost: shop.example.com\r\nContent-Type: application/grpc\r\n\
                TE: trailers\r\nConnection: TE, close\r\nContent-Length: 0\r\n\r\n";
    exchange(gateway.addr, grpc).await;
    let versions: Vec<_> = origin.requests().iter().map(|seen| seen.version).collect();
    use http::Version;
    assert_eq!(
        versions,
        [Version::HTTP_11, Version::HTTP_2, Version::HTTP_2]
    );
}

#[tokio::test]
async fn wrong_numbers_are_one_clear_error() {
    for (options, text) in [
        (["--retry", "99"], "attempts"),
        (["--request-timeout", "soon"], "expected seconds such as 30"),
        (["--retry-budget", "10"], "--retry"),
        (["--upstream-protocol", "spdy"], "http1, h2c, auto"),
    ] {
        let output = super::gateway::binary()
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--route", "a.example.com/=web.default:80"])
            .args(options)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{options:?}");
        assert!(said.contains(text), "{options:?}: {said}");
    }
}
