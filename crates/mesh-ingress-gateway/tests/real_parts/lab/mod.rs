//! A laboratory: network namespaces, a directory, and programs that end with the test.

mod curl;
mod dnsmasq;
mod gateway;
mod host;
mod nginx;
mod process;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use self::curl::{Curl, Response};
pub(crate) use self::dnsmasq::{Dnsmasq, Record};
pub(crate) use self::gateway::Gateway;
pub(crate) use self::host::{Host, succeed};
pub(crate) use self::nginx::Nginx;
pub(crate) use self::process::Process;
pub(crate) use self::tools::tool;

/// The bound of every wait for another program, unless a test has its own.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Prefix of the namespaces and directories, followed by the process id of their owner.
const PREFIX: &str = "mesh-lab";

static LABS: AtomicU32 = AtomicU32::new(0);

/// One test's laboratory. Its host is a network namespace; the test's thread lives in it, and so
/// does every program that the test starts.
pub(crate) struct Lab {
    id: String,
    dir: PathBuf,
    // Dropped after the programs of a test, which are local variables of the test.
    host: Host,
}

impl Lab {
    /// Runs a test on a thread of its own inside a fresh laboratory.
    ///
    /// Only root may make namespaces; without root or without the programs the test fails.
    pub(crate) fn run(test: impl FnOnce(&Lab) + Send + 'static) {
        tools::require();
        // A new thread, because libtest's could not leave the namespace again.
        let name = thread::current().name().unwrap_or("lab").to_owned();
        let runner = thread::Builder::new().name(name).spawn(move || {
            let lab = Lab::new();
            lab.host.enter();
            test(&lab);
        });
        if let Err(panic) = runner.expect("a thread for the test").join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn new() -> Self {
        remove_leftovers();
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let id = format!("{PREFIX}-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&id);
        fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let host = Host::create(&id);
        Self { id, dir, host }
    }

    /// The host that the test runs on.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// One more host, not connected to anything.
    pub(crate) fn another_host(&self, name: &str) -> Host {
        Host::create(&format!("{}-{name}", self.id))
    }

    /// A file or directory name inside the laboratory's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file into the laboratory's directory.
    pub(crate) fn write(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// A sparse file: as long as asked for, without taking the disk space.
    pub(crate) fn sparse_file(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.path(name);
        let file = fs::File::create(&path).expect("a sparse file");
        file.set_len(bytes).expect("a sparse file's length");
        path
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Asks again and again until there is an answer. For what other programs do, which have nothing
/// to await; every wait is bounded and fails with a name.
pub(crate) fn poll<T>(within: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Namespaces and directories of runs that were killed before they could clean up.
fn remove_leftovers() {
    let owner = |name: &str| {
        let pid = name
            .strip_prefix(PREFIX)?
            .strip_prefix('-')?
            .split('-')
            .next()?;
        pid.parse::<u32>().ok()
    };
    let dead =
        |name: &str| owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
    for name in Host::all() {
        if dead(&name) {
            Host::remove(&name);
        }
    }
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(dead) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
