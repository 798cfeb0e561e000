use mesh_ingress_core::{ClusterDomain, ErrorKind};

use super::super::cause::{ServerFault, Unavailable};
use super::super::mock_name_server::{WEB, absolute, secs, settings, sockets};
use super::*;
use crate::Balance;

struct Fixture {
    entry: CacheEntry,
    cell: Arc<SnapshotCell>,
    stats: Arc<Stats>,
    start: Instant,
}

impl Fixture {
    fn new(settings: Settings) -> Self {
        let cell = SnapshotCell::new(Outcome::Pending, RefreshState::Active);
        let stats = Arc::new(Stats::default());
        let service = "web.default:80".parse().unwrap();
        let question = Question::new(&service, &ClusterDomain::default());
        Self {
            entry: CacheEntry::new(
                Arc::new(question),
                Arc::new(settings),
                Arc::clone(&cell),
                Arc::clone(&stats),
            ),
            cell,
            stats,
            start: Instant::now(),
        }
    }

    /// A lookup at so many seconds found this. Returns how many seconds later the next is due.
    fn found(&mut self, at: u64, ttl: u64, addresses: &[&str]) -> f64 {
        let now = self.start + secs(at);
        let next = self.entry.found(found(ttl, addresses), now);
        (next - now).as_secs_f64()
    }

    fn failed(&mut self, at: u64, failure: &Failure) -> f64 {
        let now = self.start + secs(at);
        let next = self.entry.failed(failure, now);
        assert_eq!(self.cell.load().timing.next_refresh, Some(next));
        (next - now).as_secs_f64()
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        match &self.cell.load().outcome {
            Outcome::One(upstream) => upstream.addresses().to_vec(),
            Outcome::Spread(spread) => spread.addresses().collect(),
            Outcome::Failed(_) | Outcome::Pending => Vec::new(),
        }
    }

    fn error(&self) -> Option<ErrorKind> {
        match &self.cell.load().outcome {
            Outcome::Failed(error) => Some(error.kind()),
            _ => None,
        }
    }

    fn generation(&self) -> u64 {
        self.cell.load().generation
    }
}

fn found(ttl: u64, addresses: &[&str]) -> Found {
    Found {
        addresses: sockets(addresses),
        ttl: secs(ttl),
        prohibited: 0,
        unknown: None,
    }
}

fn unavailable() -> Failure {
    let fault = ServerFault::TimedOut(secs(1));
    let servers = Unavailable(vec![("10.96.0.10:53".parse().unwrap(), fault)]);
    Failure::unavailable(&absolute(WEB), &Arc::new(servers))
}

fn absent() -> Failure {
    let name = absolute(WEB);
    Failure::absent(Cause::NoName { name }, Some(secs(30)))
}

fn forbidden() -> Failure {
    let (name, target) = (absolute(WEB), absolute("evil.test."));
    Failure::forbidden(Cause::ExternalName { name, target })
}

const IP: &str = "10.96.0.7:80";

#[test]
fn ttl_decides_within_bounds() {
    for (ttl, from, to) in [
        (0, 3.75, 4.75),
        (1, 3.75, 4.75),
        (30, 22.5, 28.5),
        (1_000_000, 45.0, 57.0),
    ] {
        let next = Fixture::new(settings()).found(0, ttl, &[IP]);
        assert!(next >= from && next <= to, "ttl {ttl}: {next}");
    }
}

#[test]
fn the_same_answer_is_no_news() {
    let mut fixture = Fixture::new(settings());
    fixture.found(0, 5, &[IP]);
    let generation = fixture.generation();
    fixture.found(4, 5, &[IP]);
    assert_eq!(fixture.generation(), generation);
    assert_eq!(
        fixture.cell.load().timing.resolved,
        Some(fixture.start + secs(4))
    );
    fixture.found(8, 5, &["10.96.0.8:80"]);
    assert_ne!(fixture.generation(), generation);
    assert_eq!(fixture.addresses(), sockets(&["10.96.0.8:80"]));
}

