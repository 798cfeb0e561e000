//! Finding the route of a request in tables of 1, 1,000 and 10,000 routes.

use std::error::Error;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use http::{HeaderMap, Method};
use mesh_ingress::Route;
use mesh_ingress::route::{RouteQuery, RouteTable};

type BoxError = Box<dyn Error + Send + Sync>;

/// Ten paths a host, as many hosts as it takes.
fn table(routes: usize) -> Result<RouteTable<usize>, BoxError> {
    let routes = (0..routes)
        .map(|number| {
            let (host, path) = (number / 10, number % 10);
            let route = Route::host(format!("shop-{host}.example.com"))
                .path_prefix(format!("/service/{path}"))
                .to("web.default:80".parse()?);
            Ok((route, number))
        })
        .collect::<Result<Vec<_>, BoxError>>()?;
    Ok(RouteTable::new(routes)?)
}

fn main() -> Result<(), BoxError> {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("route_match");
    let headers = HeaderMap::new();
    for routes in [1, 1_000, 10_000] {
        let table = table(routes)?;
        let last = routes - 1;
        let host = format!("shop-{}.example.com", last / 10);
        let path = format!("/service/{}/item/42", last % 10);
        let uri = format!("{path}?page=2").parse()?;
        let hit = RouteQuery::new(&host, &Method::GET, &uri, &headers);
        let mut miss = hit;
        miss.path = "/nothing/here";
        if table.find(&hit) != Some(&last) || table.find(&miss).is_some() {
            return Err("the table finds something else".into());
        }
        for (name, query) in [("hit", hit), ("miss", miss)] {
            group.bench_with_input(BenchmarkId::new(name, routes), &query, |bencher, query| {
                bencher.iter(|| table.find(black_box(query)));
            });
        }
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
