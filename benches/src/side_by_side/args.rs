//! The command line: a few words, read by hand.

use std::path::PathBuf;
use std::time::Duration;

use crate::BoxError;

use super::scenario::{SCENARIOS, Scenario};
use super::subject::Kind;

pub(crate) const HELP: &str = "\
mesh-ingress beside other proxies, in one run

usage: side-by-side WHAT… [OPTION…]

what:
  s1 s2 s3 s4 s5a s5b s6 s7 s8 s9 s10 s11
                  a scenario, or several
  all             all of them, then syscalls and instructions
  syscalls        system calls a request, in S1's load
  instructions    user-space instructions a request, by callgrind
  report          draw the tables and the chart again from the rows that are kept
  build           build the gateway and the peers, and no more

options:
  --rounds N      how often each proxy gets its turn [default: 151; s3, s7: 61; s5a, s5b: 9; s6: 2]
  --turn MS       how long a turn is, in milliseconds [default: 50; s3, s7: 200; s5a, s5b: 1000,
                  and no less]
  --only A,B      these proxies: ours, embedded, embedded-hyper, nginx, nginx-current,
                  nginx-mainline, haproxy, haproxy-current, envoy, pingora, axum-reverse-proxy,
                  legacy-client, floor-hyper, floor-bytes
  --without A,B   all but these
  --profile DIR   keep what callgrind wrote there, for callgrind_annotate
  --ours FILE     this gateway, instead of building it
  --envoy FILE, --nginx-mainline FILE
                  these, instead of those that .ci/install-real-parts installs
  --nginx-current FILE, --haproxy-current FILE
                  these, instead of those that .ci/install-current-peers installs
  --no-build      take what was built before
  --keep          replace the rows in benches/results, the tables in benches/README.md and the chart";

#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Build,
    Report,
    Scenarios(Vec<&'static Scenario>),
    Syscalls,
    Instructions,
}

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) command: Command,
    pub(crate) rounds: Option<usize>,
    pub(crate) turn: Option<Duration>,
    pub(crate) only: Vec<Kind>,
    pub(crate) without: Vec<Kind>,
    pub(crate) profile: Option<PathBuf>,
    pub(crate) ours: Option<PathBuf>,
    pub(crate) envoy: Option<PathBuf>,
    pub(crate) nginx_current: Option<PathBuf>,
    pub(crate) nginx_mainline: Option<PathBuf>,
    pub(crate) haproxy_current: Option<PathBuf>,
    pub(crate) build: bool,
    pub(crate) keep: bool,
    /// Everything was asked for.
    pub(crate) all: bool,
}

impl Args {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, BoxError> {
        let mut parsed = Self {
            command: Command::Help,
            rounds: None,
            turn: None,
            only: Vec::new(),
            without: Vec::new(),
            profile: None,
            ours: None,
            envoy: None,
            nginx_current: None,
            nginx_mainline: None,
            haproxy_current: None,
            build: true,
            keep: false,
            all: false,
        };
        let mut scenarios = Vec::new();
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "--rounds" => parsed.rounds = Some(value()?.parse::<usize>()?.max(1)),
                "--turn" => {
                    let millis = value()?.parse::<u64>()?.max(1);
                    parsed.turn = Some(Duration::from_millis(millis));
                }
                "--only" => parsed.only.extend(kinds(&value()?)?),
                "--without" => parsed.without.extend(kinds(&value()?)?),
                "--profile" => parsed.profile = Some(std::path::absolute(value()?)?),
                "--ours" => parsed.ours = Some(std::path::absolute(value()?)?),
                "--envoy" => parsed.envoy = Some(std::path::absolute(value()?)?),
                "--nginx-current" => {
                    parsed.nginx_current = Some(std::path::absolute(value()?)?);
                }
                "--nginx-mainline" => {
                    parsed.nginx_mainline = Some(std::path::absolute(value()?)?);
                }
                "--haproxy-current" => {
                    parsed.haproxy_current = Some(std::path::absolute(value()?)?);
                }
                "--no-build" => parsed.build = false,
                "--keep" => parsed.keep = true,
                "-h" | "--help" => return Ok(parsed),
                "build" => parsed.command = Command::Build,
                "report" => parsed.command = Command::Report,
                "syscalls" => parsed.command = Command::Syscalls,
                "instructions" => parsed.command = Command::Instructions,
                "all" => {
                    parsed.all = true;
                    scenarios.extend(&SCENARIOS);
                }
                other => match SCENARIOS.iter().find(|scenario| scenario.id == other) {
                    Some(scenario) => scenarios.push(scenario),
                    None => return Err(format!("unknown: {other}\n\n{HELP}").into()),
                },
            }
        }
        if !scenarios.is_empty() {
            parsed.command = Command::Scenarios(scenarios);
        }
        Ok(parsed)
    }

    pub(crate) fn wants(&self, kind: Kind) -> bool {
        let named = self.only.is_empty() || self.only.contains(&kind);
        named && !self.without.contains(&kind)
    }
}

fn kinds(names: &str) -> Result<Vec<Kind>, BoxError> {
    names.split(',').map(Kind::parse).collect()
}
