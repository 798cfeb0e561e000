//! The cost of a known address for a request: `Watch::get`.

use std::error::Error;

use criterion::Criterion;
use mesh_ingress::{AddressPolicy, ClusterDns, ClusterDomain, ServiceRef, Upstream, Watch};
use mesh_ingress_testkit::DnsServer;
use tokio::runtime::Builder;

type BoxError = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), BoxError> {
    let web: ServiceRef = "web.default:80".parse()?;
    let fixed = Watch::fixed(web.clone(), Upstream::new("10.96.0.7:80".parse()?));

    // One worker refreshes in the background, as in a gateway.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (cluster_dns, dns) = runtime.block_on(async {
        let server = DnsServer::start().await?;
        server.add_service(&web, &ClusterDomain::default(), "10.96.0.7".parse()?);
        let dns = ClusterDns::builder()
            .nameserver(server.addr())
            .address_policy(AddressPolicy::default())
            .build()?;
        let watch = dns.watch(&web);
        watch.ready().await?;
        Ok::<_, BoxError>((server, watch))
    })?;

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("resolve_hit");
    for (name, watch) in [("fixed", &fixed), ("cluster_dns", &dns)] {
        if !matches!(watch.get(), Some(Ok(_))) {
            return Err(format!("{name} has no answer").into());
        }
        group.bench_function(name, |bencher| bencher.iter(|| watch.get()));
    }
    group.finish();
    criterion.final_summary();
    drop(cluster_dns);
    Ok(())
}
