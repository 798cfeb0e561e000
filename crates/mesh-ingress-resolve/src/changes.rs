//! Following a target.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_ingress_core::Error;

use crate::snapshot_cell::Outcome;
use crate::{ResolveError, Watch};

/// The changes of a target's addresses. Made by [`Watch::changes`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use mesh_ingress_core::Upstream;
/// use mesh_ingress_resolve::Watch;
///
/// let (sender, watch) = Watch::channel("web.default:80".parse()?);
/// let mut changes = watch.changes();
/// sender.send(Upstream::new("10.96.0.7:80".parse()?));
/// assert_eq!(changes.next().await?, ["10.96.0.7:80".parse()?]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Changes {
    watch: Watch,
    seen: Option<u64>,
}

impl Changes {
    pub(crate) fn new(watch: Watch) -> Self {
        Self { watch, seen: None }
    }

    /// The addresses as they are now, if that is news, else when they next change. A failure is a
    /// change, too; a refresh with the same answer is none. Changes that follow each other faster
    /// than this is called are seen as one.
    ///
    /// Cancel safe: nothing is lost when the future is dropped. Waits as long as it takes.
    ///
    /// # Errors
    /// Why the target has no address at present; the next change may bring one. Also, if nothing
    /// keeps the target up to date and there is no Tokio runtime to do so.
    pub async fn next(&mut self) -> Result<Vec<SocketAddr>, Error> {
        loop {
            let changed = Arc::clone(self.watch.cell().changed()).notified_owned();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            self.watch.start()?;
            if let Some(news) = self.news() {
                return Ok(news?);
            }
            changed.await;
        }
    }

    fn news(&mut self) -> Option<Result<Vec<SocketAddr>, ResolveError>> {
        let snapshot = self.watch.cell().load();
        let news = match &snapshot.outcome {
            Outcome::Pending => return None,
            _ if self.seen == Some(snapshot.generation) => return None,
            Outcome::One(upstream) => Ok(upstream.addresses().to_vec()),
            Outcome::Spread(spread) => Ok(spread.addresses().collect()),
            Outcome::Failed(error) => Err(error.clone()),
        };
        self.seen = Some(snapshot.generation);
        Some(news)
    }
}
