//! The highest cost of a request, counted and not timed: `gates`, `gates --record`.

fn main() -> Result<(), mesh_ingress_benches::BoxError> {
    mesh_ingress_benches::gates(std::env::args().skip(1))
}
