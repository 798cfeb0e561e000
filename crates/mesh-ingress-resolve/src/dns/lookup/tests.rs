use std::sync::Mutex;

use mesh_ingress_core::{ClusterDomain, ErrorKind};
use tokio::time::Instant;

use super::super::cause::Class;
use super::super::mock_name_server::{
    MockNameServer, Reply, WEB, absolute, alias_record, record, record_of, replies, secs, settings,
    sockets, srv_record,
};
use super::*;
use crate::{AddressPolicy, Balance};

async fn look(
    server: &MockNameServer,
    service: &str,
    settings: &Settings,
) -> Result<Found, Failure> {
    look_early(server, service, settings).await.0
}

async fn look_early(
    server: &MockNameServer,
    service: &str,
    settings: &Settings,
) -> (Result<Found, Failure>, Vec<Found>) {
    let question = Question::new(&service.parse().unwrap(), &ClusterDomain::default());
    let early = Mutex::new(Vec::new());
    let result = look_up(server, &question, settings, &mut |found| {
        early.lock().unwrap().push(found);
    })
    .await;
    (result, early.into_inner().unwrap())
}

fn both() -> Settings {
    Settings {
        families: IpFamilies::Both,
        ..settings()
    }
}

#[tokio::test]
async fn a_number_needs_one_question_a_family() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, replies(30, &["10.96.0.7"]));
    let found = look(&server, "web.default:80", &settings()).await.unwrap();
    assert_eq!(found.addresses, sockets(&["10.96.0.7:80"]));
    assert_eq!(found.ttl, secs(30));
    let asked = server.queries();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].name, WEB);
}

#[tokio::test]
async fn ipv6_comes_first() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, replies(30, &["10.96.0.7"]));
    server.reply(RecordType::AAAA, replies(10, &["fd00::7"]));
    let found = look(&server, "web.default:80", &both()).await.unwrap();
    assert_eq!(found.addresses, sockets(&["[fd00::7]:80", "10.96.0.7:80"]));
    assert_eq!(found.ttl, secs(10), "the shortest of both");
}

