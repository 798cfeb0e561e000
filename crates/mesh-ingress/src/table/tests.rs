use mesh_ingress_resolve::{Balance, Resolve, ResolveError, WatchSender};

use super::*;
use crate::MeshIngress;

#[derive(Debug)]
struct FixedResolver(Watch);

impl Resolve for FixedResolver {
    fn watch(&self, _: &ServiceRef) -> Watch {
        self.0.clone()
    }
}

/// A gateway with one target, and the sender of that target's address.
fn one_target() -> (WatchSender, MeshIngress, Arc<Target>) {
    let web: ServiceRef = "web.default:80".parse().unwrap();
    let (sender, watch) = Watch::channel(web.clone());
    let mesh = MeshIngress::builder()
        .resolver(FixedResolver(watch))
        .route(Route::any_host().to(web))
        .build()
        .unwrap();
    let table = mesh.inner().table.load_full();
    let (_, prepared) = table.iter().next().unwrap();
    let target = Arc::clone(&prepared.targets()[0]);
    (sender, mesh, target)
}

impl Target {
    /// The way a request gets its connections.
    fn pool_now(&self) -> Arc<ResolvedPool> {
        if let Some(pool) = self.current_pool() {
            return pool;
        }
        let revision = self.watch.revision();
        let resolved = self.watch.get().unwrap().unwrap();
        self.resolve_pool(&self.settings.forwarder, revision, resolved)
    }

    fn port(&self) -> u16 {
        self.pool_now().connections.upstream().addr().port()
    }
}

fn at(port: u16) -> Upstream {
    Upstream::new(([127, 0, 0, 1], port).into())
}

#[test]
fn cached_pool_is_used_until_the_address_changes() {
    let (sender, _mesh, target) = one_target();
    assert!(target.current_pool().is_none(), "no answer yet");
    sender.send(at(1));
    let first = target.pool_now();
    assert!(Arc::ptr_eq(&target.current_pool().unwrap(), &first));
    sender.send(at(1));
    assert!(
        Arc::ptr_eq(&target.current_pool().unwrap(), &first),
        "the same address again"
    );
    for port in [2, 1, 3] {
        sender.send(at(port));
        assert!(target.current_pool().is_none());
        assert_eq!(target.port(), port);
        assert!(target.current_pool().is_some());
    }
}

#[test]
fn pool_cached_without_a_revision_is_looked_up_again() {
    let (sender, _mesh, target) = one_target();
    sender.send(at(1));
    let warmed_up = target.resolve_pool(&target.settings.forwarder, None, at(1));
    assert!(target.current_pool().is_none());
    assert_eq!(target.port(), 1);
    let known = target.current_pool().unwrap();
    assert!(!Arc::ptr_eq(&known, &warmed_up));
    // Another warm-up does not drop the revision.
    let again = target.resolve_pool(&target.settings.forwarder, None, at(1));
    assert!(Arc::ptr_eq(&again, &known));
    assert!(target.current_pool().is_some());
}

#[test]
fn address_stored_late_is_corrected_by_the_next_request() {
    let (sender, _mesh, target) = one_target();
    sender.send(at(1));
    let (revision, resolved) = (target.watch.revision(), at(1));
    sender.send(at(2));
    assert_eq!(target.port(), 2);
    // A slow request stores the address that it read before the change.
    target.resolve_pool(&target.settings.forwarder, revision, resolved);
    assert!(target.current_pool().is_none());
    assert_eq!(target.port(), 2);
    assert!(target.current_pool().is_some());
}

#[test]
fn pool_of_several_addresses_is_not_cached() {
    let (sender, _mesh, target) = one_target();
    sender.send(at(1));
    target.pool_now();
    let both = [1, 2].map(|port| ([127, 0, 0, 1], port).into());
    sender.send_spread(&both, Balance::RoundRobin);
    assert!(target.current_pool().is_none());
    let mut ports = [target.port(), target.port()];
    ports.sort_unstable();
    assert_eq!(ports, [1, 2]);
    assert!(target.current_pool().is_none());

    let refused = ResolveError::new(mesh_ingress_core::ErrorKind::DnsError, "refused");
    sender.fail(refused);
    assert!(target.current_pool().is_none());
    sender.send(at(1));
    assert_eq!(target.port(), 1);
    assert!(target.current_pool().is_some());
}
