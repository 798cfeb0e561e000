//! A backend of a route.

use std::sync::Arc;

use mesh_ingress_core::{Protocol, ServiceRef, Tls, VhostPolicy};

/// A Service that a route forwards to, with its weight, vhost, protocol and TLS options.
///
/// These belong to the backend, not to the route: a mesh that routes by `Host` would send a canary's
/// requests with the primary's `Host` back to the primary.
///
/// ```
/// use mesh_ingress_core::{Protocol, VhostPolicy};
/// use mesh_ingress_route::Backend;
///
/// let canary = Backend::new("web-canary.default:80".parse()?)
///     .weight(10)
///     .vhost(VhostPolicy::Override("web-canary.default.svc.k8s.example".parse()?))
///     .protocol(Protocol::Http2);
/// assert_eq!(canary.get_weight(), 10);
/// # Ok::<(), mesh_ingress_core::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    service: ServiceRef,
    weight: u32,
    vhost: Setting<VhostPolicy>,
    protocol: Setting<Protocol>,
    tls: Setting<Option<Arc<Tls>>>,
}

/// A backend's own value, or else its route's.
#[derive(Clone, Debug, Default)]
struct Setting<V> {
    own: Option<V>,
    inherited: V,
}

impl Backend {
    /// A backend of weight 1, with its own name as vhost and HTTP/1.1, unless its route has other
    /// values.
    #[must_use]
    pub fn new(service: ServiceRef) -> Self {
        Self {
            service,
            weight: 1,
            vhost: Setting::default(),
            protocol: Setting::default(),
            tls: Setting::default(),
        }
    }

    /// Sets the share of requests, relative to the sum of the weights of a route's backends. A backend
    /// with 0 gets none. Default: 1.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the `Host` / `:authority` for this backend, overriding the route's.
    #[must_use]
    pub fn vhost(mut self, policy: VhostPolicy) -> Self {
        self.vhost.own = Some(policy);
        self
    }

    /// Sets the protocol for this backend, overriding the route's.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol.own = Some(protocol);
        self
    }

    /// Sets the TLS options for this backend, overriding the route's; `None` is cleartext. Without a
    /// server name, the vhost is expected; where the client's `Host` is preserved, the Service's own
    /// name, because a client must not choose which server is trusted.
    ///
    /// A mesh does not need it: it encrypts itself, and routes by the HTTP it can read.
    ///
    /// ```
    /// use mesh_ingress_core::{Protocol, Tls};
    /// use mesh_ingress_route::Backend;
    ///
    /// let pay = Backend::new("pay.default:8443".parse()?)
    ///     .tls(Tls::default())
    ///     .protocol(Protocol::Alpn);
    /// assert_eq!(pay.get_tls(), Some(&Tls::default()));
    /// # Ok::<(), mesh_ingress_core::ParseError>(())
    /// ```
    #[must_use]
    pub fn tls(mut self, tls: impl Into<Option<Tls>>) -> Self {
        self.tls.own = Some(tls.into().map(Arc::new));
        self
    }

    /// The Service.
    #[must_use]
    pub fn service(&self) -> &ServiceRef {
        &self.service
    }

    /// The share of requests.
    #[must_use]
    pub fn get_weight(&self) -> u32 {
        self.weight
    }

    /// The policy for `Host` / `:authority`: its own, else its route's, else
    /// [`VhostPolicy::Derived`].
    #[must_use]
    pub fn get_vhost(&self) -> &VhostPolicy {
        self.vhost.get()
    }

    /// The protocol to speak: its own, else its route's, else HTTP/1.1.
    #[must_use]
    pub fn get_protocol(&self) -> Protocol {
        *self.protocol.get()
    }

    /// The TLS options: its own, else its route's, else `None` for cleartext.
    #[must_use]
    pub fn get_tls(&self) -> Option<&Tls> {
        self.tls.get().as_deref()
    }

    /// Picks a backend by weight, with a random number that is uniform over all of `u64`.
    ///
    /// `None` if there are none or all have weight 0; a [`RouteTable`](crate::RouteTable) refuses such
    /// routes.
    ///
    /// ```
    /// use mesh_ingress_route::Backend;
    ///
    /// let backends = [
    ///     Backend::new("web.default:80".parse()?).weight(3),
    ///     Backend::new("web-canary.default:80".parse()?),
    /// ];
    /// let at = |random| Backend::pick(&backends, random).map(|b| b.service().name());
    /// assert_eq!(at(0), Some("web"));
    /// assert_eq!(at(u64::MAX / 4 * 3 - 1), Some("web"));
    /// assert_eq!(at(u64::MAX), Some("web-canary"));
    /// # Ok::<(), mesh_ingress_core::ParseError>(())
    /// ```
    #[must_use]
    pub fn pick(backends: &[Self], random: u64) -> Option<&Self> {
        Self::pick_index(backends, random).and_then(|index| backends.get(index))
    }

    /// As [`pick`](Self::pick), but returns the index, for callers with data of their own for each
    /// backend.
    #[must_use]
    pub fn pick_index(backends: &[Self], random: u64) -> Option<usize> {
        if let [only] = backends {
            return (only.weight > 0).then_some(0);
        }
        let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
        // The high half of the product spreads `random` over 0..total; a remainder would favour
        // the first backends.
        let scaled = (u128::from(random) * u128::from(total)) >> 64;
        let mut rest = u64::try_from(scaled).unwrap_or(u64::MAX);
        for (index, backend) in backends.iter().enumerate() {
            let weight = u64::from(backend.weight);
            if rest < weight {
                return Some(index);
            }
            rest -= weight;
        }
        None
    }

    pub(crate) fn inherit(
        &mut self,
        vhost: &VhostPolicy,
        protocol: Protocol,
        tls: Option<&Arc<Tls>>,
    ) {
        self.vhost.inherited = vhost.clone();
        self.protocol.inherited = protocol;
        self.tls.inherited = tls.cloned();
    }
}

