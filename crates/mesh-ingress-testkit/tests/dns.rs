//! The cluster DNS server, asked with raw messages and with a real resolver.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests, too

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use mesh_ingress_core::{ClusterDomain, ServiceRef};
use mesh_ingress_testkit::{DnsServer, Fault, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const WEB: &str = "web.default.svc.cluster.local.";

fn question(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

async fn send_udp(server: SocketAddr, message: &Message) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&message.to_vec().unwrap()).await.unwrap();
    socket
}

async fn receive_udp(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 65535];
    let length = socket.recv(&mut buffer).await.unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn ask(dns: &DnsServer, name: &str, record_type: RecordType) -> Message {
    let socket = send_udp(dns.addr(), &question(name, record_type)).await;
    let answer = receive_udp(&socket).await;
    assert_eq!(answer.metadata.id, 4711);
    answer
}

async fn exchange_tcp(stream: &mut TcpStream, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

async fn ask_tcp(dns: &DnsServer, name: &str, record_type: RecordType) -> Message {
    let mut stream = TcpStream::connect(dns.addr()).await.unwrap();
    exchange_tcp(&mut stream, &question(name, record_type)).await
}

fn addresses(answer: &Message) -> Vec<String> {
    answer
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect()
}

fn negative_ttl(answer: &Message) -> u32 {
    let [soa] = answer.authorities.as_slice() else {
        panic!("expected one SOA: {answer}");
    };
    let RData::SOA(data) = &soa.data else {
        panic!("expected a SOA: {soa}");
    };
    assert_eq!(soa.ttl, data.minimum);
    data.minimum
}

fn resolver(dns: &DnsServer) -> TokioResolver {
    let mut udp = ConnectionConfig::udp();
    udp.port = dns.addr().port();
    let mut tcp = ConnectionConfig::tcp();
    tcp.port = dns.addr().port();
    let server = NameServerConfig::new(dns.addr().ip(), true, vec![udp, tcp]);
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    options.attempts = 0;
    Resolver::builder_with_config(
        ResolverConfig::from_parts(None, vec![], vec![server]),
        TokioRuntimeProvider::default(),
    )
    .with_options(options)
    .build()
    .unwrap()
}

#[tokio::test]
async fn addresses_are_answered_with_their_ttl_over_both_transports() {
    let dns = DnsServer::start().await.unwrap();
    let (one, two) = (Ipv4Addr::new(10, 96, 0, 7), Ipv4Addr::new(10, 96, 0, 8));
    dns.set_a("web.default.svc.cluster.local", [one, two]);
    dns.set_aaaa(WEB, [Ipv6Addr::LOCALHOST]);

    for answer in [
        ask(&dns, WEB, RecordType::A).await,
        ask_tcp(&dns, WEB, RecordType::A).await,
    ] {
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.metadata.authoritative && !answer.metadata.truncation);
        assert_eq!(addresses(&answer), ["10.96.0.7", "10.96.0.8"]);
        assert!(answer.answers.iter().all(|record| record.ttl == 5));
    }
    assert_eq!(addresses(&ask(&dns, WEB, RecordType::AAAA).await), ["::1"]);

    dns.set_ttl(30);
    dns.set_a(WEB, [two]);
    let answer = ask(&dns, WEB, RecordType::A).await;
    assert_eq!(addresses(&answer), ["10.96.0.8"]);
    assert_eq!(answer.answers[0].ttl, 30);
}

#[tokio::test]
async fn case_of_the_question_is_ignored_and_kept() {
    let dns = DnsServer::start().await.unwrap();
    dns.set_a("WEB.Default.svc.cluster.local", [Ipv4Addr::LOCALHOST]);
    let answer = ask(&dns, "wEb.dEfault.SVC.cluster.local.", RecordType::A).await;
    assert_eq!(addresses(&answer), ["127.0.0.1"]);
    assert_eq!(
        answer.answers[0].name.to_ascii(),
        "wEb.dEfault.SVC.cluster.local."
    );
    assert_eq!(dns.queries()[0].name, WEB);
}

