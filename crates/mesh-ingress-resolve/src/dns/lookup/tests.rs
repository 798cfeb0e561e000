use std::sync::Mutex;

use mesh_ingress_core::{ClusterDomain, ErrorKind};
use tokio::time::Instant;

use super::super::cause::Class;
use super::super::script::{
    Reply, Script, WEB, absolute, alias_record, record, record_of, replies, secs, settings,
    sockets, srv_record,
};
use super::*;
use crate::{AddressPolicy, Balance};

async fn look(script: &Script, service: &str, settings: &Settings) -> Result<Found, Failure> {
    look_early(script, service, settings).await.0
}

async fn look_early(
    script: &Script,
    service: &str,
    settings: &Settings,
) -> (Result<Found, Failure>, Vec<Found>) {
    let question = Question::new(&service.parse().unwrap(), &ClusterDomain::default());
    let early = Mutex::new(Vec::new());
    let result = look_up(script, &question, settings, &mut |found| {
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
    let script = Script::new();
    script.reply(RecordType::A, replies(30, &["10.96.0.7"]));
    let found = look(&script, "web.default:80", &settings()).await.unwrap();
    assert_eq!(found.addresses, sockets(&["10.96.0.7:80"]));
    assert_eq!(found.ttl, secs(30));
    let asked = script.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].name, WEB);
}

#[tokio::test]
async fn ipv6_comes_first() {
    let script = Script::new();
    script.reply(RecordType::A, replies(30, &["10.96.0.7"]));
    script.reply(RecordType::AAAA, replies(10, &["fd00::7"]));
    let found = look(&script, "web.default:80", &both()).await.unwrap();
    assert_eq!(found.addresses, sockets(&["[fd00::7]:80", "10.96.0.7:80"]));
    assert_eq!(found.ttl, secs(10), "the shortest of both");
}

