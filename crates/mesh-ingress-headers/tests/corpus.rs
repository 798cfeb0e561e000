//! Replays the corpus of the fuzz targets, without a fuzzer.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests, too

mod checks;

use std::path::Path;

#[test]
fn fuzz_corpora_pass() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    // The published crate does not contain the corpus.
    if !corpora.is_dir() {
        return;
    }
    for (target, check) in checks::ALL {
        let mut replayed = 0;
        for entry in corpora.join(target).read_dir().expect(target) {
            let path = entry.unwrap().path();
            let input = std::fs::read(&path).unwrap();
            // Prints the input that fails.
            println!("{}", path.display());
            check(&input);
            replayed += 1;
        }
        assert!(
            replayed >= 20,
            "{target} has {replayed} inputs, some are missing"
        );
    }
}