#[test]
fn an_outage_keeps_the_last_good_answer_up_to_max_stale() {
    let mut fixture = Fixture::new(settings());
    fixture.found(0, 30, &[IP]);
    fixture.failed(25, &unavailable());
    assert_eq!(
        fixture.cell.load().refresh_state,
        RefreshState::Active,
        "fresh still"
    );
    fixture.failed(31, &unavailable());
    assert_eq!(fixture.cell.load().refresh_state, RefreshState::Stale);
    // TTL and max_stale: 30 s and 600 s.
    fixture.failed(629, &unavailable());
    assert_eq!(fixture.addresses(), sockets(&[IP]));
    assert!(fixture.cell.load().last_error.is_some());
    fixture.failed(630, &unavailable());
    assert_eq!(fixture.error(), Some(ErrorKind::DnsTimeout));
    // And recovers.
    fixture.found(700, 30, &[IP]);
    assert_eq!(fixture.addresses(), sockets(&[IP]));
    assert_eq!(fixture.cell.load().refresh_state, RefreshState::Active);
    assert!(fixture.cell.load().last_error.is_none());
}

#[test]
fn without_max_stale_the_ttl_is_the_end() {
    let mut fixture = Fixture::new(Settings {
        max_stale: Duration::ZERO,
        ..settings()
    });
    fixture.found(0, 30, &[IP]);
    fixture.failed(29, &unavailable());
    assert_eq!(fixture.addresses(), sockets(&[IP]));
    fixture.failed(30, &unavailable());
    assert_eq!(fixture.error(), Some(ErrorKind::DnsTimeout));
}

#[test]
fn back_off_grows_and_an_answer_ends_it() {
    let mut fixture = Fixture::new(settings());
    let pauses: Vec<_> = (0..9)
        .map(|at| fixture.failed(at, &unavailable()))
        .collect();
    for (pause, expected) in pauses
        .iter()
        .zip([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])
    {
        assert!(
            *pause >= 0.79 * expected && *pause <= (1.21f64 * expected).min(5.0),
            "{pauses:?}"
        );
    }
    fixture.found(100, 30, &[IP]);
    assert!(fixture.failed(130, &unavailable()) < 0.13);
}

#[test]
fn absence_is_believed_after_two_answers() {
    let mut fixture = Fixture::new(settings());
    fixture.found(0, 5, &[IP]);
    let next = fixture.failed(4, &absent());
    assert!((0.79..=1.0).contains(&next), "{next}");
    assert_eq!(fixture.addresses(), sockets(&[IP]));
    let next = fixture.failed(5, &absent());
    assert!((3.9..=5.0).contains(&next), "{next}");
    assert_eq!(fixture.error(), Some(ErrorKind::DnsError));
}

#[test]
fn absence_is_doubted_until_a_good_answer_not_until_an_outage() {
    let mut fixture = Fixture::new(settings());
    fixture.found(0, 5, &[IP]);
    fixture.failed(4, &absent());
    fixture.failed(5, &unavailable());
    assert_eq!(fixture.addresses(), sockets(&[IP]));
    fixture.failed(6, &absent());
    assert_eq!(fixture.error(), Some(ErrorKind::DnsError));

    let mut fixture = Fixture::new(settings());
    fixture.found(0, 5, &[IP]);
    fixture.failed(4, &absent());
    fixture.found(5, 5, &[IP]);
    fixture.failed(9, &absent());
    assert_eq!(fixture.addresses(), sockets(&[IP]), "a second blip");
}

#[test]
fn absence_from_the_start_is_told_at_once() {
    let mut fixture = Fixture::new(settings());
    let next = fixture.failed(0, &absent());
    assert!((3.9..=5.0).contains(&next), "{next}");
    assert_eq!(fixture.error(), Some(ErrorKind::DnsError));
}

#[test]
fn forbidden_answer_replaces_a_good_one_at_once() {
    let mut fixture = Fixture::new(settings());
    fixture.found(0, 5, &[IP]);
    let next = fixture.failed(4, &forbidden());
    assert!((3.9..=5.0).contains(&next), "{next}");
    assert_eq!(fixture.error(), Some(ErrorKind::DnsError));
}

