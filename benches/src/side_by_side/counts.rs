//! Counts instead of times: system calls and instructions.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::BoxError;

use super::args::Args;
use super::engine::{self, Pace, Talk};
use super::lab::Lab;
use super::loads::Load;
use super::machine::{self, LOAD_CORE, PROXY_CORE};
use super::process::{self, Running};
use super::report;
use super::rows::{self, Row};
use super::run::setup;
use super::scenario::{Scenario, by_id};
use super::subject::{Kind, Programs, Routes, Subject};
use super::versions::Versions;

/// How often a count is taken at most: instructions hardly vary; how many requests the proxy finds
/// each time it looks does.
const MOST: usize = 2;
const MOST_CALLS: usize = 7;

fn s1() -> Result<&'static Scenario, BoxError> {
    by_id("s1").ok_or_else(|| "there is no S1".into())
}

fn wanted(all: impl IntoIterator<Item = Kind>, args: &Args) -> Vec<Kind> {
    all.into_iter().filter(|kind| args.wants(*kind)).collect()
}

fn row(scenario: &str, kind: Kind, round: usize, requests: u64, count: f64) -> Row {
    eprintln!(
        "  round {round} {:<20} {count:>10.2} a request",
        kind.name()
    );
    Row {
        scenario: scenario.to_owned(),
        subject: kind.name().to_owned(),
        round,
        requests,
        seconds: 0.0,
        cpu_us: 0.0,
        p50_us: None,
        p99_us: None,
        rss_kib: 0,
        count: Some(count),
    }
}

fn finish(scenario: &str, rows: &[Row], versions: &Versions, args: &Args) -> Result<(), BoxError> {
    println!("\n{}", report::scenario(scenario, rows, versions));
    if args.keep {
        rows::write(&rows::kept(), scenario, rows, versions)?;
        report::from_kept()?;
    }
    Ok(())
}

/// System calls a request, in the load of S1.
pub(crate) fn syscalls(args: &Args) -> Result<(), BoxError> {
    let kinds = wanted(s1()?.subjects.iter().map(|subject| subject.kind), args);
    let programs = Programs::find(args, &kinds)?;
    machine::prepare()?;
    syscalls_with(&programs, args)
}

pub(crate) fn syscalls_with(programs: &Programs, args: &Args) -> Result<(), BoxError> {
    eprintln!("\nsystem calls");
    let scenario = s1()?;
    let lab = Lab::start(&LOAD_CORE.to_string(), false)?;
    let counter = Counter::choose();
    let mut rows = Vec::new();
    for kind in wanted(scenario.subjects.iter().map(|subject| subject.kind), args) {
        let setup = setup(scenario, &Subject::of(kind), &lab)?;
        let running = programs.start(kind, &setup, &PROXY_CORE.to_string())?;
        let cores = LOAD_CORE.to_string();
        let load = Load::Get("/1k");
        let mut load = load.against(setup.listen, Routes::One, &cores, &lab.dir)?;
        let mut load = || load.turn(Duration::from_secs(1));
        load()?;
        for round in 1..=args.rounds.unwrap_or(MOST_CALLS).min(MOST_CALLS) {
            let (calls, report) = counter.count(&running, &lab, &mut load)?;
            let each = calls as f64 / report.requests as f64;
            rows.push(row("syscalls", kind, round, report.requests, each));
        }
    }
    finish("syscalls", &rows, programs.versions(), args)
}

/// The program that counts system calls.
#[derive(Clone, Copy, Debug)]
enum Counter {
    /// A counter in the kernel: next to no disturbance.
    Perf,
    /// Stops the program at each call, which makes it slower and its batches larger.
    Strace,
}

impl Counter {
    fn choose() -> Self {
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "true"]);
        match process::output(&mut perf) {
            Ok(_) => Self::Perf,
            Err(_) => {
                eprintln!("  perf cannot count system calls here: strace, which disturbs");
                Self::Strace
            }
        }
    }

    fn count<T>(
        self,
        running: &Running,
        lab: &Lab,
        load: impl FnOnce() -> Result<T, BoxError>,
    ) -> Result<(u64, T), BoxError> {
        let pids: Vec<String> = running.pids().iter().map(u32::to_string).collect();
        let file = lab.dir.join("calls");
        let program = match self {
            Self::Perf => "perf",
            Self::Strace => "strace",
        };
        let mut command = process::on_cores(&LOAD_CORE.to_string(), program);
        match self {
            Self::Perf => command
                .args([
                    "stat",
                    "-x,",
                    "-e",
                    "raw_syscalls:sys_enter",
                    "-p",
                    &pids.join(","),
                ])
                .arg("-o")
                .arg(&file),
            Self::Strace => {
                command
                    .args(["-f", "-c"])
                    .args(pids.iter().flat_map(|pid| ["-p", pid]));
                command.arg("-o").arg(&file)
            }
        };
        let mut counter = Running::start("counter", &mut command, &lab.dir)?;
        // Neither says when it has begun. The load of a second forgives a late one; what it leaves
        // out is next to nothing.
        thread::sleep(Duration::from_millis(300));
        let report = load()?;
        counter.stop(Signal::INT, Duration::from_secs(5));
        let text = fs::read_to_string(&file)?;
        let calls = match self {
            Self::Perf => text.lines().find(|line| line.contains("sys_enter")),
            Self::Strace => text.lines().find(|line| line.ends_with("total")),
        };
        let calls = calls.and_then(|line| match self {
            Self::Perf => line.split(',').next(),
            Self::Strace => line.split_whitespace().nth(3),
        });
        let log = counter.log();
        let calls = calls.and_then(|calls| calls.parse().ok());
        Ok((
            calls.ok_or_else(|| format!("{program} counted nothing: {text}{log}"))?,
            report,
        ))
    }
}

