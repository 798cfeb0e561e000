//! The extensions of the requests of one client.

use http::Extensions;
use mesh_ingress_core::Downstream;

/// The [`Downstream`] extension of the requests of one connection.
///
/// The extensions of a request cost three allocations. A service that puts the request's extensions into
/// its response, as `MeshIngress` does, gives them back: the next request gets the same ones, with the
/// [`Downstream`] still in them.
#[derive(Debug)]
pub(crate) struct Client {
    downstream: Downstream,
    spare: Vec<Extensions>,
}

/// How many extensions are kept for later requests of a connection: more than one only with HTTP/2.
const MAX_SPARE: usize = 32;

impl Client {
    pub(crate) fn new(downstream: Downstream) -> Self {
        Self {
            downstream,
            spare: Vec::new(),
        }
    }

    /// Extensions with the [`Downstream`] in them and nothing else.
    pub(crate) fn extensions(&mut self) -> Extensions {
        self.spare.pop().unwrap_or_else(|| {
            let mut extensions = Extensions::new();
            extensions.insert(self.downstream.clone());
            extensions
        })
    }

    /// Whether these are extensions of this client's requests as they were made.
    #[inline]
    pub(crate) fn is_unchanged(&self, extensions: &Extensions) -> bool {
        extensions.len() == 1
            && extensions
                .get::<Downstream>()
                .is_some_and(|it| it.is_same(&self.downstream))
    }

    /// Keeps [unchanged](Self::is_unchanged) extensions for a later request.
    pub(crate) fn recycle(&mut self, extensions: Extensions) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(extensions);
        }
    }

    /// Keeps the memory of any other extensions.
    pub(crate) fn recycle_changed(&mut self, mut extensions: Extensions) {
        if !extensions.is_empty() && self.spare.len() < MAX_SPARE {
            extensions.clear();
            extensions.insert(self.downstream.clone());
            self.spare.push(extensions);
        }
    }

    /// Frees what an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        self.spare = Vec::new();
        self.downstream.forget_memo();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_extensions_do_not_reach_the_next_request() {
        let downstream = |port| Downstream::new(([127, 0, 0, 1], port).into());
        let mut client = Client::new(downstream(1));
        let mut extensions = client.extensions();
        extensions.insert("of the first request");
        assert!(!client.is_unchanged(&extensions));
        client.recycle_changed(extensions);
        let extensions = client.extensions();
        assert!(client.is_unchanged(&extensions));

        let mut extensions = Extensions::new();
        extensions.insert(downstream(2));
        assert!(!client.is_unchanged(&extensions));
        client.recycle_changed(extensions);
        let extensions = client.extensions();
        assert_eq!(extensions.get::<Downstream>().unwrap().peer.port(), 1);
    }
}
