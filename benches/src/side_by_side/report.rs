//! From rows to tables.

use std::fmt::Write as _;
use std::fs;

use crate::BoxError;

use super::build;
use super::chart;
use super::goals::{self, RATIOS};
use super::rows::{self, Kept, Row};
use super::scenario::{SCENARIOS, by_id};
use super::stats::Summary;
use super::versions::Versions;

const BEGIN: &str = "<!-- results: written by side-by-side, do not edit -->";
const END: &str = "<!-- end of results -->";

/// The rows of one subject.
fn of<'a>(rows: &'a [Row], subject: &'a str) -> impl Iterator<Item = &'a Row> {
    rows.iter().filter(move |row| row.subject == subject)
}

/// The subjects, in the order of the first round.
pub(crate) fn subjects(rows: &[Row]) -> Vec<String> {
    let mut subjects: Vec<String> = Vec::new();
    for row in rows {
        if !subjects.contains(&row.subject) {
            subjects.push(row.subject.clone());
        }
    }
    subjects
}

fn summary(rows: &[Row], subject: &str, figure: impl Fn(&Row) -> Option<f64>) -> Option<Summary> {
    Summary::of(of(rows, subject).filter_map(figure))
}

/// A figure of one to that of another, round by round: what disturbs a whole round does not count.
pub(crate) fn ratio(
    rows: &[Row],
    one: &str,
    other: &str,
    figure: impl Fn(&Row) -> Option<f64>,
) -> Option<Summary> {
    Summary::of(of(rows, one).filter_map(|row| {
        let same = of(rows, other).find(|candidate| candidate.round == row.round)?;
        let ratio = figure(row)? / figure(same)?;
        ratio.is_finite().then_some(ratio)
    }))
}

pub(crate) fn cpu(row: &Row) -> Option<f64> {
    Some(row.cpu_us)
}

/// The variant of ours that a subject is compared with in tables.
fn ours_for(subject: &str) -> String {
    let suffix = subject.split_once(' ').map_or("", |(_, suffix)| suffix);
    format!("ours {suffix}").trim_end().to_owned()
}

/// The table of one scenario.
pub(crate) fn scenario(id: &str, rows: &[Row], versions: &Versions) -> String {
    match id {
        "s6" => counted(rows, versions, "KiB a connection", 2),
        "syscalls" => counted(rows, versions, "system calls a request", 2),
        "instructions" => counted(rows, versions, "user-space instructions a request", 0),
        _ => timed(rows, versions),
    }
}

fn ratio_cell(ratio: Option<Summary>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| ratio.with_interval(2))
}

fn timed(rows: &[Row], versions: &Versions) -> String {
    // Where there is something besides the plain one, it is compared with that, too.
    let variants = subjects(rows).iter().any(|subject| subject.contains(' '));
    let (head, line) = if variants {
        (" it : its plain self |", "--:|")
    } else {
        ("", "")
    };
    let mut table = format!(
        "| | CPU a request, µs | ours : it |{head} requests/s | p50, µs | p99, µs | RSS, MiB |\n\
         |---|--:|--:|{line}--:|--:|--:|--:|\n",
    );
    for subject in subjects(rows) {
        let cell = |figure: &dyn Fn(&Row) -> Option<f64>, digits: usize| {
            let summary = summary(rows, &subject, figure);
            summary.map_or_else(|| "–".to_owned(), |s| format!("{:.digits$}", s.median))
        };
        let own = ours_for(&subject);
        let others = (own != subject)
            .then(|| ratio(rows, &own, &subject, cpu))
            .flatten();
        let mut ratios = ratio_cell(others);
        if variants {
            let plain = subject.split_once(' ').map(|(plain, _)| plain);
            let itself = plain.and_then(|plain| ratio(rows, &subject, plain, cpu));
            ratios = format!("{ratios} | {}", ratio_cell(itself));
        }
        let cpu = summary(rows, &subject, cpu)
            .map(|s| s.with_interval(1))
            .unwrap_or_default();
        let _ = writeln!(
            table,
            "| {} | {cpu} | {ratios} | {} | {} | {} | {} |",
            versions.label(&subject),
            cell(&|row| Some(row.rps()), 0),
            cell(&|row| row.p50_us, 0),
            cell(&|row| row.p99_us, 0),
            cell(&|row| Some(row.rss_kib as f64 / 1024.0), 1),
        );
    }
    table
}