/// The proxies whose instructions are counted by default.
const COUNTED: [Kind; 4] = [
    Kind::Ours,
    Kind::FloorHyper,
    Kind::Nginx,
    Kind::NginxMainline,
];

/// User-space instructions a request, by callgrind.
pub(crate) fn instructions(args: &Args) -> Result<(), BoxError> {
    let programs = Programs::find(args, &counted(args))?;
    machine::prepare()?;
    instructions_with(&programs, args)
}

fn counted(args: &Args) -> Vec<Kind> {
    match args.only.as_slice() {
        [] => wanted(COUNTED, args),
        only => only.to_vec(),
    }
}

pub(crate) fn instructions_with(programs: &Programs, args: &Args) -> Result<(), BoxError> {
    eprintln!("\ninstructions");
    let mut rows = Vec::new();
    for round in 1..=args.rounds.unwrap_or(MOST).min(MOST) {
        for kind in counted(args) {
            let (requests, count) = instructions_of(programs, kind, 8, args.profile.as_deref())?;
            rows.push(row("instructions", kind, round, requests, count));
        }
    }
    if let Some(dir) = &args.profile {
        let dir = dir.display();
        eprintln!("  to read: callgrind_annotate --inclusive=yes {dir}/callgrind.out.ours");
    }
    finish("instructions", &rows, programs.versions(), args)
}

/// Requests, and instructions each: two runs of different length, so that starting does not count.
/// The output of the longer one is kept in `profile`.
pub(crate) fn instructions_of(
    programs: &Programs,
    kind: Kind,
    connections: usize,
    profile: Option<&Path>,
) -> Result<(u64, f64), BoxError> {
    const SHORT: u64 = 1000;
    const LONG: u64 = 4000;
    let lab = Lab::start(&LOAD_CORE.to_string(), false)?;
    let load = (connections, SHORT);
    let short = under_callgrind(programs, kind, &lab, load, &lab.dir)?;
    let kept = profile.unwrap_or(&lab.dir);
    fs::create_dir_all(kept)?;
    let long = under_callgrind(programs, kind, &lab, (connections, LONG), kept)?;
    let requests = LONG - SHORT;
    Ok((
        requests,
        long.saturating_sub(short) as f64 / requests as f64,
    ))
}

/// The instructions of a whole run.
fn under_callgrind(
    programs: &Programs,
    kind: Kind,
    lab: &Lab,
    (connections, requests): (usize, u64),
    dir: &Path,
) -> Result<u64, BoxError> {
    let setup = setup(s1()?, &Subject::of(kind), lab)?;
    let (program, args) = programs.command(kind, &setup)?;
    let file = dir.join(format!("callgrind.out.{}", kind.name()));
    let mut command = process::on_cores(&PROXY_CORE.to_string(), "valgrind");
    command.arg("--tool=callgrind");
    command.arg(format!("--callgrind-out-file={}", file.display()));
    command.arg(program).args(args);
    if matches!(kind, Kind::Nginx | Kind::NginxMainline) {
        // A worker is another process, and would be counted elsewhere.
        command.args(["-g", "master_process off;"]);
    }
    let mut running = Running::start("callgrind", &mut command, &lab.dir)?;
    let timeout = Duration::from_secs(60);
    running.wait_until(timeout, || {
        engine::run(setup.listen, Talk::Get("/1k"), 1, Pace::Count(1)).map(drop)
    })?;
    let talk = Talk::Get("/1k");
    engine::run(setup.listen, talk, connections, Pace::Count(requests))?;
    running.stop(Signal::TERM, timeout);
    let text = fs::read_to_string(&file).unwrap_or_default();
    let total = text.lines().find_map(|line| {
        let rest = line
            .strip_prefix("totals:")
            .or_else(|| line.strip_prefix("summary:"))?;
        rest.split_whitespace().next()?.parse().ok()
    });
    total.ok_or_else(|| format!("callgrind counted nothing: {}", running.log()).into())
}
