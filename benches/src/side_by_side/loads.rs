//! Putting a load on a proxy, by the engine or by h2load, and what it reports.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::BoxError;

use super::engine::{Client, Pace, Talk};
use super::lab::{MANY, PUBLIC_HOST, host_of};
use super::process;
use super::stats::quantile;
use super::subject::Routes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// GET of a path on 64 connections.
    Get(&'static str),
    /// POST of 16 KiB on 64 connections.
    Post,
    /// As `/1k`, for a thousand hosts in turn, or for one.
    Hosts,
    /// h2load: 8 connections with 8 streams each.
    H2,
    /// Requests at a fixed rate a second on 64 connections.
    Rate(u32),
    /// A connection a request, 64 at a time.
    Fresh,
    /// WebSocket messages on 64 connections.
    Echo,
    /// Connections that do nothing.
    Idle(usize),
}

/// The report of a load.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
}

const CONNECTIONS: usize = 64;
/// How long a proxy is under load before its turn is counted.
const RUN_UP: Duration = Duration::from_millis(10);

impl Load {
    pub(crate) fn is_h2(self) -> bool {
        self == Self::H2
    }

    /// How many turns each proxy gets by default, and how long they are.
    pub(crate) fn turns(self) -> (usize, Duration) {
        match self {
            // A program that starts anew, and counts seconds.
            Self::H2 => (9, Duration::from_secs(1)),
            // It hardly varies.
            Self::Idle(_) => (2, Duration::ZERO),
            // Few fit into less: of those under way at the end, the last is waited for.
            Self::Get("/1m") => (61, Duration::from_millis(200)),
            // A p99 wants a few hundred of them.
            Self::Rate(_) => (61, Duration::from_millis(200)),
            _ => (151, Duration::from_millis(50)),
        }
    }

    /// Makes ready for turns against one proxy. What is not of this process is run on `cores`.
    pub(crate) fn against(
        self,
        to: SocketAddr,
        routes: Routes,
        cores: &str,
        dir: &std::path::Path,
    ) -> Result<Generator, BoxError> {
        let talk = match self {
            Self::Get(path) => Talk::Get(path),
            Self::Post => Talk::Post(16 * 1024),
            Self::Hosts => Talk::Hosts(hosts(routes)),
            Self::Rate(_) => Talk::Get("/1k"),
            Self::Fresh => Talk::Fresh,
            Self::Echo => Talk::Echo,
            Self::H2 => {
                return Ok(Generator::H2load {
                    to,
                    cores: cores.to_owned(),
                    dir: dir.to_owned(),
                });
            }
            Self::Idle(_) => return Err("idle connections are not a load".into()),
        };
        let rate = match self {
            Self::Rate(rate) => Some(rate),
            _ => None,
        };
        let client = Box::new(Client::open(to, talk, CONNECTIONS)?);
        let run_up = match (self, rate) {
            // Until each of a thousand connections has been in use, and once more.
            (Self::Hosts, _) => Pace::Count(2 * MANY as u64),
            (_, Some(rate)) => Pace::Open {
                rate,
                duration: RUN_UP,
            },
            (_, None) => Pace::Closed(RUN_UP),
        };
        Ok(Generator::Engine {
            client,
            rate,
            run_up,
        })
    }
}

/// The hosts that are asked for in turn.
fn hosts(routes: Routes) -> Vec<String> {
    match routes {
        Routes::One => vec![PUBLIC_HOST.to_owned()],
        Routes::ManyOneUsed => vec![host_of(7)],
        // 7 has no factor of 1000: all hosts come, in an order that no cache can foresee.
        Routes::ManyAllUsed | Routes::ManyTogether => {
            (0..MANY).map(|number| host_of(number * 7 % MANY)).collect()
        }
    }
}

/// Puts the load on one proxy, turn by turn.
pub(crate) enum Generator {
    Engine {
        client: Box<Client>,
        rate: Option<u32>,
        run_up: Pace,
    },
    H2load {
        to: SocketAddr,
        cores: String,
        dir: PathBuf,
    },
}

