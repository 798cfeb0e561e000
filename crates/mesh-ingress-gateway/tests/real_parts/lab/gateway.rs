//! The binary under test.

use std::process::{Command, ExitStatus};

use rustix::process::Signal;

use super::{Host, Process, WAIT_TIMEOUT};

/// A running `mesh-ingress serve`.
pub(crate) struct Gateway {
    process: Process,
}

impl Gateway {
    /// Where it listens, on the test's own host.
    pub(crate) const ADDR: &'static str = "127.0.0.1:8080";
    /// The same as the start of a URL.
    pub(crate) const URL: &'static str = "http://127.0.0.1:8080";

    /// Starts it and waits until it says that it serves.
    pub(crate) fn serve(args: &[&str]) -> Self {
        Self::start(&Self::command(args))
    }

    /// The same with the `/etc/resolv.conf` of a host, which must be the test's own.
    pub(crate) fn serve_on(host: &Host, args: &[&str]) -> Self {
        let plain = Self::command(args);
        let mut command = host.command(env!("CARGO_BIN_EXE_mesh-ingress"));
        Self::start(command.args(plain.get_args()))
    }

    fn start(command: &Command) -> Self {
        let process = Process::start("mesh-ingress", command);
        process.wait_for_line("serving on ");
        Self { process }
    }

    /// Its command line, for runs that are to fail.
    pub(crate) fn command(args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-ingress"));
        command.args(["serve", "--listen", Self::ADDR]).args(args);
        // Log lines without colours are the same for people and for tests.
        command.env("NO_COLOR", "1");
        command
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Asks it to stop and waits for the end.
    pub(crate) fn stop(self) -> ExitStatus {
        self.ask_to_stop();
        self.wait()
    }

    /// Asks it to stop (`SIGTERM`).
    pub(crate) fn ask_to_stop(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.process.wait(WAIT_TIMEOUT)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}
