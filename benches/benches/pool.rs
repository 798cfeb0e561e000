//! The pool: finding that of an upstream among many, and taking a connection out for an exchange
//! and giving it back, with one that is idle, with many, and with more requests than one at a time.

mod common;

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

use common::{BoxError, current_thread, origin, read, request};
use criterion::{BenchmarkId, Criterion, Throughput};
use futures_util::future::try_join_all;
use http::Uri;
use mesh_ingress::forward::{Reuse, UpstreamPool};
use mesh_ingress::headers::ConnectionOptions;
use mesh_ingress::{Forwarder, Upstream};

async fn exchange(pool: &UpstreamPool) -> Result<usize, BoxError> {
    let mut request = request()?;
    *request.uri_mut() = Uri::from_static("/cart");
    let response = pool.send(request, &ConnectionOptions::default()).await?;
    read(response.into_body()).await
}

fn lookup(criterion: &mut Criterion) -> Result<(), BoxError> {
    let mut group = criterion.benchmark_group("pool_lookup");
    for count in [1, 1_000_u16] {
        let forwarder = Forwarder::default();
        let upstream = |number: u16| {
            let [high, low] = number.to_be_bytes();
            Upstream::new(SocketAddr::from((Ipv4Addr::new(10, 96, high, low), 80)))
        };
        // Unused pools are removed after a while unless they are held.
        let pools: Vec<UpstreamPool> = (0..count).map(|n| forwarder.pool(&upstream(n))).collect();
        let wanted = upstream(count / 2);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| forwarder.pool(black_box(&wanted)));
        });
        drop(pools);
    }
    group.finish();
    Ok(())
}

fn exchanges(criterion: &mut Criterion) -> Result<(), BoxError> {
    let (_origin_runtime, origin) = origin()?;
    let runtime = current_thread()?;
    let mut group = criterion.benchmark_group("pool_exchange");
    let cases = [
        ("lifo", Reuse::Lifo, 1, 1),
        ("lifo", Reuse::Lifo, 64, 1),
        ("round_robin", Reuse::RoundRobin, 64, 1),
        ("lifo", Reuse::Lifo, 64, 64_u64),
    ];
    for (name, reuse, idle, together) in cases {
        let forwarder = Forwarder::builder().reuse(reuse).build();
        let pool = forwarder.pool(&Upstream::new(origin.addr()));
        runtime.block_on(pool.warm_up(idle))?;
        runtime.block_on(exchange(&pool))?;
        group.throughput(Throughput::Elements(together));
        let id = format!("{name}/{idle}_idle/{together}_at_a_time");
        group.bench_function(id, |bencher| {
            bencher.to_async(&runtime).iter(async || {
                let requests = (0..together).map(|_| exchange(&pool));
                try_join_all(requests).await.is_ok()
            });
        });
    }
    group.finish();
    Ok(())
}

fn main() -> Result<(), BoxError> {
    let mut criterion = Criterion::default().configure_from_args();
    lookup(&mut criterion)?;
    exchanges(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
