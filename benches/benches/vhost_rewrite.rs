//! The cost of setting the Service's name as host: `UpstreamVhostLayer` around a service that does nothing.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use criterion::{BatchSize, Criterion};
use http::{Request, Response, header::HOST};
use mesh_ingress::{ClusterDomain, ServiceRef, UpstreamVhostLayer};
use tower::{Layer as _, Service};

type BoxError = Box<dyn Error + Send + Sync>;

/// Answers at once.
#[derive(Clone)]
struct Nothing;

impl Service<Request<()>> for Nothing {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        black_box(request);
        ready(Ok(Response::new(())))
    }
}

fn request(target: &str) -> Result<Request<()>, http::Error> {
    Request::get(target)
        .header(HOST, "shop.example.com")
        .header("user-agent", "bench")
        .header("accept", "*/*")
        .header("cookie", "session=0123456789abcdef")
        .body(())
}

fn main() -> Result<(), BoxError> {
    let web: ServiceRef = "web.default:80".parse()?;
    let vhost = web.vhost(&ClusterDomain::default());
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("vhost_rewrite");
    let services = [
        ("derived", UpstreamVhostLayer::new(vhost).layer(Nothing)),
        ("preserve", UpstreamVhostLayer::preserve().layer(Nothing)),
    ];
    for (name, mut service) in services {
        let forms = [
            ("origin_form", "/cart?id=7"),
            ("absolute_form", "http://shop.example.com/cart?id=7"),
        ];
        for (form, target) in forms {
            let request = request(target)?;
            group.bench_function(format!("{name}/{form}"), |bencher| {
                bencher.iter_batched(
                    || request.clone(),
                    |request| {
                        // It is never pending, so no waker is used.
                        let mut context = Context::from_waker(Waker::noop());
                        pin!(service.call(request)).poll(&mut context)
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
