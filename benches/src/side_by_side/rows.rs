//! The raw rows: one a turn, kept as they were measured.

use std::fs;
use std::path::{Path, PathBuf};

use crate::BoxError;

use super::build;
use super::machine;
use super::versions::Versions;

/// One turn of one proxy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) subject: String,
    pub(crate) round: usize,
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_us: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) rss_kib: u64,
    /// The count per request or connection, where that is the scenario's figure.
    pub(crate) count: Option<f64>,
}

const HEAD: &str = "scenario,subject,round,requests,seconds,cpu_us_per_request,\
    p50_us,p99_us,rss_kib,count";

const VERSIONS: &str = "# versions: ";

impl Row {
    pub(crate) fn rps(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    fn write(&self) -> String {
        let number = |number: Option<f64>| number.map_or_else(String::new, |n| format!("{n:.3}"));
        format!(
            "{},{},{},{},{:.3},{:.4},{},{},{},{}",
            self.scenario,
            self.subject,
            self.round,
            self.requests,
            self.seconds,
            self.cpu_us,
            number(self.p50_us),
            number(self.p99_us),
            self.rss_kib,
            number(self.count),
        )
    }

    fn read(line: &str) -> Result<Self, BoxError> {
        let mut fields = line.split(',');
        let mut next = || fields.next().ok_or_else(|| format!("too short: {line}"));
        let optional = |text: &str| match text {
            "" => Ok(None),
            text => text.parse::<f64>().map(Some),
        };
        Ok(Self {
            scenario: next()?.to_owned(),
            subject: next()?.to_owned(),
            round: next()?.parse()?,
            requests: next()?.parse()?,
            seconds: next()?.parse()?,
            cpu_us: next()?.parse()?,
            p50_us: optional(next()?)?,
            p99_us: optional(next()?)?,
            rss_kib: next()?.parse()?,
            count: optional(next()?)?,
        })
    }
}

/// Where the rows of a scenario are kept.
fn file(dir: &Path, scenario: &str) -> PathBuf {
    dir.join(format!("{scenario}.csv"))
}

pub(crate) fn kept() -> PathBuf {
    build::root().join("benches/results")
}

/// The rows of a scenario, and when and on what they were measured.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) when: String,
    pub(crate) versions: Versions,
    pub(crate) rows: Vec<Row>,
}

pub(crate) fn write(
    dir: &Path,
    scenario: &str,
    rows: &[Row],
    versions: &Versions,
) -> Result<(), BoxError> {
    fs::create_dir_all(dir)?;
    let when = format!("{}, {}", machine::date(), machine::kind());
    let mut text = format!("# {when}\n{VERSIONS}{}\n{HEAD}\n", versions.write());
    for row in rows {
        text.push_str(&row.write());
        text.push('\n');
    }
    Ok(fs::write(file(dir, scenario), text)?)
}

/// The kept rows of a scenario; none if it has never been run.
pub(crate) fn read(dir: &Path, scenario: &str) -> Result<Kept, BoxError> {
    let Ok(text) = fs::read_to_string(file(dir, scenario)) else {
        return Ok(Kept::default());
    };
    let mut lines = text.lines().peekable();
    let when = lines.next().and_then(|line| line.strip_prefix("# "));
    // Rows of 2026-11-30 and before do not tell versions.
    let versions = lines.peek().and_then(|line| line.strip_prefix(VERSIONS));
    let versions = versions.map(Versions::read);
    if versions.is_some() {
        lines.next();
    }
    Ok(Kept {
        when: when.ok_or("a file of rows does not say when")?.to_owned(),
        versions: versions.unwrap_or_default(),
        rows: lines.skip(1).map(Row::read).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_row_is_read_back() {
        let row = Row {
            scenario: "s1".into(),
            subject: "ours ×2".into(),
            round: 3,
            requests: 1000,
            seconds: 2.5,
            cpu_us: 31.25,
            p50_us: Some(12.5),
            p99_us: None,
            rss_kib: 4096,
            count: None,
        };
        assert_eq!(Row::read(&row.write()).unwrap(), row);
        assert!(Row::read("s1,ours").is_err());
    }
}
