//! Answers that are not from the name server, or not to the question (RFC 5452).
#![cfg(feature = "hickory")]
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};

use mesh_ingress_resolve::{ClusterDns, IpFamilies};
use support::{IP, addrs, watch};
use tokio::net::UdpSocket;

/// The answer to a query: its own bytes with the header and one A record changed (RFC 1035 §4.1).
fn answer(query: &[u8], address: Ipv4Addr) -> Vec<u8> {
    // Only the question is kept: 12 bytes of header, the name up to its end, type and class.
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
    let mut message = query[..12 + name + 1 + 4].to_vec();
    message[2] = 0x85; // a response, authoritative, recursion desired
    message[3] = 0x80; // recursion available, no error
    message[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
    message.extend([0xc0, 12]); // the name of the question
    message.extend([0, 1, 0, 1, 0, 0, 0, 30, 0, 4]); // A, IN, TTL 30, 4 bytes
    message.extend(address.octets());
    message
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buf = vec![0; 1500];
    let (length, from) = socket.recv_from(&mut buf).await.unwrap();
    buf.truncate(length);
    (buf, from)
}

#[tokio::test]
async fn forged_answers_are_ignored() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dns = ClusterDns::builder()
        .nameserver(server.local_addr().unwrap())
        .ip_families(IpFamilies::V4)
        .build()
        .unwrap();
    let watch = watch(&dns, "web.default:80");
    let mut changes = watch.changes();
    let (query, client) = receive(&server).await;
    let evil = Ipv4Addr::new(10, 66, 66, 66);

    // Right in all but where it comes from.
    elsewhere
        .send_to(&answer(&query, evil), client)
        .await
        .unwrap();
    // From the server, with another id.
    let mut other_id = answer(&query, evil);
    other_id[0] ^= 0xff;
    server.send_to(&other_id, client).await.unwrap();
    // From the server, to another question: "xeb.default…".
    let mut other_question = answer(&query, evil);
    assert_eq!(&other_question[12..16], b"\x03web");
    other_question[13] = b'x';
    server.send_to(&other_question, client).await.unwrap();
    // Too short to have an id.
    server.send_to(&[0], client).await.unwrap();

    server.send_to(&answer(&query, IP), client).await.unwrap();
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.7:80"]));
}

#[tokio::test]
async fn malformed_answer_is_a_server_failure() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dns = ClusterDns::builder()
        .nameserver(server.local_addr().unwrap())
        .ip_families(IpFamilies::V4)
        .build()
        .unwrap();
    let watch = watch(&dns, "web.default:80");
    let mut changes = watch.changes();
    let (query, client) = receive(&server).await;
    // A record that claims to be longer than the message.
    let mut broken = answer(&query, IP);
    let length = broken.len() - 5;
    broken[length] = 200;
    server.send_to(&broken, client).await.unwrap();
    let error = changes.next().await.unwrap_err().report().to_string();
    assert!(error.contains("is of no use"), "{error}");
    // It is asked again, and may do better.
    let (query, client) = receive(&server).await;
    server.send_to(&answer(&query, IP), client).await.unwrap();
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.7:80"]));
}