impl Generator {
    /// Puts a load on the proxy before its turn is counted. What it finds in the processor's caches is
    /// what the others have left there, of which there is little in a proxy's own life.
    pub(crate) fn run_up(&mut self) -> Result<(), BoxError> {
        match self {
            Self::Engine { client, run_up, .. } => client.run(*run_up).map(drop),
            // A second leaves that behind.
            Self::H2load { .. } => Ok(()),
        }
    }

    pub(crate) fn turn(&mut self, duration: Duration) -> Result<Report, BoxError> {
        let (client, rate) = match self {
            Self::Engine { client, rate, .. } => (client, *rate),
            Self::H2load { to, cores, dir } => return h2load(*to, duration, cores, dir),
        };
        let outcome = client.run(match rate {
            Some(rate) => Pace::Open { rate, duration },
            None => Pace::Closed(duration),
        })?;
        let latency = |share| quantile(&outcome.latencies, share).map(|ns| ns as f64 / 1000.0);
        Ok(Report {
            requests: outcome.completed,
            seconds: outcome.elapsed.as_secs_f64(),
            p50_us: latency(0.5),
            p99_us: latency(0.99),
        })
    }
}

/// It counts seconds: a shorter turn is one.
fn h2load(
    to: SocketAddr,
    duration: Duration,
    cores: &str,
    dir: &std::path::Path,
) -> Result<Report, BoxError> {
    let seconds = duration.as_secs().max(1);
    let log = dir.join("h2load.log");
    // It appends.
    let _ = fs::remove_file(&log);
    let mut command = process::on_cores(cores, "h2load");
    command
        .args(["-t1", "-c8", "-m8", "-D"])
        .arg(seconds.to_string());
    command.arg("-H").arg(format!(":authority: {PUBLIC_HOST}"));
    command.arg(format!("--log-file={}", log.display()));
    command.arg(format!("http://{to}/1k"));
    let report = parse_h2load(&process::output(&mut command)?, seconds as f64)?;
    Ok(with_latencies(report, &fs::read_to_string(&log)?))
}

/// When it began, the status, and the microseconds of each request, with tabs between.
fn with_latencies(report: Report, log: &str) -> Report {
    let micros = |line: &str| line.split('\t').nth(2)?.parse::<u64>().ok();
    let mut latencies: Vec<u64> = log.lines().filter_map(micros).collect();
    latencies.sort_unstable();
    let latency = |share| quantile(&latencies, share).map(|micros| micros as f64);
    Report {
        p50_us: latency(0.5),
        p99_us: latency(0.99),
        ..report
    }
}

fn parse_h2load(text: &str, seconds: f64) -> Result<Report, BoxError> {
    // requests: 90 total, 98 started, 90 done, 90 succeeded, 0 failed, 0 errored, 0 timeout
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("requests: "))
        .ok_or(text)?;
    let number = |name: &str| {
        let part = line.split(',').find(|part| part.trim().ends_with(name))?;
        part.split_whitespace().next()?.parse::<u64>().ok()
    };
    let requests = number("succeeded").ok_or(text)?;
    if requests == 0 || number("failed") != Some(0) || number("errored") != Some(0) {
        return Err(format!("not all requests were answered well:\n{text}").into());
    }
    Ok(Report {
        requests,
        seconds,
        p50_us: None,
        p99_us: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_hosts_come() {
        let mut all = hosts(Routes::ManyAllUsed);
        assert_ne!(all.first(), all.get(1));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), MANY);
    }

    #[test]
    fn h2load_is_read() {
        let text = "requests: 90 total, 98 started, 90 done, 88 succeeded, 0 failed, 0 errored, 0 timeout\n";
        assert_eq!(parse_h2load(text, 2.0).unwrap().requests, 88);
        assert!(parse_h2load(&text.replace("0 failed", "2 failed"), 2.0).is_err());
        let report = with_latencies(Report::default(), "1\t200\t30\n2\t200\t10\n3\t200\t20\n");
        assert_eq!((report.p50_us, report.p99_us), (Some(20.0), Some(30.0)));
    }
}
