//! The scenarios.

use super::loads::Load;
use super::subject::{Kind, Routes, Subject};

#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) load: Load,
    pub(crate) subjects: &'static [Subject],
    /// The origin speaks HTTP/2.
    pub(crate) h2_origin: bool,
    /// Proxy, load and origin share two cores.
    pub(crate) shared_cores: bool,
}

const fn all<const N: usize>(kinds: [Kind; N]) -> [Subject; N] {
    let mut subjects = [Subject::of(Ours); N];
    let mut next = 0;
    while next < N {
        subjects[next] = Subject::of(kinds[next]);
        next += 1;
    }
    subjects
}

/// Each proxy with one worker, then with two. `M` is twice `N`.
const fn one_and_two_workers<const N: usize, const M: usize>(kinds: [Kind; N]) -> [Subject; M] {
    assert!(M == 2 * N);
    let mut subjects = [Subject::of(Ours); M];
    let mut next = 0;
    while next < N {
        subjects[2 * next] = Subject::of(kinds[next]);
        subjects[2 * next + 1] = Subject::of(kinds[next]).workers(2);
        next += 1;
    }
    subjects
}

use Kind::{
    AxumReverseProxy, Direct, Embedded, EmbeddedHyper, Envoy, FloorBytes, FloorHyper, Haproxy,
    HaproxyCurrent, LegacyClient, Nginx, NginxCurrent, NginxMainline, Ours, Pingora,
};

use Routes::{ManyAllUsed, ManyOneUsed, ManyTogether};

const ALL_PROXIES: &[Subject] = &all([
    Ours,
    Embedded,
    EmbeddedHyper,
    Nginx,
    NginxCurrent,
    NginxMainline,
    Haproxy,
    HaproxyCurrent,
    Envoy,
    Pingora,
    AxumReverseProxy,
    LegacyClient,
    FloorHyper,
    FloorBytes,
]);

/// For scenarios that are about the binary's listener.
const WITHOUT_EMBEDDED: &[Subject] = &all([
    Ours,
    Nginx,
    NginxCurrent,
    NginxMainline,
    Haproxy,
    HaproxyCurrent,
    Envoy,
    Pingora,
    AxumReverseProxy,
    LegacyClient,
    FloorHyper,
]);

const fn plain(
    id: &'static str,
    title: &'static str,
    load: Load,
    subjects: &'static [Subject],
) -> Scenario {
    Scenario {
        id,
        title,
        load,
        subjects,
        h2_origin: false,
        shared_cores: false,
    }
}

pub(crate) static SCENARIOS: [Scenario; 12] = [
    plain(
        "s1",
        "GET 1 KiB, 64 keep-alive connections",
        Load::Get("/1k"),
        ALL_PROXIES,
    ),
    plain("s2", "GET 64 KiB", Load::Get("/64k"), ALL_PROXIES),
    plain("s3", "GET 1 MiB", Load::Get("/1m"), ALL_PROXIES),
    plain("s4", "POST 16 KiB", Load::Post, ALL_PROXIES),
    plain(
        "s5a",
        "HTTP/2 to HTTP/1.1, 8 connections × 8 streams",
        Load::H2,
        &all([
            Ours,
            Embedded,
            EmbeddedHyper,
            Nginx,
            NginxCurrent,
            NginxMainline,
            Haproxy,
            HaproxyCurrent,
            Envoy,
            Pingora,
            LegacyClient,
            FloorHyper,
        ]),
    ),
    Scenario {
        h2_origin: true,
        ..plain(
            "s5b",
            "HTTP/2 to HTTP/2, 8 connections × 8 streams",
            Load::H2,
            &all([
                Ours,
                NginxCurrent,
                NginxMainline,
                Haproxy,
                HaproxyCurrent,
                Envoy,
                Pingora,
                LegacyClient,
                FloorHyper,
            ]),
        )
    },
    plain(
        "s6",
        "memory of 10 000 idle connections",
        Load::Idle(10_000),
        WITHOUT_EMBEDDED,
    ),
    plain(
        "s7",
        "latency at 10 000 requests a second",
        Load::Rate(10_000),
        &all([
            Direct,
            Ours,
            Nginx,
            NginxCurrent,
            NginxMainline,
            Haproxy,
            HaproxyCurrent,
            Envoy,
            Pingora,
            LegacyClient,
            FloorHyper,
            FloorBytes,
        ]),
    ),
    plain(
        "s8",
        "a new connection for each request",
        Load::Fresh,
        WITHOUT_EMBEDDED,
    ),
    Scenario {
        shared_cores: true,
        ..plain(
            "s9",
            "two workers on two cores, shared with load and origin",
            Load::Get("/1k"),
            &one_and_two_workers::<11, 22>([
                Ours,
                Embedded,
                EmbeddedHyper,
                Nginx,
                NginxCurrent,
                NginxMainline,
                Haproxy,
                HaproxyCurrent,
                Envoy,
                Pingora,
                FloorHyper,
            ]),
        )
    },
    plain(
        "s10",
        "1 000 routes to 1 000 Services: one in use, or all, at one address or at as many",
        Load::Hosts,
        &[
            Subject::of(Ours),
            Subject::of(Ours).routes(ManyOneUsed),
            Subject::of(Ours).routes(ManyTogether),
            Subject::of(Ours).routes(ManyAllUsed),
            Subject::of(Nginx),
            Subject::of(Nginx).routes(ManyAllUsed),
            Subject::of(NginxCurrent),
            Subject::of(NginxCurrent).routes(ManyAllUsed),
            Subject::of(NginxMainline),
            Subject::of(NginxMainline).routes(ManyAllUsed),
            Subject::of(Haproxy),
            Subject::of(Haproxy).routes(ManyAllUsed),
            Subject::of(HaproxyCurrent),
            Subject::of(HaproxyCurrent).routes(ManyAllUsed),
            Subject::of(Envoy),
            Subject::of(Envoy).routes(ManyAllUsed),
            Subject::of(FloorBytes),
            Subject::of(FloorBytes).routes(ManyAllUsed),
        ],
    ),
    plain(
        "s11",
        "WebSocket echo, messages of 64 bytes on 64 connections",
        Load::Echo,
        &all([
            Ours,
            Nginx,
            NginxCurrent,
            NginxMainline,
            Haproxy,
            HaproxyCurrent,
            Envoy,
            Pingora,
            AxumReverseProxy,
            FloorBytes,
        ]),
    ),
];

pub(crate) fn by_id(id: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.id == id)
}
