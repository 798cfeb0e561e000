//! A program that runs beside the test and ends with it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process};

use super::{WAIT_TIMEOUT, tool};

/// How many lines a failed test shows of each program.
const SHOWN: usize = 40;

/// A running program and every line it has written so far.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

#[derive(Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    closed: u8,
}

/// Memory of a program, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident now (`VmRSS`).
    pub(crate) resident: u64,
    /// The most that ever was resident (`VmHWM`).
    pub(crate) peak: u64,
}

impl Process {
    /// Starts a program. It is killed when this is dropped, and by the kernel should the test's
    /// thread end without dropping it.
    pub(crate) fn start(name: &str, command: &Command) -> Self {
        let mut guarded = Command::new(tool("setpriv"));
        guarded
            .arg("--pdeathsig=KILL")
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        let mut child = guarded
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        let output = Arc::new(Output::default());
        output.clone().collect(child.stdout.take().expect("a pipe"));
        output.clone().collect(child.stderr.take().expect("a pipe"));
        Self {
            name: name.to_owned(),
            child,
            output,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Every line of standard output and standard error so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.output.lock().lines.clone()
    }

    /// Waits until `pick` finds what it looks for among the lines.
    pub(crate) fn wait_for<T>(&self, what: &str, pick: impl Fn(&[String]) -> Option<T>) -> T {
        let found = self.output.wait(WAIT_TIMEOUT, |state| {
            pick(&state.lines)
                .map(Some)
                .or((state.closed == 2).then_some(None))
        });
        match found {
            Some(Some(found)) => found,
            Some(None) => panic!("{} ended without: {what}", self.name),
            None => panic!("{} did not within {WAIT_TIMEOUT:?}: {what}", self.name),
        }
    }

    /// Waits for a line that holds a text.
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        self.wait_for(text, |lines| {
            lines.iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child's status").is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("signalling a child");
    }

    /// Asks it to stop (`SIGTERM`) and waits for the end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(WAIT_TIMEOUT)
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        // Both pipes are closed by a program's end, and nothing else here closes them.
        let ended = self
            .output
            .wait(within, |state| (state.closed == 2).then_some(()));
        assert!(
            ended.is_some(),
            "{} did not end within {within:?}",
            self.name
        );
        self.child.wait().expect("a child's status")
    }

    pub(crate) fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("/proc");
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value
                .trim_start_matches(':')
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        };
        Memory {
            resident: field("VmRSS").expect("VmRSS"),
            peak: field("VmHWM").expect("VmHWM"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            let state = self.output.lock();
            let skipped = state.lines.len().saturating_sub(SHOWN);
            eprintln!("--- {} ({skipped} earlier lines left out)", self.name);
            for line in state.lines.iter().skip(skipped) {
                eprintln!("{line}");
            }
        }
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(self: Arc<Self>, pipe: impl Read + Send + 'static) {
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { break };
                self.lock()
                    .lines
                    .push(String::from_utf8_lossy(&line).into_owned());
                self.changed.notify_all();
            }
            self.lock().closed += 1;
            self.changed.notify_all();
        });
    }

    fn wait<T>(&self, within: Duration, pick: impl Fn(&State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        loop {
            if let Some(found) = pick(&state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
