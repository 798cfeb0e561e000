//! A host: a named network namespace.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::tool;

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";
/// Files here, below a host's name, stand for those in `/etc`.
const SETTINGS: &str = "/etc/netns";

/// A network namespace with its loopback up; gone when dropped.
pub(crate) struct Host {
    name: String,
}

impl Host {
    pub(crate) fn create(name: &str) -> Self {
        ip(&["netns", "add", name]);
        let host = Self {
            name: name.to_owned(),
        };
        host.ip(&["link", "set", "lo", "up"]);
        host
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread in, and with it all threads and programs it starts from now on.
    pub(crate) fn enter(&self) {
        self.entrance()();
    }

    /// The same for another thread, which calls it.
    pub(crate) fn entrance(&self) -> impl FnOnce() + Send + use<> {
        let file = File::open(self.path()).expect("the namespace's file");
        move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("entering a namespace");
        }
    }

    /// Calls a function there, on a thread of its own.
    pub(crate) fn call<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        let called = thread::scope(|scope| {
            let there = || {
                self.enter();
                function()
            };
            scope.spawn(there).join()
        });
        called.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A program on this host, wherever the calling thread is.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(tool("ip"));
        command
            .args(["netns", "exec", &self.name])
            .arg(tool(program));
        command
    }

    /// Sets what programs started by [`Self::command`] find as `/etc/resolv.conf`, and changes it
    /// under those that run.
    pub(crate) fn set_resolv_conf(&self, text: &str) {
        let dir = self.settings();
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("resolv.conf"), text).expect("resolv.conf");
    }

    /// `ip` on this host.
    pub(crate) fn ip(&self, args: &[&str]) {
        ip(&[&["-n", &self.name], args].concat());
    }

    /// Names of all hosts of this machine, of this suite or not.
    pub(crate) fn all() -> Vec<String> {
        let entries = fs::read_dir(NAMES).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Removes a host by its name, if it is there.
    pub(crate) fn remove(name: &str) {
        drop(fs::remove_dir_all(Path::new(SETTINGS).join(name)));
        drop(
            Command::new(tool("ip"))
                .args(["netns", "del", name])
                .output(),
        );
    }

    fn settings(&self) -> PathBuf {
        Path::new(SETTINGS).join(&self.name)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(NAMES).join(&self.name)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        Self::remove(&self.name);
    }
}

fn ip(args: &[&str]) {
    succeed(Command::new(tool("ip")).args(args));
}

/// Runs a command that must succeed.
pub(crate) fn succeed(command: &mut Command) {
    let output = command.output().expect("starting a program");
    assert!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
