//! The rounds: each proxy gets a turn in each, in an order that rotates.

use std::time::{Duration, Instant};

use crate::BoxError;

use super::args::Args;
use super::counts;
use super::engine;
use super::lab::Lab;
use super::loads::{Generator, Load, Report};
use super::machine::{self, LOAD_CORE, PROXY_CORE};
use super::process::Running;
use super::report;
use super::rows::{self, Row};
use super::scenario::Scenario;
use super::subject::{Kind, Programs, Setup, Subject, listen};

pub(crate) fn scenarios(scenarios: &[&'static Scenario], args: &Args) -> Result<(), BoxError> {
    // Builds run on all cores.
    let mut kinds: Vec<Kind> = scenarios
        .iter()
        .flat_map(|scenario| scenario.subjects)
        .map(|subject| subject.kind)
        .filter(|kind| args.wants(*kind))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let programs = Programs::find(args, &kinds)?;
    machine::prepare()?;
    let begin = Instant::now();
    // A scenario that fails does not end the others.
    let mut failed = Vec::new();
    let mut note = |what: &str, result: Result<(), BoxError>| {
        if let Err(error) = result {
            eprintln!("{what} FAILED: {error}");
            failed.push(what.to_owned());
        }
    };
    for (number, scenario) in (1..).zip(scenarios) {
        eprintln!(
            "\n[{number}/{}, {:.0?}] {}: {}",
            scenarios.len(),
            begin.elapsed(),
            scenario.id,
            scenario.title
        );
        note(scenario.id, one(scenario, &programs, args));
    }
    if args.all {
        note("syscalls", counts::syscalls_with(&programs, args));
        note("instructions", counts::instructions_with(&programs, args));
    }
    eprintln!("took {:.0?}", begin.elapsed());
    if args.keep {
        report::from_kept()?;
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("failed: {}", failed.join(", ")).into()),
    }
}

fn one(scenario: &Scenario, programs: &Programs, args: &Args) -> Result<(), BoxError> {
    let rows = match scenario.load {
        Load::Idle(count) => idle(scenario, count, programs, args)?,
        _ => turns(scenario, programs, args)?,
    };
    if args.keep {
        rows::write(&rows::kept(), scenario.id, &rows, programs.versions())?;
    }
    println!(
        "\n{}",
        report::scenario(scenario.id, &rows, programs.versions())
    );
    Ok(())
}

/// A proxy that waits for its turn.
struct Contender {
    subject: Subject,
    running: Option<Running>,
    load: Generator,
}

pub(crate) fn setup<'a>(
    scenario: &Scenario,
    subject: &Subject,
    lab: &'a Lab,
) -> Result<Setup<'a>, BoxError> {
    Ok(Setup {
        lab,
        listen: listen()?,
        workers: subject.workers,
        h2: scenario.load.is_h2(),
        h2_origin: scenario.h2_origin,
        websocket: scenario.load == Load::Echo,
        services: subject.routes.services(),
    })
}

fn turns(scenario: &Scenario, programs: &Programs, args: &Args) -> Result<Vec<Row>, BoxError> {
    let both = format!("{PROXY_CORE},{LOAD_CORE}");
    let (proxy_cores, load_cores) = match scenario.shared_cores {
        true => (both.clone(), both),
        false => (PROXY_CORE.to_string(), LOAD_CORE.to_string()),
    };
    machine::stay_on(match scenario.shared_cores {
        true => &[PROXY_CORE, LOAD_CORE],
        false => &[LOAD_CORE],
    })?;
    let lab = Lab::start(&load_cores, scenario.load == Load::Hosts)?;
    let mut contenders = Vec::new();
    for subject in scenario
        .subjects
        .iter()
        .filter(|subject| args.wants(subject.kind))
    {
        let (running, address) = if subject.kind == Kind::Direct {
            (None, lab.origin)
        } else {
            let setup = setup(scenario, subject, &lab)?;
            let running = programs.start(subject.kind, &setup, &proxy_cores)?;
            (Some(running), setup.listen)
        };
        let load = scenario
            .load
            .against(address, subject.routes, &load_cores, &lab.dir)?;
        contenders.push(Contender {
            subject: *subject,
            running,
            load,
        });
    }
    for contender in &mut contenders {
        // Opens the connections to the origin, and fills the caches.
        contender.turn(Duration::from_secs(1))?;
    }
    let (rounds, turn) = scenario.load.turns();
    let (rounds, turn) = (args.rounds.unwrap_or(rounds), args.turn.unwrap_or(turn));
    let mut rows = Vec::new();
    for round in 0..rounds {
        for place in 0..contenders.len() {
            let next = (round + place) % contenders.len();
            if let Some(contender) = contenders.get_mut(next) {
                contender.run_up()?;
                rows.push(contender.row(scenario.id, round + 1, turn)?);
            }
        }
        if (round + 1) % rounds.div_ceil(8) == 0 {
            progress(round + 1, rows.iter().rev().take(contenders.len()));
        }
    }
    Ok(rows)
}

