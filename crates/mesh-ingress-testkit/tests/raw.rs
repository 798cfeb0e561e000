//! The scripted origin.
#![allow(clippy::unwrap_used)] // helpers of tests are tests, too

use std::io::ErrorKind;

use mesh_ingress_testkit::{Closed, Gate, RawOrigin, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\n";

async fn connect(origin: &RawOrigin, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(origin.addr()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn steps_are_followed_and_every_byte_is_recorded() {
    let origin = RawOrigin::start([vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
        Step::ReadBody(5),
        Step::send("HTTP/1.1 200 OK\r\n\r\n"),
        Step::ReadUntil("END".into()),
        Step::Close,
    ]])
    .await
    .unwrap();
    let mut client = connect(&origin, HEAD).await;
    let mut interim = [0; 25];
    client.read_exact(&mut interim).await.unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"));
    client.write_all(b"hello and the END").await.unwrap();
    assert_eq!(rest(&mut client).await, b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(origin.wait_for_closed(0).await, Closed::ByScript);
    assert_eq!(origin.received(0), [HEAD, b"hello and the END"].concat());
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn each_connection_has_its_script_and_the_last_one_repeats() {
    let say = |text: &'static str| vec![Step::ReadHead, Step::send(text), Step::Close];
    let origin = RawOrigin::start([say("one"), say("two")]).await.unwrap();
    for expected in ["one", "two", "two"] {
        let mut client = connect(&origin, b"\r\n\r\n").await;
        assert_eq!(rest(&mut client).await, expected.as_bytes());
    }
    origin.wait_for_connections(3).await;
    assert_eq!(origin.received(2), b"\r\n\r\n");
    assert_eq!(origin.received(3), b"");
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let origin = RawOrigin::start([vec![Step::ReadHead, Step::send("HTTP/1.1"), Step::Reset]])
        .await
        .unwrap();
    let mut client = connect(&origin, HEAD).await;
    let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(origin.wait_for_closed(0).await, Closed::ByScript);
}

#[tokio::test]
async fn half_a_connection_can_be_closed() {
    let origin = RawOrigin::start([vec![Step::ReadHead, Step::CloseWrite]])
        .await
        .unwrap();
    let mut client = connect(&origin, HEAD).await;
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(origin.closed(0), None);
    client.write_all(b"still here").await.unwrap();
    origin
        .wait_for_received(0, |r| r.ends_with(b"still here"))
        .await;
    drop(client);
    assert_eq!(origin.wait_for_closed(0).await, Closed::ByClient);
}

#[tokio::test]
async fn gate_holds_the_script() {
    let gate = Gate::new();
    let origin = RawOrigin::start([vec![
        Step::ReadHead,
        Step::Hold(gate.clone()),
        Step::send("late"),
        Step::Close,
    ]])
    .await
    .unwrap();
    let mut client = connect(&origin, b"\r\n\r\n").await;
    origin.wait_for_received(0, |r| r.len() == 4).await;
    let nothing = client.try_read(&mut [0; 4]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    gate.open();
    assert_eq!(rest(&mut client).await, b"late");
}

#[tokio::test]
async fn end_of_the_client_is_recorded() {
    let origin = RawOrigin::start([
        vec![Step::ReadHead],
        vec![Step::ReadHead, Step::ReadBody(9)],
    ])
    .await
    .unwrap();
    // After the script: read on until the client closes.
    let mut client = connect(&origin, HEAD).await;
    client.write_all(b"more").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(origin.wait_for_closed(0).await, Closed::ByClient);
    assert!(origin.received(0).ends_with(b"more"));
    assert_eq!(rest(&mut client).await, b"");

    // In the middle of a step.
    let client = connect(&origin, HEAD).await;
    origin.wait_for_received(1, |r| r == HEAD).await;
    drop(client);
    assert_eq!(origin.wait_for_closed(1).await, Closed::ByClient);

    // By a reset.
    let client = connect(&origin, HEAD).await;
    origin.wait_for_received(2, |r| r == HEAD).await;
    socket2::SockRef::from(&client)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(client);
    let broken = Closed::Broken(ErrorKind::ConnectionReset);
    assert_eq!(origin.wait_for_closed(2).await, broken);
}

#[tokio::test]
async fn without_a_script_it_only_listens_and_a_dropped_one_frees_its_port() {
    let origin = RawOrigin::start([]).await.unwrap();
    let addr = origin.addr();
    let mut client = connect(&origin, b"anything").await;
    origin.wait_for_received(0, |r| r == b"anything").await;
    drop(origin);
    assert!(TcpStream::connect(addr).await.is_err());
    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    RawOrigin::start_on(addr, []).await.unwrap();
}