fn counted(rows: &[Row], versions: &Versions, what: &str, digits: usize) -> String {
    let mut table = format!("| | {what} | ours : it |\n|---|--:|--:|\n");
    for subject in subjects(rows) {
        let count = summary(rows, &subject, |row| row.count);
        let count = count.map(|s| s.with_interval(digits)).unwrap_or_default();
        let ratio = ratio(rows, "ours", &subject, |row| row.count).filter(|_| subject != "ours");
        let ratio = ratio.map_or_else(|| "–".to_owned(), |r| format!("{:.2}", r.median));
        let label = versions.label(&subject);
        let _ = writeln!(table, "| {label} | {count} | {ratio} |");
    }
    table
}

/// Whether a goal is met, missed or not resolved.
fn verdict(measured: &Summary, limit: f64) -> &'static str {
    let (low, high) = measured.interval;
    if high <= limit {
        "met"
    } else if low > limit {
        "**missed**"
    } else if measured.median <= limit {
        "not resolved (median met)"
    } else {
        "not resolved (median missed)"
    }
}

/// `S5a`, as scenarios are called.
pub(crate) fn title_of(id: &str) -> String {
    id.replacen('s', "S", 1)
}

fn goals(read: &impl Fn(&str) -> Result<Vec<Row>, BoxError>) -> Result<String, BoxError> {
    let mut lines = Vec::new();
    let mut line = |id: &str, goal: String, measured: Option<Summary>, limit: f64, digits| {
        let (figure, range, verdict) = match &measured {
            Some(measured) => (
                measured.with_interval(digits),
                measured.range(digits),
                verdict(measured, limit),
            ),
            None => ("–".to_owned(), "–".to_owned(), "not measured"),
        };
        let place = SCENARIOS.iter().position(|scenario| scenario.id == id);
        let id = title_of(id);
        lines.push((
            place,
            format!("| {id} | {goal} | {figure} | {range} | {verdict} |\n"),
        ));
    };
    for goal in RATIOS {
        let measured = ratio(&read(goal.scenario)?, goal.ours, goal.against, cpu);
        let text = match goal.ours {
            "ours" => format!("≤ {:.2} × {}", goal.limit, goal.against),
            ours => format!("{ours}: ≤ {:.2} × {}", goal.limit, goal.against),
        };
        line(goal.scenario, text, measured, goal.limit, 2);
    }
    let s6 = summary(&read("s6")?, "ours", |row| row.count);
    line(
        "s6",
        format!("≤ {} KiB a connection", goals::IDLE_KIB),
        s6,
        goals::IDLE_KIB,
        1,
    );
    let s7 = read("s7")?;
    let added = |subject: &str| {
        Summary::of(of(&s7, subject).filter_map(|row| {
            let direct = of(&s7, "direct").find(|direct| direct.round == row.round)?;
            Some(row.p50_us? - direct.p50_us?)
        }))
    };
    if let Some(nginx) = added("nginx") {
        let text = format!("adds ≤ nginx's {} µs to the p50", nginx.with_interval(0));
        line("s7", text, added("ours"), nginx.median, 0);
    }
    let calls = summary(&read("syscalls")?, "ours", |row| row.count);
    line(
        "s1",
        format!("≤ {} system calls a request", goals::SYSCALLS),
        calls,
        goals::SYSCALLS,
        2,
    );
    let instructions = ratio(&read("instructions")?, "ours", "floor-hyper", |row| {
        row.count
    });
    line(
        "s1",
        format!(
            "≤ {:.2} × the user-space instructions of floor-hyper",
            goals::INSTRUCTIONS
        ),
        instructions,
        goals::INSTRUCTIONS,
        2,
    );
    lines.sort_by_key(|(place, _)| *place);
    let lines: String = lines.into_iter().map(|(_, line)| line).collect();
    Ok(format!(
        "| | goal | measured | least–greatest | |\n|---|---|--:|--:|---|\n{lines}"
    ))
}