#[test]
fn addresses_of_a_family_that_fails_are_kept() {
    let both = ["[fd00::7]:80", IP];
    let half = |is_v6: bool| Found {
        unknown: Some(Unknown {
            is_v6,
            error: Some(unavailable().error),
        }),
        ..found(5, if is_v6 { &[IP] } else { &["[fd00::7]:80"] })
    };
    for is_v6 in [true, false] {
        let mut fixture = Fixture::new(settings());
        fixture.found(0, 5, &both);
        let generation = fixture.generation();
        for at in [4, 8, 12, 600] {
            let now = fixture.start + secs(at);
            fixture.entry.found(half(is_v6), now);
            assert_eq!(fixture.addresses(), sockets(&both));
            assert_eq!(fixture.generation(), generation, "no news");
            assert!(fixture.cell.load().last_error.is_some());
        }
        // Up to its TTL and max_stale.
        let now = fixture.start + secs(605);
        fixture.entry.found(half(is_v6), now);
        assert_eq!(fixture.addresses().len(), 1);
    }
}

#[test]
fn a_family_that_comes_later_is_added() {
    let mut fixture = Fixture::new(settings());
    let early = Found {
        unknown: Some(Unknown {
            is_v6: true,
            error: None,
        }),
        ..found(5, &[IP])
    };
    let now = fixture.start;
    fixture.entry.found_partial(early, now);
    assert_eq!(fixture.addresses(), sockets(&[IP]));
    assert_eq!(fixture.stats.counters().refreshes, 0);
    fixture.found(1, 5, &["[fd00::7]:80", IP]);
    assert_eq!(fixture.addresses(), sockets(&["[fd00::7]:80", IP]));
    assert_eq!(fixture.stats.counters().refreshes, 1);
}

#[test]
fn several_addresses_in_one_family_are_headless() {
    let pods = ["10.0.0.2:80", "10.0.0.1:80"];
    let mut fixture = Fixture::new(settings());
    fixture.found(0, 5, &pods);
    assert_eq!(fixture.error(), Some(ErrorKind::DnsError));
    assert_eq!(fixture.stats.counters().failures, 1);

    let mut fixture = Fixture::new(Settings {
        headless: Headless::Spread(Balance::RoundRobin),
        ..settings()
    });
    fixture.found(0, 5, &pods);
    assert_eq!(
        fixture.addresses(),
        sockets(&["10.0.0.1:80", "10.0.0.2:80"])
    );
    // Name servers turn the order about: that is no news.
    let generation = fixture.generation();
    fixture.found(4, 5, &["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(fixture.generation(), generation);
    fixture.found(8, 5, &["10.0.0.1:80", "10.0.0.3:80"]);
    assert_ne!(fixture.generation(), generation);
    fixture.found(12, 5, &["10.0.0.3:80"]);
    assert!(matches!(&fixture.cell.load().outcome, Outcome::One(_)));
}

#[test]
fn new_entry_starts_from_the_published_snapshot() {
    let mut fixture = Fixture::new(settings());
    fixture.found(0, 5, &[IP]);
    let mut successor = CacheEntry::new(
        Arc::clone(&fixture.entry.question),
        Arc::clone(&fixture.entry.settings),
        Arc::clone(&fixture.cell),
        Arc::clone(&fixture.stats),
    );
    successor.failed(&unavailable(), fixture.start + secs(100));
    assert_eq!(fixture.addresses(), sockets(&[IP]));
    successor.failed(&unavailable(), fixture.start + secs(605));
    assert_eq!(fixture.error(), Some(ErrorKind::DnsTimeout));
}

#[test]
fn everything_is_counted() {
    let mut fixture = Fixture::new(settings());
    let mixed = Found {
        prohibited: 2,
        ..found(5, &[IP])
    };
    let start = fixture.start;
    fixture.entry.found(mixed, start);
    fixture.failed(4, &unavailable());
    let prohibited = Failure::forbidden(Cause::Prohibited {
        name: absolute(WEB),
        addresses: vec!["127.0.0.1".parse().unwrap()],
    });
    fixture.failed(8, &prohibited);
    let counters = fixture.stats.counters();
    assert_eq!(counters.refreshes, 3);
    assert_eq!(counters.failures, 2);
    assert_eq!(counters.prohibited, 3);
}