impl Contender {
    fn turn(&mut self, duration: Duration) -> Result<Report, BoxError> {
        let report = self.load.turn(duration);
        report.map_err(|error| format!("{}: {error}", self.subject.label()).into())
    }

    fn run_up(&mut self) -> Result<(), BoxError> {
        let run = self.load.run_up();
        run.map_err(|error| format!("{}: {error}", self.subject.label()).into())
    }

    fn cpu(&self) -> Duration {
        self.running.as_ref().map(Running::cpu).unwrap_or_default()
    }

    /// Takes a turn.
    fn row(&mut self, scenario: &str, round: usize, duration: Duration) -> Result<Row, BoxError> {
        let before = self.cpu();
        let report = self.turn(duration)?;
        let cpu = self.cpu().saturating_sub(before);
        Ok(Row {
            scenario: scenario.to_owned(),
            subject: self.subject.label(),
            round,
            requests: report.requests,
            seconds: report.seconds,
            cpu_us: cpu.as_secs_f64() * 1e6 / report.requests as f64,
            p50_us: report.p50_us,
            p99_us: report.p99_us,
            rss_kib: self.running.as_ref().map_or(0, Running::rss),
            count: None,
        })
    }
}

fn progress<'a>(round: usize, rows: impl Iterator<Item = &'a Row>) {
    let mut figures: Vec<String> = rows
        .map(|row| format!("{} {:.1}", row.subject, row.cpu_us))
        .collect();
    figures.sort_unstable();
    eprintln!("  round {round}, µs CPU a request: {}", figures.join(", "));
}

/// Memory is not given back between turns: each begins with a new process.
fn idle(
    scenario: &Scenario,
    count: usize,
    programs: &Programs,
    args: &Args,
) -> Result<Vec<Row>, BoxError> {
    let lab = Lab::start(&LOAD_CORE.to_string(), false)?;
    let subjects: Vec<_> = scenario
        .subjects
        .iter()
        .filter(|s| args.wants(s.kind))
        .collect();
    let mut rows = Vec::new();
    let (rounds, _) = scenario.load.turns();
    for round in 0..args.rounds.unwrap_or(rounds).min(rounds) {
        for turn in 0..subjects.len() {
            let Some(subject) = subjects.get((round + turn) % subjects.len()) else {
                continue;
            };
            let setup = setup(scenario, subject, &lab)?;
            let running = programs.start(subject.kind, &setup, &PROXY_CORE.to_string())?;
            // One-time allocations are not counted for a connection.
            drop(engine::idle(setup.listen, 64)?);
            let (before, cpu) = (running.rss(), running.cpu());
            let begin = Instant::now();
            let connections = engine::idle(setup.listen, count)
                .map_err(|error| format!("{}: {error}", subject.label()))?;
            let seconds = begin.elapsed().as_secs_f64();
            // Memory that is returned to the system a moment later is not held by an idle connection.
            std::thread::sleep(Duration::from_secs(1));
            let after = running.rss();
            let row = Row {
                scenario: scenario.id.to_owned(),
                subject: subject.label(),
                round: round + 1,
                requests: connections.len() as u64,
                seconds,
                cpu_us: (running.cpu().saturating_sub(cpu)).as_secs_f64() * 1e6 / count as f64,
                p50_us: None,
                p99_us: None,
                rss_kib: after,
                count: Some(after.saturating_sub(before) as f64 / count as f64),
            };
            eprintln!(
                "  round {} {:<20} {:>6.2} KiB a connection",
                row.round,
                row.subject,
                row.count.unwrap_or_default()
            );
            rows.push(row);
        }
    }
    Ok(rows)
}
