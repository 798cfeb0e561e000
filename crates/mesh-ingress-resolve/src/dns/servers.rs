//! The name servers, and which of them to ask first.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::BuildError;
use super::resolv_conf::nameservers;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The name servers, and the one that answered last.
#[derive(Debug)]
pub(super) struct Servers {
    list: ArcSwap<Vec<SocketAddr>>,
    /// All name servers of a cluster say the same: a dead one is not tried first again for the
    /// sake of an order. May be out of the list's bounds after a change.
    preferred: AtomicUsize,
    file: Option<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    looked: Instant,
    stamp: Option<Stamp>,
}

/// Tells one version of a file from another. Kubernetes and most tools replace files instead
/// of writing into them: then the inode differs even within one tick of the clock.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Servers {
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            list: ArcSwap::from_pointee(servers),
            preferred: AtomicUsize::new(0),
            file: None,
        }
    }

    pub(super) fn from_file(path: PathBuf) -> Result<Self, BuildError> {
        // Before the text: a change in between is then seen as one.
        let stamp = Stamp::of(&path);
        let (servers, odd) = match fs::read_to_string(&path) {
            Ok(text) => nameservers(&text),
            Err(source) => return Err(BuildError::ResolvConf { path, source }),
        };
        warn_of(&path, &odd);
        if servers.is_empty() {
            return Err(BuildError::NoNameserver { path });
        }
        let seen = Seen {
            looked: Instant::now(),
            stamp,
        };
        Ok(Self {
            file: Some(File {
                path,
                seen: Mutex::new(seen),
            }),
            ..Self::new(servers)
        })
    }

    /// The servers in the order to ask them, each with what [`answered`](Self::answered) wants.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (usize, SocketAddr)> + use<> {
        let list = self.list.load_full();
        let first = self.preferred.load(Ordering::Relaxed);
        (0..list.len()).filter_map(move |step| {
            let index = first.wrapping_add(step) % list.len();
            list.get(index).map(|server| (index, *server))
        })
    }

    /// This one is asked first from now on.
    pub(super) fn answered(&self, index: usize) {
        if self.preferred.load(Ordering::Relaxed) != index {
            self.preferred.store(index, Ordering::Relaxed);
        }
    }

    /// Reads the file again if it has changed. Looks at most every few seconds; a small local file,
    /// so this is done where it is called.
    pub(super) fn reload(&self) {
        let Some(file) = &self.file else {
            return;
        };
        let mut seen = match file.seen.try_lock() {
            Ok(seen) => seen,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another task is checking the file.
            Err(TryLockError::WouldBlock) => return,
        };
        if seen.looked.elapsed() < LOOK_EVERY {
            return;
        }
        seen.looked = Instant::now();
        let stamp = Stamp::of(&file.path);
        if stamp == seen.stamp {
            return;
        }
        let path = file.path.display();
        let (servers, odd) = match fs::read_to_string(&file.path) {
            Ok(text) => nameservers(&text),
            Err(error) => {
                tracing::warn!(%path, %error, "cannot read the name servers again, keeping the old");
                return;
            }
        };
        seen.stamp = stamp;
        warn_of(&file.path, &odd);
        if servers.is_empty() {
            tracing::warn!(%path, "the file has no name server any more, keeping the old");
            return;
        }
        if servers != **self.list.load() {
            tracing::info!(%path, ?servers, "the name servers have changed");
            self.list.store(Arc::new(servers));
            self.preferred.store(0, Ordering::Relaxed);
        }
    }
}

impl Stamp {
    fn of(path: &std::path::Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(&metadata),
            #[cfg(not(unix))]
            inode: 0,
        })
    }
}

fn warn_of(path: &std::path::Path, odd: &[String]) {
    for line in odd {
        tracing::warn!(path = %path.display(), line, "not a name server's address, left out");
    }
}
