//! `mesh-ingress serve`: from the command line to a running server, and back.

use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use mesh_ingress_server::{Server, drain};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Serve;
use crate::{Failure, build};

/// Serves until a signal says to stop.
pub(crate) fn run(args: &Serve) -> Result<(), Failure> {
    let routes = build::routes(&args.gateway)?;
    let workers = args.workers.unwrap_or_else(default_workers);
    // This thread watches names and signals, and serves requests if there is one worker: a process with
    // one thread has cheaper system calls.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Before the listener is there: a supervisor that sees it may stop the gateway at once.
        let mut signals = Signals::new()?;
        let threads = Some(workers).filter(|workers| workers.get() > 1);
        let builder = Server::builder()
            .workers(threads)
            .request_header_timeout(args.request_header_timeout)
            .http2_idle_timeout(args.http2_idle_timeout);
        let builder = args
            .listen
            .iter()
            .fold(builder, |builder, addr| builder.listen(*addr));
        let server = builder.bind()?;
        let addresses = server.local_addrs();
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();

        let dns = build::cluster_dns(&args.gateway)?;
        let mesh = build::mesh(&args.gateway, workers, &routes, &dns)?;
        let (trigger, watcher) = drain::channel();
        let serving = server.serve(mesh.clone()).with_graceful_shutdown(watcher);
        let serving = tokio::spawn(serving.into_future());
        tracing::info!(
            routes = routes.len(),
            workers,
            "serving on {}",
            addresses.join(", ")
        );
        until_stopped(&mut signals, &trigger, args.shutdown_timeout).await;
        let served = serving.await?;
        // Tunnels that outlast the drain's time.
        mesh.forwarder().close_tunnels();
        served?;
        tracing::info!("stopped");
        Ok(())
    })
}

fn default_workers() -> NonZeroUsize {
    // Respects the CPU quota of a container.
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// The signals that end the gateway.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Waits for a signal, and drains: until all requests are finished, the time is up, or another signal.
async fn until_stopped(signals: &mut Signals, trigger: &drain::DrainTrigger, timeout: Duration) {
    let why = tokio::select! {
        signal = signals.next() => signal,
        () = trigger.drained() => "the server ended",
    };
    tracing::info!("{why}: no new connections, up to {timeout:?} for requests under way");
    trigger.start();
    tokio::select! {
        biased;
        () = trigger.drained() => {}
        () = tokio::time::sleep(timeout) => {
            tracing::warn!("requests still under way after {timeout:?} are cut off");
        }
        why = signals.next() => tracing::warn!("{why} again: requests under way are cut off"),
    }
    trigger.close();
}
