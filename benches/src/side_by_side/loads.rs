//! Putting a load on a proxy, by wrk, h2load or the engine, and what each of them reports.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::BoxError;

use super::engine::{self, Pace};
use super::lab::{MANY, PUBLIC_HOST, host_of};
use super::process;
use super::stats::quantile;
use super::subject::Routes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// wrk: GET of a path on 64 connections.
    Get(&'static str),
    /// wrk: POST of 16 KiB on 64 connections.
    Post,
    /// wrk: as `/1k`, for a thousand hosts in turn, or for one at the same expense.
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

/// What a load reports.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
}

const CONNECTIONS: usize = 64;

impl Load {
    pub(crate) fn is_h2(self) -> bool {
        self == Self::H2
    }

    /// Runs it from `cores`.
    pub(crate) fn run(
        self,
        to: SocketAddr,
        routes: Routes,
        seconds: u64,
        cores: &str,
        dir: &Path,
    ) -> Result<Report, BoxError> {
        let duration = Duration::from_secs(seconds);
        match self {
            Self::Get(path) => wrk(to, path, None, seconds, cores),
            Self::Post => {
                let script = dir.join("post.lua");
                let body = r#"wrk.method = "POST"; wrk.body = string.rep("x", 16384)"#;
                fs::write(&script, body)?;
                wrk(to, "/post", Some(&script), seconds, cores)
            }
            Self::Hosts => {
                let script = dir.join("hosts.lua");
                fs::write(&script, hosts_script(routes))?;
                wrk(to, "/1k", Some(&script), seconds, cores)
            }
            Self::H2 => h2load(to, seconds, cores, dir),
            Self::Rate(rate) => engine(to, Pace::Open { rate, duration }),
            Self::Fresh => engine(to, Pace::Fresh(duration)),
            Self::Echo => engine(to, Pace::Echo(duration)),
            Self::Idle(_) => Err("idle connections are not a load".into()),
        }
    }
}

fn engine(to: SocketAddr, pace: Pace) -> Result<Report, BoxError> {
    let outcome = engine::run(to, CONNECTIONS, pace)?;
    let latency = |share| quantile(&outcome.latencies, share).map(|ns| ns as f64 / 1000.0);
    Ok(Report {
        requests: outcome.completed,
        seconds: outcome.elapsed.as_secs_f64(),
        p50_us: latency(0.5),
        p99_us: latency(0.99),
    })
}

/// Requests made before the run, so that the script costs next to nothing during it.
fn hosts_script(routes: Routes) -> String {
    let host = match routes {
        Routes::One => format!("{PUBLIC_HOST:?}"),
        Routes::ManyOneUsed => format!("{:?}", host_of(7)),
        // 7 has no factor of 1000: all hosts come, in an order that no cache can foresee.
        Routes::ManyAllUsed => r#""shop-" .. ((i * 7) % HOSTS) .. ".example.com""#.to_owned(),
    };
    format!(
        r#"local requests, next = {{}}, 0
function init(args)
  for i = 0, HOSTS - 1 do
    requests[i] = wrk.format("GET", "/1k", {{ Host = {host} }})
  end
end
function request()
  next = (next + 1) % HOSTS
  return requests[next]
end
"#
    )
    .replace("HOSTS", &MANY.to_string())
}

fn wrk(
    to: SocketAddr,
    path: &str,
    script: Option<&Path>,
    seconds: u64,
    cores: &str,
) -> Result<Report, BoxError> {
    let mut command = process::on_cores(cores, "wrk");
    command
        .args(["-t1", "--latency"])
        .arg(format!("-c{CONNECTIONS}"));
    command
        .arg(format!("-d{seconds}"))
        .arg("-H")
        .arg(format!("Host: {PUBLIC_HOST}"));
    if let Some(script) = script {
        command.arg("-s").arg(script);
    }
    command.arg(format!("http://{to}{path}"));
    parse_wrk(&process::output(&mut command)?)
}

fn parse_wrk(text: &str) -> Result<Report, BoxError> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(format!("not all requests were answered well:\n{text}").into());
    }
    let line = text.lines().find(|line| line.contains(" requests in "));
    let (requests, rest) = line
        .and_then(|line| line.split_once(" requests in "))
        .ok_or(text)?;
    let time = rest.split(',').next().unwrap_or_default();
    let latency = |percentile| {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(percentile))?;
        micros(line.trim())
    };
    Ok(Report {
        requests: requests.trim().parse()?,
        seconds: micros(time).ok_or(text)? / 1e6,
        p50_us: latency("50%"),
        p99_us: latency("99%"),
    })
}

/// `1.23ms` in microseconds.
fn micros(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let scale = match text.get(digits.len()..)? {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(digits.parse::<f64>().ok()? * scale)
}

fn h2load(to: SocketAddr, seconds: u64, cores: &str, dir: &Path) -> Result<Report, BoxError> {
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
    fn wrk_is_read() {
        let text = "Running 2s test @ http://127.0.0.1:1/1k\n  1 threads and 64 connections\n\
            \x20 Latency Distribution\n     50%    1.23ms\n     75%    1.3ms\n     99%  900.00us\n\
            \x20 52341 requests in 2.01s, 60.00MB read\nRequests/sec:  26040.1\n";
        let report = parse_wrk(text).unwrap();
        assert_eq!((report.requests, report.seconds), (52_341, 2.01));
        assert_eq!((report.p50_us, report.p99_us), (Some(1230.0), Some(900.0)));
        assert!(parse_wrk(&format!("{text}  Non-2xx or 3xx responses: 3\n")).is_err());
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
