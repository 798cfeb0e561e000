//! The mesh's data planes.

use http::header::HeaderName;

/// Says which router took a request through the mesh: what no data plane adds, for tests to see.
pub(crate) const MESH_ROUTER: HeaderName = HeaderName::from_static("x-mesh-router");