#[tokio::test]
async fn no_data_and_no_name_are_told_apart_and_carry_a_soa() {
    let dns = DnsServer::start().await.unwrap();
    dns.set_a(WEB, [Ipv4Addr::LOCALHOST]);
    dns.set_negative_ttl(17);

    let no_data = ask(&dns, WEB, RecordType::AAAA).await;
    assert_eq!(no_data.metadata.response_code, ResponseCode::NoError);
    assert!(no_data.answers.is_empty());
    assert_eq!(negative_ttl(&no_data), 17);
    assert_eq!(no_data.authorities[0].name.to_ascii(), "cluster.local.");

    let no_name = ask(&dns, "nope.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(no_name.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(negative_ttl(&no_name), 17);

    // A parent of a name exists (RFC 8020 §2).
    let parent = ask(&dns, "default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(parent.metadata.response_code, ResponseCode::NoError);
    assert_eq!(negative_ttl(&parent), 17);

    let elsewhere = ask(&dns, "example.com.", RecordType::A).await;
    assert_eq!(elsewhere.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(elsewhere.authorities[0].name.to_ascii(), ".");

    dns.remove(WEB);
    let removed = ask(&dns, WEB, RecordType::A).await;
    assert_eq!(removed.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn a_service_is_found_by_name_and_by_port_name() {
    let dns = DnsServer::start().await.unwrap();
    let domain: ClusterDomain = "k8s.example".parse().unwrap();
    let web: ServiceRef = "web.shop:http".parse().unwrap();
    dns.add_service_port(&web, &domain, "10.96.0.7".parse().unwrap(), 8080);
    dns.add_service(&web, &domain, "fd00::7".parse().unwrap());

    let name = "web.shop.svc.k8s.example.";
    assert_eq!(
        addresses(&ask(&dns, name, RecordType::A).await),
        ["10.96.0.7"]
    );
    assert_eq!(
        addresses(&ask(&dns, name, RecordType::AAAA).await),
        ["fd00::7"]
    );
    let srv_name = "_http._tcp.web.shop.svc.k8s.example.";
    let srv = ask(&dns, srv_name, RecordType::SRV).await;
    assert_eq!(addresses(&srv), [format!("0 100 8080 {name}")]);
    let additionals: Vec<_> = srv.additionals.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(additionals, ["10.96.0.7", "fd00::7"]);

    dns.set_srv_additionals(false);
    let srv = ask(&dns, srv_name, RecordType::SRV).await;
    assert!(srv.additionals.is_empty());

    // A missing name is denied by the zone of that domain.
    let absent = ask(&dns, "x.shop.svc.k8s.example.", RecordType::A).await;
    assert_eq!(absent.authorities[0].name.to_ascii(), "k8s.example.");

    // A port given by number is in no SRV record.
    let api: ServiceRef = "api.shop:80".parse().unwrap();
    dns.add_service_port(&api, &domain, "10.96.0.8".parse().unwrap(), 80);
    let none = ask(
        &dns,
        "_http._tcp.api.shop.svc.k8s.example.",
        RecordType::SRV,
    )
    .await;
    assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn several_srv_records_share_the_weight() {
    let dns = DnsServer::start().await.unwrap();
    let name = "_http._tcp.db.default.svc.cluster.local";
    dns.set_srv(name, 1, "stale.db.default.svc.cluster.local");
    dns.set_srv(name, 5432, "a.db.default.svc.cluster.local");
    dns.add_srv(name, 5432, "b.db.default.svc.cluster.local");
    let answer = ask(&dns, name, RecordType::SRV).await;
    assert_eq!(
        addresses(&answer),
        [
            "0 50 5432 a.db.default.svc.cluster.local.",
            "0 50 5432 b.db.default.svc.cluster.local."
        ]
    );
}

#[tokio::test]
async fn an_alias_is_followed_in_the_same_answer() {
    let dns = DnsServer::start().await.unwrap();
    dns.set_cname(
        "ext.default.svc.cluster.local",
        "ext2.default.svc.cluster.local",
    );
    dns.set_cname("ext2.default.svc.cluster.local", "api.example.com");
    dns.set_a("api.example.com", [Ipv4Addr::new(192, 0, 2, 1)]);

    let ext = "ext.default.svc.cluster.local.";
    assert_eq!(
        addresses(&ask(&dns, ext, RecordType::A).await),
        [
            "ext2.default.svc.cluster.local.",
            "api.example.com.",
            "192.0.2.1"
        ]
    );
    // Asked for the alias itself, it is not followed.
    assert_eq!(
        addresses(&ask(&dns, ext, RecordType::CNAME).await),
        ["ext2.default.svc.cluster.local."]
    );
    // The end of the chain has no such data.
    let no_data = ask(&dns, ext, RecordType::AAAA).await;
    assert_eq!(no_data.answers.len(), 2);
    assert_eq!(no_data.metadata.response_code, ResponseCode::NoError);
    negative_ttl(&no_data);

    // The end is not ours to deny …
    dns.remove("api.example.com");
    let dangling = ask(&dns, ext, RecordType::A).await;
    assert_eq!(dangling.metadata.response_code, ResponseCode::NoError);
    assert_eq!(dangling.answers.len(), 2);
    // … and one that is (RFC 6604 §3).
    dns.remove("ext2.default.svc.cluster.local");
    let broken = ask(&dns, ext, RecordType::A).await;
    assert_eq!(broken.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(broken.answers.len(), 1);

    // A loop ends.
    dns.set_cname("ext2.default.svc.cluster.local", ext);
    let looped = ask(&dns, ext, RecordType::A).await;
    assert!(looped.answers.len() > 1);

    // Records of its own take the alias away.
    dns.set_a(ext, [Ipv4Addr::LOCALHOST]);
    assert_eq!(
        addresses(&ask(&dns, ext, RecordType::A).await),
        ["127.0.0.1"]
    );
}

#[tokio::test]
async fn faults_hit_all_names_or_one_and_end() {
    let dns = DnsServer::start().await.unwrap();
    let api = "api.default.svc.cluster.local.";
    dns.set_a(WEB, [Ipv4Addr::LOCALHOST]);
    dns.set_a(api, [Ipv4Addr::LOCALHOST]);

    for (fault, code) in [
        (Fault::ServFail, ResponseCode::ServFail),
        (Fault::Refused, ResponseCode::Refused),
        (Fault::NxDomain, ResponseCode::NXDomain),
    ] {
        dns.set_fault(Some(fault));
        for answer in [
            ask(&dns, WEB, RecordType::A).await,
            ask_tcp(&dns, WEB, RecordType::A).await,
        ] {
            assert_eq!(answer.metadata.response_code, code);
            assert!(answer.answers.is_empty());
        }
    }
    negative_ttl(&ask(&dns, WEB, RecordType::A).await);

    dns.set_name_fault("WEB.default.svc.cluster.local", Some(Fault::ServFail));
    let answer = ask(&dns, WEB, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    dns.set_fault(None);
    let answer = ask(&dns, WEB, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(ask(&dns, api, RecordType::A).await.answers.len(), 1);
    dns.set_name_fault(WEB, None);
    assert_eq!(ask(&dns, WEB, RecordType::A).await.answers.len(), 1);
}

#[tokio::test]
async fn a_dropped_query_is_logged_and_not_answered() {
    let dns = DnsServer::start().await.unwrap();
    dns.set_a(WEB, [Ipv4Addr::LOCALHOST]);
    dns.set_name_fault(WEB, Some(Fault::Drop));
    let socket = send_udp(dns.addr(), &question(WEB, RecordType::A)).await;
    dns.wait_for_queries(1).await;
    // The server answers in order: had it answered the first, that would come first.
    let other = question("other.default.svc.cluster.local.", RecordType::A);
    socket.send(&other.to_vec().unwrap()).await.unwrap();
    let answer = receive_udp(&socket).await;
    assert_eq!(
        answer.queries[0].name.to_ascii(),
        "other.default.svc.cluster.local."
    );
}

#[tokio::test]
async fn truncation_by_fault_and_by_size_sends_the_client_to_tcp() {
    let dns = DnsServer::start().await.unwrap();
    dns.set_a(WEB, [Ipv4Addr::LOCALHOST]);
    dns.set_fault(Some(Fault::Truncate));
    let cut = ask(&dns, WEB, RecordType::A).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = ask_tcp(&dns, WEB, RecordType::A).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(addresses(&whole), ["127.0.0.1"]);
    dns.set_fault(None);

    // A headless Service of 60 pods: more than 512 bytes, less than 1232.
    dns.set_a(WEB, (1..=60).map(|pod| Ipv4Addr::new(10, 0, 0, pod)));
    assert!(ask(&dns, WEB, RecordType::A).await.metadata.truncation);
    let mut with_edns = question(WEB, RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    with_edns.set_edns(edns);
    let socket = send_udp(dns.addr(), &with_edns).await;
    let answer = receive_udp(&socket).await;
    assert!(!answer.metadata.truncation);
    assert!(answer.edns.is_some(), "RFC 6891 §7");
    assert_eq!(answer.answers.len(), 60);

    let resolver = resolver(&dns);
    dns.set_a(WEB, (1..=250).map(|pod| Ipv4Addr::new(10, 0, 0, pod)));
    dns.clear_queries();
    let found = resolver.lookup_ip(WEB).await.unwrap();
    assert_eq!(found.iter().filter(std::net::IpAddr::is_ipv4).count(), 250);
    let queries = dns.queries();
    for transport in [Transport::Udp, Transport::Tcp] {
        assert!(
            queries
                .iter()
                .any(|q| q.transport == transport && q.record_type == "A")
        );
    }
}

#[tokio::test]
async fn a_delayed_answer_comes_later_and_holds_up_no_other() {
    const HOUR: Duration = Duration::from_secs(3600);
    let dns = DnsServer::start().await.unwrap();
    dns.set_a(WEB, [Ipv4Addr::LOCALHOST]);
    dns.set_name_fault(WEB, Some(Fault::Delay(HOUR)));
    let slow = send_udp(dns.addr(), &question(WEB, RecordType::A)).await;
    dns.wait_for_queries(1).await;

    let quick = ask(&dns, "nope.cluster.local.", RecordType::A).await;
    assert_eq!(quick.metadata.response_code, ResponseCode::NXDomain);
    let early = slow.try_recv(&mut [0; 512]).unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);

    tokio::time::pause();
    tokio::time::advance(HOUR).await;
    assert_eq!(addresses(&receive_udp(&slow).await), ["127.0.0.1"]);
}

#[tokio::test]
async fn queries_are_logged_and_waited_for() {
    let dns = DnsServer::start().await.unwrap();
    dns.set_a(WEB, [Ipv4Addr::LOCALHOST]);
    let (_, _) = tokio::join!(dns.wait_for_queries(1), ask(&dns, WEB, RecordType::A));
    ask_tcp(&dns, WEB, RecordType::SRV).await;
    dns.wait_for_queries(2).await;

    let seen: Vec<_> = dns
        .queries()
        .into_iter()
        .map(|q| (q.name, q.record_type, q.transport))
        .collect();
    assert_eq!(
        seen,
        [
            (WEB.to_owned(), "A".to_owned(), Transport::Udp),
            (WEB.to_owned(), "SRV".to_owned(), Transport::Tcp),
        ]
    );
    dns.clear_queries();
    assert!(dns.queries().is_empty());
}

#[tokio::test]
async fn message_that_is_no_query_is_refused() {
    let dns = DnsServer::start().await.unwrap();
    let mut update = question(WEB, RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    let answer = receive_udp(&send_udp(dns.addr(), &update).await).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);

    let mut empty = question(WEB, RecordType::A);
    empty.queries.clear();
    let answer = receive_udp(&send_udp(dns.addr(), &empty).await).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);

    let mut garbage = question(WEB, RecordType::A).to_vec().unwrap();
    garbage.truncate(20);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(dns.addr()).await.unwrap();
    socket.send(&garbage).await.unwrap();
    let answer = receive_udp(&socket).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(answer.metadata.id, 4711);
    assert!(dns.queries().is_empty());
}

#[tokio::test]
async fn one_connection_carries_many_queries() {
    let dns = DnsServer::start().await.unwrap();
    dns.set_a(WEB, [Ipv4Addr::LOCALHOST]);
    let mut stream = TcpStream::connect(dns.addr()).await.unwrap();
    for _ in 0..3 {
        let answer = exchange_tcp(&mut stream, &question(WEB, RecordType::A)).await;
        assert_eq!(answer.answers.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_server_frees_its_port_at_once() {
    let dns = DnsServer::start().await.unwrap();
    let addr = dns.addr();
    dns.set_a(WEB, [Ipv4Addr::LOCALHOST]);
    let mut stream = TcpStream::connect(addr).await.unwrap();
    exchange_tcp(&mut stream, &question(WEB, RecordType::A)).await;

    let mut dns = Some(dns);
    for _ in 0..20 {
        drop(dns.take());
        dns = Some(DnsServer::start_on(addr).await.unwrap());
    }
    // Connections of the old one end with it.
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    let dns = dns.unwrap();
    assert_eq!(dns.addr(), addr);
    let answer = ask(&dns, WEB, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn a_real_resolver_understands_it() {
    let dns = DnsServer::start().await.unwrap();
    let web: ServiceRef = "web.default:http".parse().unwrap();
    let domain = ClusterDomain::default();
    dns.add_service_port(&web, &domain, "10.96.0.7".parse().unwrap(), 80);
    let resolver = resolver(&dns);

    let found = resolver.lookup_ip(WEB).await.unwrap();
    let ips: Vec<_> = found.iter().map(|ip| ip.to_string()).collect();
    assert_eq!(ips, ["10.96.0.7"]);
    let srv = resolver
        .srv_lookup("_http._tcp.web.default.svc.cluster.local.")
        .await
        .unwrap();
    assert!(
        srv.answers()
            .iter()
            .any(|record| { matches!(&record.data, RData::SRV(srv) if srv.port == 80) })
    );
    let absent = resolver.lookup_ip("no.default.svc.cluster.local.").await;
    assert!(absent.unwrap_err().is_nx_domain());
}