#[tokio::test]
async fn nodata_for_one_family_is_no_failure() {
    for (has, has_not, address) in [
        (RecordType::A, RecordType::AAAA, "10.96.0.7"),
        (RecordType::AAAA, RecordType::A, "fd00::7"),
    ] {
        let server = MockNameServer::new();
        server.reply(has, replies(30, &[address]));
        server.reply(has_not, Reply::NoData);
        let found = look(&server, "web.default:80", &both()).await.unwrap();
        assert_eq!(found.addresses.len(), 1);
        assert!(found.unknown.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_family_holds_nothing_up_rfc8305_section_3() {
    for (quick, slow, is_v6, address) in [
        (RecordType::A, RecordType::AAAA, true, "10.96.0.7"),
        (RecordType::AAAA, RecordType::A, false, "fd00::7"),
    ] {
        let server = MockNameServer::new();
        server.reply(quick, replies(30, &[address]));
        server.reply(slow, Reply::Silence);
        let started = Instant::now();
        let (found, early) = look_early(&server, "web.default:80", &both()).await;
        assert_eq!(started.elapsed(), secs(1));
        let unknown = found.unwrap().unknown.unwrap();
        assert_eq!(unknown.is_v6, is_v6);
        assert_eq!(unknown.error.unwrap().kind(), ErrorKind::DnsTimeout);
        let [early] = &early[..] else {
            panic!("{early:?}")
        };
        assert_eq!(early.addresses.len(), 1);
        assert_eq!(early.unknown.as_ref().unwrap().is_v6, is_v6);
    }
}

#[tokio::test(start_paused = true)]
async fn within_fifty_milliseconds_both_are_waited_for() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, replies(30, &["10.96.0.7"]));
    let late = replies(30, &["fd00::7"]);
    server.reply(
        RecordType::AAAA,
        Reply::Late(Duration::from_millis(40), Box::new(late)),
    );
    let (found, early) = look_early(&server, "web.default:80", &both()).await;
    assert_eq!(found.unwrap().addresses.len(), 2);
    assert!(early.is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_addresses_there_is_nothing_to_go_on_with_early() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, Reply::NoData);
    let late = replies(30, &["fd00::7"]);
    server.reply(RecordType::AAAA, Reply::Late(secs(1), Box::new(late)));
    let (found, early) = look_early(&server, "web.default:80", &both()).await;
    assert_eq!(found.unwrap().addresses, sockets(&["[fd00::7]:80"]));
    assert!(early.is_empty());
}

#[tokio::test(start_paused = true)]
async fn most_severe_of_two_family_failures_is_reported() {
    use Reply::{NoData, NoName, ServFail, Silence};
    for (a, aaaa, class, text) in [
        (NoName, NoName, "absent", "NXDOMAIN"),
        (NoName, Silence, "absent", "NXDOMAIN"),
        (NoData, NoData, "absent", "A or AAAA"),
        (NoData, ServFail, "unavailable", "SERVFAIL"),
        (ServFail, NoData, "unavailable", "SERVFAIL"),
        (Silence, Silence, "unavailable", "did not answer within 1s"),
    ] {
        let server = MockNameServer::new();
        server.reply(RecordType::A, a);
        server.reply(RecordType::AAAA, aaaa);
        let failure = look(&server, "web.default:80", &both()).await.unwrap_err();
        let found = match failure.class {
            Class::Absent { .. } => "absent",
            Class::Unavailable => "unavailable",
            Class::Forbidden => "forbidden",
        };
        assert_eq!(found, class, "{failure:?}");
        assert!(failure.error.to_string().contains(text), "{failure:?}");
    }
}

#[tokio::test]
async fn bad_addresses_are_left_out_and_counted() {
    let server = MockNameServer::new();
    let answer = replies(30, &["169.254.169.254", "10.96.0.7", "127.0.0.1"]);
    server.reply(RecordType::A, answer);
    let found = look(&server, "web.default:80", &settings()).await.unwrap();
    assert_eq!(found.addresses, sockets(&["10.96.0.7:80"]));
    assert_eq!(found.prohibited, 2);

    server.reply(RecordType::A, replies(30, &["169.254.169.254"]));
    let failure = look(&server, "web.default:80", &settings())
        .await
        .unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::DestinationIpProhibited);
    assert_eq!(failure.class, Class::Forbidden);
    assert_eq!(failure.prohibited, 1);
    let text = failure.error.to_string();
    assert!(text.contains("169.254.169.254"), "{text}");
}

#[tokio::test]
async fn an_alias_is_refused_and_not_even_asked_for() {
    let server = MockNameServer::new();
    let answer = vec![
        alias_record(WEB, "evil.test."),
        record_of("evil.test.", 30, "203.0.113.1"),
    ];
    server.reply(RecordType::A, Reply::Records(answer));
    let failure = look(&server, "web.default:80", &settings())
        .await
        .unwrap_err();
    assert_eq!(failure.class, Class::Forbidden);
    assert!(failure.error.to_string().contains("evil.test."));
    assert_eq!(server.queries().len(), 1);
}

