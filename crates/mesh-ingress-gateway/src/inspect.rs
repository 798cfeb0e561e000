//! `mesh-ingress explain` and `mesh-ingress doctor`: looking without serving.

use std::num::NonZeroUsize;

use http::header::HOST;
use http::{HeaderName, HeaderValue, Request};
use mesh_ingress::{ClusterDns, Explanation, Health, MeshIngress};

use crate::args::{Doctor, Explain, Gateway};
use crate::{Failure, assemble};

/// Prints what would become of a request; fails if it would be refused.
pub(crate) fn explain(args: &Explain) -> Result<(), Failure> {
    let request = request(args)?;
    runtime()?.block_on(async {
        let (mesh, dns) = gateway(&args.gateway)?;
        // The first answer of DNS, good or bad, so that there is an address to tell.
        if let Explanation::Forward(backends) = mesh.explain(&request) {
            for backend in backends {
                let _ = dns.watch(&backend.service).ready().await;
            }
        }
        let explained = mesh.explain(&request);
        println!("{explained}");
        match explained {
            Explanation::Refuse(_) => Err("the request would be refused".into()),
            _ => Ok(()),
        }
    })
}

/// Prints what was found; fails if something is bad.
pub(crate) fn doctor(args: &Doctor) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let (mesh, _dns) = gateway(&args.gateway)?;
        let findings = mesh.doctor().await;
        for finding in &findings {
            println!("{finding}");
        }
        let bad = findings
            .iter()
            .filter(|finding| finding.health == Health::Bad);
        match bad.count() {
            0 => Ok(()),
            bad => Err(format!("{bad} finding(s) are bad").into()),
        }
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

fn gateway(args: &Gateway) -> Result<(MeshIngress, ClusterDns), Failure> {
    let routes = assemble::routes(args)?;
    let dns = assemble::cluster_dns(args)?;
    Ok((assemble::mesh(args, NonZeroUsize::MIN, &routes, &dns)?, dns))
}

/// The request as a client would send it.
fn request(args: &Explain) -> Result<Request<()>, Failure> {
    let url = &args.url;
    let authority = url
        .authority()
        .ok_or_else(|| format!("{url} names no host, expected http://shop.example.com/cart"))?;
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder()
        .method(args.method.clone())
        .uri(target)
        .header(HOST, authority.as_str());
    for field in &args.header {
        let (name, value) = field
            .split_once(':')
            .ok_or_else(|| format!("--header {field:?} has no colon, expected 'name: value'"))?;
        let name = HeaderName::try_from(name.trim())
            .map_err(|error| format!("--header {field:?}: {error}"))?;
        let value = HeaderValue::try_from(value.trim())
            .map_err(|error| format!("--header {field:?}: {error}"))?;
        request = request.header(name, value);
    }
    Ok(request.body(())?)
}