impl From<ServiceRef> for Backend {
    fn from(service: ServiceRef) -> Self {
        Self::new(service)
    }
}

impl<V> Setting<V> {
    fn get(&self) -> &V {
        self.own.as_ref().unwrap_or(&self.inherited)
    }
}

impl<V: PartialEq> PartialEq for Setting<V> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<V: Eq> Eq for Setting<V> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(weights: &[u32]) -> Vec<Backend> {
        weights
            .iter()
            .enumerate()
            .map(|(i, weight)| Backend::new(format!("b{i}.x:80").parse().unwrap()).weight(*weight))
            .collect()
    }

    #[test]
    fn shares_follow_weights_exactly() {
        let backends = backends(&[70, 30, 0]);
        let mut counts = [0_u32; 3];
        // Uniform numbers give uniform picks, so the counts are known beforehand.
        for i in 0..1000_u64 {
            counts[Backend::pick_index(&backends, u64::MAX / 1000 * i).unwrap()] += 1;
        }
        assert!((699..=701).contains(&counts[0]), "{counts:?}");
        assert_eq!(counts[0] + counts[1], 1000);
        assert_eq!(counts[2], 0);
    }

    #[test]
    fn ends_of_the_range_pick_the_first_and_the_last_backend() {
        let all = backends(&[0, 1, 5, 1, 0]);
        assert_eq!(Backend::pick_index(&all, 0), Some(1));
        assert_eq!(Backend::pick_index(&all, u64::MAX), Some(3));
        let heavy = backends(&[u32::MAX, u32::MAX, u32::MAX]);
        assert_eq!(Backend::pick_index(&heavy, u64::MAX), Some(2));
        assert_eq!(Backend::pick_index(&heavy, u64::MAX / 2), Some(1));
    }

    #[test]
    fn backends_without_weight_are_not_picked() {
        assert_eq!(Backend::pick(&[], 7), None);
        assert_eq!(Backend::pick(&backends(&[0]), 7), None);
        assert_eq!(Backend::pick(&backends(&[0, 0]), u64::MAX), None);
    }
}
