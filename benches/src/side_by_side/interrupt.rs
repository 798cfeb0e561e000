//! Ctrl-C and the like: the kernel ends the programs this one has started, as they were told to end
//! with it; what they leave behind is removed here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::BoxError;

static REMOVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes `dir` if this process is told to end.
pub(crate) fn remove_at_end(dir: &Path) {
    let mut dirs = REMOVE.lock().unwrap_or_else(PoisonError::into_inner);
    dirs.push(dir.to_path_buf());
}

/// Ends this process in good order when it is told to.
pub(crate) fn watch() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate, mut hang_up) = {
        let _in_runtime = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
            });
            let dirs = REMOVE.lock().unwrap_or_else(PoisonError::into_inner);
            for dir in dirs.iter() {
                let _ = fs::remove_dir_all(dir);
            }
            eprintln!("interrupted");
            process::exit(130);
        })?;
    Ok(())
}
