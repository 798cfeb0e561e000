//! `mesh-ingress serve`: from the command line to running workers, and back.

use std::convert::Infallible;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::args::Serve;
use crate::client::Timeouts;
use crate::phase::Phase;
use crate::worker::Worker;
use crate::{Chain, Failure, build};

/// Serves until a signal says to stop.
pub(crate) fn run(args: &Serve) -> Result<(), Failure> {
    let routes = build::routes(&args.gateway)?;
    let threads = args.workers.unwrap_or_else(default_workers);
    let workers = threads.get();
    // This thread watches names and signals, and serves requests if there is one worker.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Before anything can be seen from outside: who sees us may tell us to stop.
        let signals = Signals::new()?;
        let listeners = args
            .listen
            .iter()
            .map(|addr| crate::listener::bind(*addr, workers))
            .collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners
            .iter()
            .filter_map(|sockets| sockets.first()?.local_addr().ok())
            .map(|addr| addr.to_string())
            .collect::<Vec<_>>()
            .join(", ");

        let dns = build::cluster_dns(&args.gateway)?;
        let (phase, _) = watch::channel(Phase::Serving);
        let (busy, idle) = mpsc::channel(1);
        let mut crew = Vec::new();
        let mesh = build::mesh(&args.gateway, threads, &routes, &dns)?;
        for (number, listeners) in by_worker(listeners, workers).into_iter().enumerate() {
            let worker = Worker {
                mesh: mesh.clone(),
                listeners,
                timeouts: Timeouts {
                    head: bound(args.request_header_timeout),
                    http2_idle: bound(args.http2_idle_timeout),
                },
                phase: phase.subscribe(),
                busy: busy.clone(),
            };
            crew.push(if workers == 1 {
                Place::Here(tokio::spawn(serve(number, worker)))
            } else {
                Place::Thread(spawn(number, worker)?)
            });
        }
        tracing::info!(routes = routes.len(), workers, "serving on {addresses}");
        drop(busy);
        until_stopped(signals, &phase, idle, args.shutdown_timeout, crew).await
    })
}

/// Zero is for ever.
fn bound(timeout: Duration) -> Option<Duration> {
    (!timeout.is_zero()).then_some(timeout)
}

fn default_workers() -> NonZeroUsize {
    // Respects the CPU quota of a container.
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// From sockets by address to sockets by worker.
fn by_worker(listeners: Vec<Vec<TcpListener>>, workers: usize) -> Vec<Vec<TcpListener>> {
    let mut sorted: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for sockets in listeners {
        for (own, socket) in sorted.iter_mut().zip(sockets) {
            own.push(socket);
        }
    }
    sorted
}

/// Where a worker serves.
enum Place {
    /// On the thread of all the rest. A process of one thread has it cheaper: the kernel counts no
    /// user of a file for each call, and the C library arms no cancellation around it.
    Here(tokio::task::JoinHandle<()>),
    /// On a thread of its own.
    Thread(thread::JoinHandle<()>),
}

impl Place {
    /// Waits until it has ended; whether it did so without a panic.
    async fn ended(self) -> Result<bool, tokio::task::JoinError> {
        match self {
            Self::Here(task) => Ok(task.await.is_ok()),
            Self::Thread(thread) => {
                let joined = tokio::task::spawn_blocking(|| thread.join().is_ok());
                joined.await
            }
        }
    }
}

fn spawn(number: usize, worker: Worker) -> Result<thread::JoinHandle<()>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || runtime.block_on(serve(number, worker)))?)
}

async fn serve(number: usize, worker: Worker) {
    if let Err(error) = worker.run().await {
        tracing::error!("worker {number} stopped: {}", Chain(&error));
    }
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

async fn until_stopped(
    mut signals: Signals,
    phase: &watch::Sender<Phase>,
    mut idle: mpsc::Receiver<Infallible>,
    timeout: Duration,
    crew: Vec<Place>,
) -> Result<(), Failure> {
    let why = tokio::select! {
        signal = signals.next() => signal,
        // Each has said why.
        _ = idle.recv() => "all workers ended",
    };
    tracing::info!("{why}: no new connections, up to {timeout:?} for requests under way");
    phase.send_replace(Phase::Draining);
    tokio::select! {
        biased;
        _ = idle.recv() => {}
        () = tokio::time::sleep(timeout) => {
            tracing::warn!("requests still under way after {timeout:?} are cut off");
        }
        why = signals.next() => tracing::warn!("{why} again: requests under way are cut off"),
    }
    phase.send_replace(Phase::Ended);
    let mut panicked = false;
    for worker in crew {
        panicked |= !worker.ended().await?;
    }
    if panicked {
        return Err("a worker panicked".into());
    }
    tracing::info!("stopped");
    Ok(())
}
