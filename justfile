# Short names for plain cargo lines; everything works without just, too.

# Lists these.
default:
    @just --list

# What it is about: one request, four ways, two meshes.
quickstart *args:
    cargo run --example quickstart -- {{args}}

test *args:
    cargo test {{args}}

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings

doc $RUSTDOCFLAGS="-D warnings":
    cargo doc --workspace --all-features --no-deps

bench *args:
    cargo bench -p mesh-ingress-benches {{args}}

# Writes the listings of the public API in api/, which CI compares.
api:
    .ci/public-api --write

# Needs root; see CONTRIBUTING.md.
real-parts:
    .ci/install-real-parts
    cargo test -p mesh-ingress-gateway --features real-parts --test real_parts -- --test-threads=2

# Licences, advisories, sources; needs cargo-deny.
deny:
    cargo deny check

# All that a change has to pass.
ci *steps:
    .ci/run {{steps}}