#[tokio::test]
async fn one_family_without_data_is_none_the_worse() {
    for (has, has_not, address) in [
        (RecordType::A, RecordType::AAAA, "10.96.0.7"),
        (RecordType::AAAA, RecordType::A, "fd00::7"),
    ] {
        let script = Script::new();
        script.reply(has, replies(30, &[address]));
        script.reply(has_not, Reply::NoData);
        let found = look(&script, "web.default:80", &both()).await.unwrap();
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
        let script = Script::new();
        script.reply(quick, replies(30, &[address]));
        script.reply(slow, Reply::Silence);
        let started = Instant::now();
        let (found, early) = look_early(&script, "web.default:80", &both()).await;
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
    let script = Script::new();
    script.reply(RecordType::A, replies(30, &["10.96.0.7"]));
    let late = replies(30, &["fd00::7"]);
    script.reply(
        RecordType::AAAA,
        Reply::Late(Duration::from_millis(40), Box::new(late)),
    );
    let (found, early) = look_early(&script, "web.default:80", &both()).await;
    assert_eq!(found.unwrap().addresses.len(), 2);
    assert!(early.is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_addresses_there_is_nothing_to_go_on_with_early() {
    let script = Script::new();
    script.reply(RecordType::A, Reply::NoData);
    let late = replies(30, &["fd00::7"]);
    script.reply(RecordType::AAAA, Reply::Late(secs(1), Box::new(late)));
    let (found, early) = look_early(&script, "web.default:80", &both()).await;
    assert_eq!(found.unwrap().addresses, sockets(&["[fd00::7]:80"]));
    assert!(early.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_two_misses_mean_together() {
    use Reply::{NoData, NoName, ServFail, Silence};
    for (a, aaaa, class, text) in [
        (NoName, NoName, "absent", "NXDOMAIN"),
        (NoName, Silence, "absent", "NXDOMAIN"),
        (NoData, NoData, "absent", "A or AAAA"),
        (NoData, ServFail, "unavailable", "SERVFAIL"),
        (ServFail, NoData, "unavailable", "SERVFAIL"),
        (Silence, Silence, "unavailable", "did not answer within 1s"),
    ] {
        let script = Script::new();
        script.reply(RecordType::A, a);
        script.reply(RecordType::AAAA, aaaa);
        let failure = look(&script, "web.default:80", &both()).await.unwrap_err();
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
    let script = Script::new();
    let answer = replies(30, &["169.254.169.254", "10.96.0.7", "127.0.0.1"]);
    script.reply(RecordType::A, answer);
    let found = look(&script, "web.default:80", &settings()).await.unwrap();
    assert_eq!(found.addresses, sockets(&["10.96.0.7:80"]));
    assert_eq!(found.prohibited, 2);

    script.reply(RecordType::A, replies(30, &["169.254.169.254"]));
    let failure = look(&script, "web.default:80", &settings())
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
    let script = Script::new();
    let answer = vec![
        alias_record(WEB, "evil.test."),
        record_of("evil.test.", 30, "203.0.113.1"),
    ];
    script.reply(RecordType::A, Reply::Records(answer));
    let failure = look(&script, "web.default:80", &settings())
        .await
        .unwrap_err();
    assert_eq!(failure.class, Class::Forbidden);
    assert!(failure.error.to_string().contains("evil.test."));
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test]
async fn an_alias_is_followed_only_into_the_domains_given() {
    let mut settings = settings();
    settings.external = vec![absolute("example.com.")];
    let script = Script::new();
    // The target's address comes along, or is asked for.
    let alias = alias_record(WEB, "db.example.com.");
    let address = record_of("db.example.com.", 7, "203.0.113.1");
    script.reply_for(
        WEB,
        RecordType::A,
        Reply::Records(vec![alias.clone(), address.clone()]),
    );
    let found = look(&script, "web.default:80", &settings).await.unwrap();
    assert_eq!(found.addresses, sockets(&["203.0.113.1:80"]));
    assert_eq!(found.ttl, secs(7));
    assert_eq!(script.asked().len(), 1);

    script.reply_for(WEB, RecordType::A, Reply::Records(vec![alias]));
    script.reply_for(
        "db.example.com.",
        RecordType::A,
        Reply::Records(vec![address]),
    );
    script.forget();
    let found = look(&script, "web.default:80", &settings).await.unwrap();
    assert_eq!(found.addresses, sockets(&["203.0.113.1:80"]));
    assert_eq!(script.asked().len(), 2);

    // A name that merely ends alike, and a second step that leads out.
    for records in [
        vec![alias_record(WEB, "evilexample.com.")],
        vec![
            alias_record(WEB, "db.example.com."),
            alias_record("db.example.com.", "evil.test."),
        ],
    ] {
        script.reply_for(WEB, RecordType::A, Reply::Records(records));
        let failure = look(&script, "web.default:80", &settings)
            .await
            .unwrap_err();
        assert_eq!(failure.class, Class::Forbidden);
    }
}

#[tokio::test]
async fn a_circle_of_aliases_ends() {
    let mut settings = settings();
    settings.external = vec![absolute("local.")];
    let script = Script::new();
    script.reply(
        RecordType::A,
        Reply::Records(vec![
            alias_record(WEB, "a.local."),
            alias_record("a.local.", WEB),
        ]),
    );
    let failure = look(&script, "web.default:80", &settings)
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("circle"), "{failure:?}");
    // Each step in an answer of its own.
    let script = Script::new();
    for step in 0..20 {
        let (owner, target) = (format!("a{step}.local."), format!("a{}.local.", step + 1));
        let answer = Reply::Records(vec![alias_record(&owner, &target)]);
        script.reply_for(&owner, RecordType::A, answer);
    }
    let answer = Reply::Records(vec![alias_record(WEB, "a0.local.")]);
    script.reply_for(WEB, RecordType::A, answer);
    let failure = look(&script, "web.default:80", &settings)
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("circle"), "{failure:?}");
    assert_eq!(script.asked().len(), MOST_ALIASES + 1);
}

#[tokio::test]
async fn a_named_port_takes_the_address_that_comes_along() {
    let script = Script::new();
    let answer = vec![srv_record(8080, WEB)];
    let brought = vec![record(5, "10.96.0.7"), record_of("evil.", 1, "10.0.0.1")];
    script.reply(RecordType::SRV, Reply::WithAdditionals(answer, brought));
    let found = look(&script, "web.default:http", &both()).await.unwrap();
    assert_eq!(found.addresses, sockets(&["10.96.0.7:8080"]));
    assert_eq!(found.ttl, secs(5));
    let asked = script.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].name, format!("_http._tcp.{WEB}"));
}

#[tokio::test]
async fn a_named_port_asks_for_an_address_that_does_not() {
    let script = Script::new();
    script.reply(RecordType::SRV, Reply::Records(vec![srv_record(8080, WEB)]));
    script.reply(RecordType::A, replies(60, &["10.96.0.7"]));
    let found = look(&script, "web.default:http", &settings())
        .await
        .unwrap();
    assert_eq!(found.addresses, sockets(&["10.96.0.7:8080"]));
    assert_eq!(found.ttl, secs(30), "the SRV record's");
    let types: Vec<_> = script
        .asked()
        .iter()
        .map(|asked| asked.record_type)
        .collect();
    assert_eq!(types, [RecordType::SRV, RecordType::A]);
}

#[tokio::test]
async fn a_port_that_is_not_there() {
    for reply in [
        Reply::NoName,
        Reply::NoData,
        Reply::Records(vec![srv_record(80, ".")]),
    ] {
        let script = Script::new();
        script.reply(RecordType::SRV, reply);
        let failure = look(&script, "web.default:http", &settings())
            .await
            .unwrap_err();
        assert!(matches!(failure.class, Class::Absent { .. }));
        let text = failure.error.to_string();
        assert!(text.contains("TCP port of that name"), "{text}");
        assert_eq!(script.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_port_record_may_not_lead_elsewhere() {
    let script = Script::new();
    script.reply(
        RecordType::SRV,
        Reply::WithAdditionals(
            vec![srv_record(80, "evil.test.")],
            vec![record_of("evil.test.", 30, "203.0.113.1")],
        ),
    );
    let failure = look(&script, "web.default:http", &settings())
        .await
        .unwrap_err();
    assert_eq!(failure.class, Class::Forbidden);

    script.reply(
        RecordType::SRV,
        Reply::Records(vec![alias_record(
            &format!("_http._tcp.{WEB}"),
            "evil.test.",
        )]),
    );
    let mut settings = settings();
    let failure = look(&script, "web.default:http", &settings)
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("does not follow"));
    settings.external = vec![absolute("evil.test.")];
    let failure = look(&script, "web.default:http", &settings)
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("give it by number"));
}

#[tokio::test]
async fn pods_behind_a_named_port() {
    let (one, two) = (format!("a.{WEB}"), format!("b.{WEB}"));
    let script = Script::new();
    let answer = vec![srv_record(8080, &one), srv_record(9090, &two)];
    let brought = vec![
        record_of(&one, 30, "10.0.0.1"),
        record_of(&two, 30, "10.0.0.2"),
    ];
    script.reply(
        RecordType::SRV,
        Reply::WithAdditionals(answer.clone(), brought),
    );
    let failure = look(&script, "web.default:http", &settings())
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("headless"));

    let settings = Settings {
        headless: Headless::Spread(Balance::RoundRobin),
        ..settings()
    };
    let found = look(&script, "web.default:http", &settings).await.unwrap();
    assert_eq!(
        found.addresses,
        sockets(&["10.0.0.1:8080", "10.0.0.2:9090"])
    );

    // Without the addresses, different ports cannot be told apart.
    script.reply(RecordType::SRV, Reply::Records(answer));
    let failure = look(&script, "web.default:http", &settings)
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("different ports"));

    let answer = vec![srv_record(8080, &one), srv_record(8080, &two)];
    script.reply(RecordType::SRV, Reply::Records(answer));
    script.reply(RecordType::A, replies(30, &["10.0.0.1", "10.0.0.2"]));
    let found = look(&script, "web.default:http", &settings).await.unwrap();
    assert_eq!(
        found.addresses,
        sockets(&["10.0.0.1:8080", "10.0.0.2:8080"])
    );
}

#[tokio::test]
async fn one_pod_behind_a_named_port_is_headless_still() {
    let script = Script::new();
    let answer = vec![srv_record(80, &format!("a.{WEB}"))];
    script.reply(RecordType::SRV, Reply::Records(answer));
    let failure = look(&script, "web.default:http", &settings())
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("headless"));
}

#[tokio::test]
async fn the_policy_sees_addresses_that_come_along() {
    let script = Script::new();
    script.reply(
        RecordType::SRV,
        Reply::WithAdditionals(vec![srv_record(80, WEB)], vec![record(30, "127.0.0.1")]),
    );
    let failure = look(&script, "web.default:http", &settings())
        .await
        .unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::DestinationIpProhibited);
    let open = Settings {
        policy: AddressPolicy::default().allow("127.0.0.0/8".parse().unwrap()),
        ..settings()
    };
    assert!(look(&script, "web.default:http", &open).await.is_ok());
}

#[tokio::test]
async fn names_that_cannot_be_are_not_asked_for() {
    let script = Script::new();
    let port = "a".repeat(63);
    let failure = look(&script, &format!("web.default:{port}"), &settings())
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("too long"));
    assert!(script.asked().is_empty());
}
