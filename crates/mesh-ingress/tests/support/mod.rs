//! A cluster in a test.
#![allow(dead_code)]

use std::net::IpAddr;

use http::header::HOST;
use http::{Request, Response};
use http_body_util::BodyExt;
use mesh_ingress::{
    AddressPolicy, Body, ClusterDns, ClusterDomain, MeshIngress, MeshIngressBuilder, ResponseBody,
    ServiceRef,
};
use mesh_ingress_testkit::DnsServer;

pub(crate) struct Cluster {
    pub(crate) dns: DnsServer,
    pub(crate) domain: ClusterDomain,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self {
            dns: DnsServer::start().await.unwrap(),
            domain: ClusterDomain::default(),
        }
    }

    pub(crate) fn service(&self, service: &ServiceRef, cluster_ip: IpAddr) {
        self.dns.add_service(service, &self.domain, cluster_ip);
    }

    /// A gateway that uses this cluster's DNS and accepts loopback addresses as ClusterIPs.
    pub(crate) fn mesh(&self) -> MeshIngressBuilder {
        let loopback = "127.0.0.0/8".parse().unwrap();
        let dns = ClusterDns::builder()
            .nameserver(self.dns.addr())
            .address_policy(AddressPolicy::default().allow(loopback))
            .build()
            .unwrap();
        MeshIngress::builder().resolver(dns)
    }
}

pub(crate) fn get(host: &str, path: &str) -> Request<Body> {
    Request::get(path)
        .header(HOST, host)
        .body(Body::empty())
        .unwrap()
}

pub(crate) async fn body_of(response: Response<ResponseBody>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}
