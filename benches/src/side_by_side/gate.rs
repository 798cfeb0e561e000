//! The gate: how many instructions a proxied GET takes, to what was recorded.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::BoxError;

use super::args::Args;
use super::build;
use super::counts;
use super::interrupt;
use super::machine;
use super::process;
use super::subject::{Kind, Programs};

/// How much more than recorded is let through. Less is told, too: then the record is out of date.
const SLACK: f64 = 0.03;
const KEY: &str = "instructions_per_get";

const HELP: &str = "\
Counts the user-space instructions that one GET of 1 KiB takes in the gateway as it is shipped, by
callgrind, and compares with benches/gates.toml. More than 3 % above fails.

usage: gates [--record] [--ours FILE]

  --record     write what is counted now into benches/gates.toml
  --ours FILE  count in this gateway, instead of building it";

/// Compares what is counted with what was recorded.
///
/// # Errors
/// When a request takes more than it may, or nothing could be counted.
pub fn gates(args: impl Iterator<Item = String>) -> Result<(), BoxError> {
    let (mut record, mut rest) = (false, Vec::new());
    for arg in args {
        match arg.as_str() {
            "-h" | "--help" => {
                println!("{HELP}");
                return Ok(());
            }
            "--record" => record = true,
            _ => rest.push(arg),
        }
    }
    interrupt::watch()?;
    if process::output(Command::new("valgrind").arg("--version")).is_err() {
        eprintln!("SKIPPED: valgrind is not installed, so NO INSTRUCTIONS WERE COUNTED and this");
        eprintln!("SKIPPED: gate has let everything through. apt-get install valgrind");
        return Ok(());
    }
    rest.push("instructions".to_owned());
    let args = Args::parse(rest.into_iter())?;
    let programs = Programs::find(&args, &[Kind::Ours])?;
    machine::prepare()?;
    // One connection: what happens, and in which order, is the same every time.
    let (_, counted) = counts::instructions_of(&programs, Kind::Ours, 1, None)?;
    let counted = counted.round() as u64;

    let recorded = recorded(KEY)?;
    if record {
        let text = fs::read_to_string(file())?;
        let old = format!("{KEY} = {recorded}");
        fs::write(file(), text.replace(&old, &format!("{KEY} = {counted}")))?;
        println!("{KEY}: {counted} recorded, {recorded} before");
        return Ok(());
    }
    let change = counted as f64 / recorded - 1.0;
    println!(
        "{KEY}: {counted}, recorded {recorded}: {:+.1} %",
        change * 100.0
    );
    if change > SLACK {
        let text = "a request takes more instructions than before. If that is worth it, or the \
            compiler is another one: gates --record";
        return Err(text.into());
    }
    if change < -SLACK {
        println!("well below: gates --record keeps it there");
    }
    Ok(())
}

fn file() -> PathBuf {
    build::root().join("benches/gates.toml")
}

/// The value of `key` in `benches/gates.toml`.
///
/// # Errors
/// When there is none.
pub fn recorded(key: &str) -> Result<f64, BoxError> {
    let text = fs::read_to_string(file())?;
    value(&text, key).ok_or_else(|| format!("gates.toml has no {key}").into())
}

/// The number after `key = `.
fn value(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim_start().strip_prefix('=')?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{KEY, recorded, value};

    #[test]
    fn the_record_can_be_read() {
        assert!(recorded(KEY).is_ok_and(|number| number > 0.0));
        assert_eq!(value("other = 3\nkey = 4.5\n", "key"), Some(4.5));
        assert_eq!(value("other = 3\n", "key"), None);
    }
}
