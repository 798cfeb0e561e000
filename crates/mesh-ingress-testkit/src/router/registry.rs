//! Which Services a sidecar knows, by the names it knows them by.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use mesh_ingress_core::{ClusterDomain, ServiceRef};

#[derive(Debug, Default)]
pub(super) struct Registry {
    /// The namespace of the proxy, whose Services go by their bare name, too.
    namespace: Option<String>,
    services: HashMap<ServiceRef, Service>,
}

#[derive(Debug)]
struct Service {
    domain: ClusterDomain,
    cluster_ip: Option<IpAddr>,
    origin: SocketAddr,
}

impl Registry {
    pub(super) fn set_namespace(&mut self, namespace: &str) {
        self.namespace = Some(namespace.to_owned());
    }

    pub(super) fn add(
        &mut self,
        service: &ServiceRef,
        domain: &ClusterDomain,
        cluster_ip: Option<IpAddr>,
        origin: SocketAddr,
    ) {
        let entry = Service {
            domain: domain.clone(),
            cluster_ip,
            origin,
        };
        // Names tell services apart, ports do not.
        self.services
            .retain(|s, _| (s.name(), s.namespace()) != (service.name(), service.namespace()));
        self.services.insert(service.clone(), entry);
    }

    pub(super) fn remove(&mut self, service: &ServiceRef) {
        self.services.remove(service);
    }

    /// The Service an authority names. The port is ignored and so is case, as Istio has Envoy do
    /// (`IgnorePortInHostMatching`).
    pub(super) fn find(&self, authority: &str) -> Option<(&ServiceRef, SocketAddr)> {
        let host = split_port(authority).0.to_ascii_lowercase();
        self.services
            .iter()
            .find(|(name, service)| self.domains(name, service).any(|domain| domain == host))
            .map(|(name, service)| (name, service.origin))
    }

    /// The domains of a virtual host, exactly as Istio generates them
    /// (`pilot/pkg/networking/core/httproute.go`).
    fn domains(&self, name: &ServiceRef, service: &Service) -> impl Iterator<Item = String> {
        let (svc, ns) = (name.name(), name.namespace());
        let fqdn = name.vhost(&service.domain).as_str().to_owned();
        let absolute = name.dns_name(&service.domain);
        let bare = (self.namespace.as_deref() == Some(ns)).then(|| svc.to_owned());
        let cluster_ip = service.cluster_ip.map(|ip| match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
        [
            fqdn,
            absolute,
            format!("{svc}.{ns}"),
            format!("{svc}.{ns}.svc"),
        ]
        .into_iter()
        .chain(bare)
        .chain(cluster_ip)
    }
}

/// Host and port of an authority: what is before and after the last colon that is not within the
/// brackets of an IPv6 literal. Envoy does not look whether the port is one.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        let origin = "127.0.0.1:1".parse().unwrap();
        let domain = ClusterDomain::default();
        let web = "web.shop:http".parse().unwrap();
        registry.add(&web, &domain, Some("10.96.0.7".parse().unwrap()), origin);
        let six = "six.shop:http".parse().unwrap();
        registry.add(&six, &domain, Some("fd00::7".parse().unwrap()), origin);
        registry
    }

    #[test]
    fn a_service_goes_by_the_names_istio_gives_it() {
        let registry = registry();
        for (authority, service) in [
            ("web.shop.svc.cluster.local", Some("web.shop:http")),
            ("web.shop.svc.cluster.local.", Some("web.shop:http")),
            ("web.shop.svc.cluster.local:80", Some("web.shop:http")),
            ("web.shop.svc.cluster.local:12345", Some("web.shop:http")),
            ("web.shop.svc.cluster.local.:80", Some("web.shop:http")),
            ("WEB.Shop.svc.Cluster.local", Some("web.shop:http")),
            ("web.shop", Some("web.shop:http")),
            ("web.shop.svc", Some("web.shop:http")),
            ("10.96.0.7", Some("web.shop:http")),
            ("10.96.0.7:80", Some("web.shop:http")),
            ("[fd00::7]", Some("six.shop:http")),
            ("[fd00::7]:80", Some("six.shop:http")),
            // From another namespace the bare name is not one of them.
            ("web", None),
            ("web.shop.", None),
            ("web.shop.svc.", None),
            ("web.shop.svc.cluster", None),
            ("a.web.shop.svc.cluster.local", None),
            ("web.other.svc.cluster.local", None),
            ("shop.example.com", None),
            ("10.96.0.8", None),
            ("fd00::7", None),
            ("", None),
            (":80", None),
        ] {
            let found = registry.find(authority).map(|(name, _)| name.to_string());
            assert_eq!(found.as_deref(), service, "{authority:?}");
        }
    }

    #[test]
    fn the_bare_name_is_for_the_same_namespace() {
        let mut registry = registry();
        registry.set_namespace("shop");
        assert!(registry.find("web").is_some());
        assert!(registry.find("web:80").is_some());
        registry.set_namespace("other");
        assert!(registry.find("web").is_none());
        let (domain, origin) = (ClusterDomain::default(), "127.0.0.1:2".parse().unwrap());
        let other_port = "web.shop:8080".parse().unwrap();
        registry.add(&other_port, &domain, None, origin);
        assert_eq!(registry.find("web.shop"), Some((&other_port, origin)));
        registry.remove(&other_port);
        assert!(registry.find("web.shop").is_none());
    }
}