#[tokio::test]
async fn an_alias_is_followed_only_into_the_domains_given() {
    let mut settings = settings();
    settings.external = vec![absolute("example.com.")];
    let server = MockNameServer::new();
    // The target's address comes along, or is asked for.
    let alias = alias_record(WEB, "db.example.com.");
    let address = record_of("db.example.com.", 7, "203.0.113.1");
    server.reply_for(
        WEB,
        RecordType::A,
        Reply::Records(vec![alias.clone(), address.clone()]),
    );
    let found = look(&server, "web.default:80", &settings).await.unwrap();
    assert_eq!(found.addresses, sockets(&["203.0.113.1:80"]));
    assert_eq!(found.ttl, secs(7));
    assert_eq!(server.queries().len(), 1);

    server.reply_for(WEB, RecordType::A, Reply::Records(vec![alias]));
    server.reply_for(
        "db.example.com.",
        RecordType::A,
        Reply::Records(vec![address]),
    );
    server.forget_queries();
    let found = look(&server, "web.default:80", &settings).await.unwrap();
    assert_eq!(found.addresses, sockets(&["203.0.113.1:80"]));
    assert_eq!(server.queries().len(), 2);

    // A name that merely ends alike, and a second step that leads out.
    for records in [
        vec![alias_record(WEB, "evilexample.com.")],
        vec![
            alias_record(WEB, "db.example.com."),
            alias_record("db.example.com.", "evil.test."),
        ],
    ] {
        server.reply_for(WEB, RecordType::A, Reply::Records(records));
        let failure = look(&server, "web.default:80", &settings)
            .await
            .unwrap_err();
        assert_eq!(failure.class, Class::Forbidden);
    }
}

#[tokio::test]
async fn a_circle_of_aliases_ends() {
    let mut settings = settings();
    settings.external = vec![absolute("local.")];
    let server = MockNameServer::new();
    server.reply(
        RecordType::A,
        Reply::Records(vec![
            alias_record(WEB, "a.local."),
            alias_record("a.local.", WEB),
        ]),
    );
    let failure = look(&server, "web.default:80", &settings)
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("circle"), "{failure:?}");
    // Each step in an answer of its own.
    let server = MockNameServer::new();
    for step in 0..20 {
        let (owner, target) = (format!("a{step}.local."), format!("a{}.local.", step + 1));
        let answer = Reply::Records(vec![alias_record(&owner, &target)]);
        server.reply_for(&owner, RecordType::A, answer);
    }
    let answer = Reply::Records(vec![alias_record(WEB, "a0.local.")]);
    server.reply_for(WEB, RecordType::A, answer);
    let failure = look(&server, "web.default:80", &settings)
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("circle"), "{failure:?}");
    assert_eq!(server.queries().len(), MOST_ALIASES + 1);
}

#[tokio::test]
async fn a_named_port_takes_the_address_that_comes_along() {
    let server = MockNameServer::new();
    let answer = vec![srv_record(8080, WEB)];
    let brought = vec![record(5, "10.96.0.7"), record_of("evil.", 1, "10.0.0.1")];
    server.reply(RecordType::SRV, Reply::WithAdditionals(answer, brought));
    let found = look(&server, "web.default:http", &both()).await.unwrap();
    assert_eq!(found.addresses, sockets(&["10.96.0.7:8080"]));
    assert_eq!(found.ttl, secs(5));
    let asked = server.queries();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].name, format!("_http._tcp.{WEB}"));
}

#[tokio::test]
async fn a_named_port_asks_for_an_address_that_does_not() {
    let server = MockNameServer::new();
    server.reply(RecordType::SRV, Reply::Records(vec![srv_record(8080, WEB)]));
    server.reply(RecordType::A, replies(60, &["10.96.0.7"]));
    let found = look(&server, "web.default:http", &settings())
        .await
        .unwrap();
    assert_eq!(found.addresses, sockets(&["10.96.0.7:8080"]));
    assert_eq!(found.ttl, secs(30), "the SRV record's");
    let types: Vec<_> = server
        .queries()
        .iter()
        .map(|asked| asked.record_type)
        .collect();
    assert_eq!(types, [RecordType::SRV, RecordType::A]);
}

#[tokio::test]
async fn missing_port_fails() {
    for reply in [
        Reply::NoName,
        Reply::NoData,
        Reply::Records(vec![srv_record(80, ".")]),
    ] {
        let server = MockNameServer::new();
        server.reply(RecordType::SRV, reply);
        let failure = look(&server, "web.default:http", &settings())
            .await
            .unwrap_err();
        assert!(matches!(failure.class, Class::Absent { .. }));
        let text = failure.error.to_string();
        assert!(text.contains("TCP port of that name"), "{text}");
        assert_eq!(server.queries().len(), 1);
    }
}

