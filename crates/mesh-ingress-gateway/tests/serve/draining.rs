//! From SIGTERM to the exit code: requests in progress, requests under way, and those cut off.

use mesh_ingress_testkit::{Behaviour, Gate, Origin, RawOrigin, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::gateway::{Gateway, exchange, exchange_raw};
use super::{GET, cluster};

#[tokio::test]
async fn drain_sends_connection_close_and_cuts_off_no_client() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .at("/slow", Behaviour::Gated(gate.clone()))
        .start()
        .await
        .unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let mut gateway = Gateway::start(&options).await;
    let slow = GET.replace("/x", "/slow");
    let addr = gateway.addr;
    let slow = tokio::spawn(async move { exchange(addr, &slow).await });
    // An idle connection that has been used before.
    let mut kept = TcpStream::connect(gateway.addr).await.unwrap();
    let get = "GET /x HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";
    kept.write_all(get.as_bytes()).await.unwrap();
    let mut reply = vec![0; 4096];
    let read = kept.read(&mut reply).await.unwrap();
    assert!(
        !String::from_utf8_lossy(&reply[..read])
            .to_lowercase()
            .contains("connection: close")
    );
    origin.wait_for_requests(2).await;

    // Its next request is under way when the drain begins.
    gateway.terminate();
    kept.write_all(get.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    kept.read_to_end(&mut reply).await.unwrap();
    let reply = String::from_utf8_lossy(&reply).to_lowercase();
    assert!(reply.starts_with("http/1.1 200 "), "{reply}");
    gate.open();
    assert!(slow.await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn sigterm_lets_requests_finish_and_exits_0() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .behaviour(Behaviour::Gated(gate.clone()))
        .start()
        .await
        .unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let mut gateway = Gateway::start(&options).await;
    let under_way = tokio::spawn(exchange_raw(gateway.addr, GET.as_bytes()));
    origin.wait_for_requests(1).await;
    gateway.terminate();
    gateway.wait_for_line("no new connections").await;
    gate.open();
    let reply = under_way.await.unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn sigterm_closes_requests_that_outlive_the_timeout() {
    let origin = Origin::builder()
        .behaviour(Behaviour::UpgradeEcho)
        .start()
        .await
        .unwrap();
    let (_dns, mut options) = cluster(origin.addr()).await;
    options.extend(["--shutdown-timeout", "100ms"].map(str::to_owned));
    let mut gateway = Gateway::start(&options).await;
    let mut client = TcpStream::connect(gateway.addr).await.unwrap();
    let upgrade = "GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(upgrade.as_bytes()).await.unwrap();
    assert_ne!(client.read(&mut [0; 1024]).await.unwrap(), 0);
    gateway.terminate();
    assert_eq!(gateway.exit_code().await, Some(0));
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

/// For an HTTP/1.0 client only the end of the connection delimits the response.
#[tokio::test]
async fn rfc9112_8_truncated_response_without_length_is_reset() {
    let script = vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        Step::Hold(Gate::new()),
    ];
    let raw = RawOrigin::start([script]).await.unwrap();
    let (_dns, mut options) = cluster(raw.addr()).await;
    options.extend(["--shutdown-timeout", "100ms"].map(str::to_owned));
    let mut gateway = Gateway::start(&options).await;
    let mut client = TcpStream::connect(gateway.addr).await.unwrap();
    let get = "GET / HTTP/1.0\r\nHost: shop.example.com\r\n\r\n";
    client.write_all(get.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(b"hello") {
        assert_ne!(client.read_buf(&mut reply).await.unwrap(), 0);
    }
    gateway.terminate();
    assert_eq!(gateway.exit_code().await, Some(0));
    let end = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn partial_request_head_is_awaited_during_drain() {
    let origin = Origin::builder().start().await.unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let mut gateway = Gateway::start(&options).await;
    let mut client = TcpStream::connect(gateway.addr).await.unwrap();
    client.write_all(b"GET /x HTTP/1.1\r\nHo").await.unwrap();
    // By the time that is answered the gateway has read the above.
    assert!(
        exchange(gateway.addr, GET)
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    let mut idle = TcpStream::connect(gateway.addr).await.unwrap();
    gateway.terminate();
    // Idle connections are closed when the drain begins.
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    client
        .write_all(b"st: shop.example.com\r\n\r\n")
        .await
        .unwrap();
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).await.unwrap();
    let reply = String::from_utf8_lossy(&reply).to_lowercase();
    assert!(reply.starts_with("http/1.1 200 "), "{reply}");
    assert!(reply.contains("connection: close"), "{reply}");
    assert_eq!(gateway.exit_code().await, Some(0));
}
