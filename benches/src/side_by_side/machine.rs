//! The machine: kind, cores, limits, date.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::BoxError;

/// The core of the proxies.
pub(crate) const PROXY_CORE: usize = 0;
/// The core of everything else.
pub(crate) const LOAD_CORE: usize = 1;

/// Keeps this process, and what it starts from now on, on the load's core, with as many file
/// descriptors as it may have.
pub(crate) fn prepare() -> Result<(), BoxError> {
    if std::thread::available_parallelism()?.get() < 2 {
        return Err("one core for the proxies and one for the load: this machine has less".into());
    }
    stay_on(&[LOAD_CORE])?;
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, all)?;
    Ok(())
}

/// Keeps this thread, and what it starts from now on, on some cores.
pub(crate) fn stay_on(cores: &[usize]) -> Result<(), BoxError> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// The kind of this machine, without anything that identifies it.
pub(crate) fn kind() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let model = field("model name").unwrap_or_else(|| "unknown processor".to_owned());
    let hypervisor = field("flags").is_some_and(|flags| flags.contains("hypervisor"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // Without what a distributor or a host has appended.
    let kernel: String = kernel
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let machine = if hypervisor { "virtual machine, " } else { "" };
    format!("{machine}{cores} × {model}, Linux {kernel}")
}

/// Today, UTC.
pub(crate) fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH);
    let days = seconds.map_or(0, |since| since.as_secs() / 86_400);
    // Howard Hinnant's civil_from_days, for days after 1970.
    let era_days = days + 719_468;
    let (era, day) = (era_days / 146_097, era_days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_look_like_dates() {
        let date = super::date();
        assert_eq!(date.len(), 10);
        assert!(date.as_str() >= "2025-01-01", "{date}");
    }
}