/// Writes the tables and the chart from the rows that are kept.
pub(crate) fn from_kept() -> Result<(), BoxError> {
    let dir = rows::kept();
    let read = |id: &str| Ok(rows::read(&dir, id)?.rows);
    let mut text = String::new();
    let mut dates: Vec<String> = Vec::new();
    let mut details = String::new();
    let extra = [
        ("syscalls", "System calls, in the load of S1"),
        (
            "instructions",
            "User-space instructions, by callgrind, 8 connections",
        ),
    ];
    let titled = SCENARIOS
        .iter()
        .map(|scenario| (scenario.id, scenario.title));
    for (id, title) in titled.chain(extra) {
        let Kept {
            when,
            rows,
            versions,
        } = rows::read(&dir, id)?;
        if rows.is_empty() {
            continue;
        }
        let name = if by_id(id).is_some() {
            format!("{}: ", title_of(id))
        } else {
            String::new()
        };
        let rounds = rows.iter().map(|row| row.round).max().unwrap_or(0);
        let _ = write!(
            details,
            "### {name}{title}\n\n{}\n{rounds} rounds. Rows: [`results/{id}.csv`](results/{id}.csv)\n\n",
            scenario(id, &rows, &versions),
        );
        if !dates.contains(&when) {
            dates.push(when);
        }
    }
    let _ = write!(
        text,
        "Measured: {}. Figures are medians over rounds, and in brackets the interval \
         that has the median with 95 % confidence; ratios are taken within a round. A goal is *met* or *missed* when that interval is on one \
         side of it, and else *not resolved*.\n\n![CPU time a request of mesh-ingress, to that of others](results/chart.svg)\n\n{}\n{details}",
        dates.join("; "),
        goals(&read)?
    );
    fs::write(
        dir.join("chart.svg"),
        chart::draw(&|id| rows::read(&dir, id))?,
    )?;

    let readme = build::root().join("benches/README.md");
    let old = fs::read_to_string(&readme)?;
    let (before, rest) = old
        .split_once(BEGIN)
        .ok_or("benches/README.md has no place for results")?;
    let (_, after) = rest
        .split_once(END)
        .ok_or("the results in benches/README.md do not end")?;
    Ok(fs::write(
        readme,
        format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", text.trim_end()),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_when_the_median_is_known_to_meet_it() {
        let measured = |low, median, high| Summary {
            median,
            min: 0.1,
            max: 9.0,
            interval: (low, high),
        };
        assert_eq!(verdict(&measured(0.8, 0.9, 0.94), 0.95), "met");
        assert_eq!(verdict(&measured(0.96, 0.97, 0.98), 0.95), "**missed**");
        assert!(verdict(&measured(0.9, 0.94, 0.96), 0.95).starts_with("not resolved (median met"));
    }

    fn row(subject: &str, round: usize, cpu_us: f64) -> Row {
        Row {
            scenario: "s9".to_owned(),
            subject: subject.to_owned(),
            round,
            requests: 1000,
            seconds: 1.0,
            cpu_us,
            p50_us: None,
            p99_us: None,
            rss_kib: 2048,
            count: None,
        }
    }

    #[test]
    fn ratios_are_those_within_a_round() {
        // The machine was twice as slow in the second round, for all.
        let mut rows = vec![row("ours", 1, 9.0), row("nginx", 1, 10.0)];
        rows.extend([row("ours", 2, 18.0), row("nginx", 2, 20.0)]);
        let ratio = ratio(&rows, "ours", "nginx", cpu).unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (0.9, 0.9, 0.9));
    }

    #[test]
    fn tables_have_as_many_cells_in_each_line() {
        let plain = vec![row("ours", 1, 9.0), row("nginx", 1, 10.0)];
        let mut variants = plain.clone();
        variants.extend([row("ours ×2", 1, 8.0), row("nginx ×2", 1, 10.0)]);
        for rows in [plain, variants] {
            let table = timed(&rows, &Versions::default());
            let cells = |line: &str| line.matches('|').count();
            let first = table.lines().next().map(cells);
            assert!(
                table.lines().all(|line| Some(cells(line)) == first),
                "{table}"
            );
        }
    }

    #[test]
    fn variants_are_compared_with_the_same_variant_of_ours() {
        assert_eq!(ours_for("nginx"), "ours");
        assert_eq!(ours_for("nginx ×2"), "ours ×2");
        assert_eq!(ours_for("envoy 1 of 1000"), "ours 1 of 1000");
    }
}
