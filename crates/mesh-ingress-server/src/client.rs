//! What each request is told of its client.

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
        let mut extensions = self.spare.pop().unwrap_or_default();
        let is_fresh = extensions.len() == 1
            && extensions
                .get::<Downstream>()
                .is_some_and(|it| it.is_same(&self.downstream));
        if !is_fresh {
            extensions.clear();
            extensions.insert(self.downstream.clone());
        }
        extensions
    }

    /// Keeps the extensions of a response for a later request.
    pub(crate) fn recycle(&mut self, extensions: Extensions) {
        if !extensions.is_empty() && self.spare.len() < MAX_SPARE {
            self.spare.push(extensions);
        }
    }

    /// Frees what an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        self.spare = Vec::new();
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
        client.recycle(extensions);
        assert_eq!(client.extensions().len(), 1);

        let mut extensions = Extensions::new();
        extensions.insert(downstream(2));
        client.recycle(extensions);
        let extensions = client.extensions();
        assert_eq!(extensions.get::<Downstream>().unwrap().peer.port(), 1);
    }
}
