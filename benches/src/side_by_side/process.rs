//! Programs under test and around it: started on their cores, watched, ended.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::BoxError;

/// A program that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A command that starts `program` on some cores (`0`, `0,1`), to end with this process.
pub(crate) fn on_cores(cores: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "-c", cores]);
    command.arg(program);
    command.env("PATH", search_path());
    command
}

/// Debian has nginx and haproxy in `/usr/sbin`, which is not in every user's path.
pub(crate) fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

impl Running {
    pub(crate) fn start(name: &str, command: &mut Command, logs: &Path) -> Result<Self, BoxError> {
        let log = logs.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Waits until `ready` says so.
    pub(crate) fn wait_until(
        &mut self,
        timeout: Duration,
        mut ready: impl FnMut() -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        let begin = Instant::now();
        loop {
            let Err(error) = ready() else { return Ok(()) };
            let ended = self.child.try_wait()?;
            if ended.is_some() || begin.elapsed() > timeout {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let why = match ended {
                    Some(status) => format!("has ended: {status}"),
                    None => format!("does not serve: {error}"),
                };
                return Err(format!("{} {why}\n{log}", self.name).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process and its descendants.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = pids.get(next).copied() {
            next += 1;
            for task in tasks(pid) {
                let children = fs::read_to_string(task.join("children")).unwrap_or_default();
                pids.extend(
                    children
                        .split_whitespace()
                        .filter_map(|pid| pid.parse::<u32>().ok()),
                );
            }
        }
        pids
    }

    /// Processor time so far, user and system, of all its threads that live. Nanoseconds fine,
    /// unlike the ticks of `/proc/PID/stat`.
    pub(crate) fn cpu(&self) -> Duration {
        let mut nanoseconds = 0;
        for pid in self.pids() {
            for task in tasks(pid) {
                let schedstat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
                let ran = schedstat.split_whitespace().next();
                nanoseconds += ran.and_then(|ran| ran.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Duration::from_nanos(nanoseconds)
    }

    /// Resident memory, KiB.
    pub(crate) fn rss(&self) -> u64 {
        let of = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.pids().iter().filter_map(of).sum()
    }

    /// Asks it to end, and waits for it.
    pub(crate) fn stop(&mut self, signal: Signal, timeout: Duration) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The child has not been waited for, so the id is still its own.
            if matches!(self.child.try_wait(), Ok(None)) {
                let _ = kill_process(pid, signal);
            }
        }
        let begin = Instant::now();
        while begin.elapsed() < timeout {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Signal::TERM, Duration::from_secs(2));
    }
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// The output of a short program, which is ended after a minute.
pub(crate) fn output(command: &mut Command) -> Result<String, BoxError> {
    let mut bounded = Command::new("setpriv");
    bounded.args(["--pdeathsig", "TERM"]);
    bounded.args(["timeout", "--foreground", "-k", "2", "60"]);
    bounded.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        bounded.env(name, value.unwrap_or_default());
    }
    let output = bounded
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{:?} does not start: {error}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command:?} failed: {}\n{text}{errors}", output.status).into())
        }
    }
}
