use mesh_ingress_resolve::{Balance, Resolve, ResolveError, WatchSender};

use super::*;
use crate::MeshIngress;

#[derive(Debug)]
struct Known(Watch);

impl Resolve for Known {
    fn watch(&self, _: &ServiceRef) -> Watch {
        self.0.clone()
    }
}

/// A gateway with one target, and who tells where that is.
fn one_target() -> (WatchSender, MeshIngress, Arc<Target>) {
    let web: ServiceRef = "web.default:80".parse().unwrap();
    let (sender, watch) = Watch::channel(web.clone());
    let mesh = MeshIngress::builder()
        .resolver(Known(watch))
        .route(Route::any_host().to(web))
        .build()
        .unwrap();
    let table = mesh.inner().table.load_full();
    let (_, prepared) = table.iter().next().unwrap();
    let target = Arc::clone(&prepared.targets()[0]);
    (sender, mesh, target)
}

impl Target {
    /// As a request does it.
    fn reach_now(&self) -> Arc<Reach> {
        if let Some(reach) = self.reached() {
            return reach;
        }
        let revision = self.watch.revision();
        let resolved = self.watch.get().unwrap().unwrap();
        self.reach(&self.settings.forwarder, revision, resolved)
    }

    fn port(&self) -> u16 {
        self.reach_now().pool.upstream().addr().port()
    }
}

fn at(port: u16) -> Upstream {
    Upstream::new(([127, 0, 0, 1], port).into())
}

#[test]
fn what_was_found_out_holds_as_long_as_the_answer() {
    let (sender, _mesh, target) = one_target();
    assert!(target.reached().is_none(), "no answer yet");
    sender.send(at(1));
    let first = target.reach_now();
    assert!(Arc::ptr_eq(&target.reached().unwrap(), &first));
    sender.send(at(1));
    assert!(
        Arc::ptr_eq(&target.reached().unwrap(), &first),
        "the same once more"
    );
    for port in [2, 1, 3] {
        sender.send(at(port));
        assert!(target.reached().is_none());
        assert_eq!(target.port(), port);
        assert!(target.reached().is_some());
    }
}

#[test]
fn what_was_found_out_without_a_revision_is_found_out_once_more() {
    let (sender, _mesh, target) = one_target();
    sender.send(at(1));
    let warmed_up = target.reach(&target.settings.forwarder, None, at(1));
    assert!(target.reached().is_none());
    assert_eq!(target.port(), 1);
    let known = target.reached().unwrap();
    assert!(!Arc::ptr_eq(&known, &warmed_up));
    // By others that are warmed up it is not forgotten.
    let again = target.reach(&target.settings.forwarder, None, at(1));
    assert!(Arc::ptr_eq(&again, &known));
    assert!(target.reached().is_some());
}

#[test]
fn an_answer_that_was_given_late_is_corrected_by_the_next_request() {
    let (sender, _mesh, target) = one_target();
    sender.send(at(1));
    let (revision, resolved) = (target.watch.revision(), at(1));
    sender.send(at(2));
    assert_eq!(target.port(), 2);
    // Whoever has the answer of before is slow.
    target.reach(&target.settings.forwarder, revision, resolved);
    assert!(target.reached().is_none());
    assert_eq!(target.port(), 2);
    assert!(target.reached().is_some());
}

#[test]
fn what_each_request_has_to_ask_for_is_not_kept() {
    let (sender, _mesh, target) = one_target();
    sender.send(at(1));
    target.reach_now();
    let both = [1, 2].map(|port| ([127, 0, 0, 1], port).into());
    sender.send_spread(&both, Balance::RoundRobin);
    assert!(target.reached().is_none());
    let mut ports = [target.port(), target.port()];
    ports.sort_unstable();
    assert_eq!(ports, [1, 2]);
    assert!(target.reached().is_none());

    let refused = ResolveError::new(mesh_ingress_core::ErrorKind::DnsError, "refused");
    sender.fail(refused);
    assert!(target.reached().is_none());
    sender.send(at(1));
    assert_eq!(target.port(), 1);
    assert!(target.reached().is_some());
}