#[tokio::test]
async fn a_port_record_may_not_lead_elsewhere() {
    let server = MockNameServer::new();
    server.reply(
        RecordType::SRV,
        Reply::WithAdditionals(
            vec![srv_record(80, "evil.test.")],
            vec![record_of("evil.test.", 30, "203.0.113.1")],
        ),
    );
    let failure = look(&server, "web.default:http", &settings())
        .await
        .unwrap_err();
    assert_eq!(failure.class, Class::Forbidden);

    server.reply(
        RecordType::SRV,
        Reply::Records(vec![alias_record(
            &format!("_http._tcp.{WEB}"),
            "evil.test.",
        )]),
    );
    let mut settings = settings();
    let failure = look(&server, "web.default:http", &settings)
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("does not follow"));
    settings.external = vec![absolute("evil.test.")];
    let failure = look(&server, "web.default:http", &settings)
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("give it by number"));
}

#[tokio::test]
async fn pods_behind_a_named_port() {
    let (one, two) = (format!("a.{WEB}"), format!("b.{WEB}"));
    let server = MockNameServer::new();
    let answer = vec![srv_record(8080, &one), srv_record(9090, &two)];
    let brought = vec![
        record_of(&one, 30, "10.0.0.1"),
        record_of(&two, 30, "10.0.0.2"),
    ];
    server.reply(
        RecordType::SRV,
        Reply::WithAdditionals(answer.clone(), brought),
    );
    let failure = look(&server, "web.default:http", &settings())
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("headless"));

    let settings = Settings {
        headless: Headless::Spread(Balance::RoundRobin),
        ..settings()
    };
    let found = look(&server, "web.default:http", &settings).await.unwrap();
    assert_eq!(
        found.addresses,
        sockets(&["10.0.0.1:8080", "10.0.0.2:9090"])
    );

    // Without the addresses, different ports cannot be told apart.
    server.reply(RecordType::SRV, Reply::Records(answer));
    let failure = look(&server, "web.default:http", &settings)
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("different ports"));

    let answer = vec![srv_record(8080, &one), srv_record(8080, &two)];
    server.reply(RecordType::SRV, Reply::Records(answer));
    server.reply(RecordType::A, replies(30, &["10.0.0.1", "10.0.0.2"]));
    let found = look(&server, "web.default:http", &settings).await.unwrap();
    assert_eq!(
        found.addresses,
        sockets(&["10.0.0.1:8080", "10.0.0.2:8080"])
    );
}

#[tokio::test]
async fn one_pod_behind_a_named_port_is_headless_still() {
    let server = MockNameServer::new();
    let answer = vec![srv_record(80, &format!("a.{WEB}"))];
    server.reply(RecordType::SRV, Reply::Records(answer));
    let failure = look(&server, "web.default:http", &settings())
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("headless"));
}

#[tokio::test]
async fn the_policy_sees_addresses_that_come_along() {
    let server = MockNameServer::new();
    server.reply(
        RecordType::SRV,
        Reply::WithAdditionals(vec![srv_record(80, WEB)], vec![record(30, "127.0.0.1")]),
    );
    let failure = look(&server, "web.default:http", &settings())
        .await
        .unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::DestinationIpProhibited);
    let open = Settings {
        policy: AddressPolicy::default().allow("127.0.0.0/8".parse().unwrap()),
        ..settings()
    };
    assert!(look(&server, "web.default:http", &open).await.is_ok());
}

#[tokio::test]
async fn invalid_names_are_not_queried() {
    let server = MockNameServer::new();
    let port = "a".repeat(63);
    let failure = look(&server, &format!("web.default:{port}"), &settings())
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("too long"));
    assert!(server.queries().is_empty());
}
