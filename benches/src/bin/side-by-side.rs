//! mesh-ingress beside other proxies: `side-by-side s1`, `side-by-side all --keep`.

fn main() -> Result<(), mesh_ingress_benches::BoxError> {
    mesh_ingress_benches::main(std::env::args().skip(1))
}
