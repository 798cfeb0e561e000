//! Replays the corpus of the fuzz target, and random bytes.
#![allow(missing_docs, clippy::unwrap_used)]

mod checks;

use proptest::prelude::*;

#[test]
fn field_sections() {
    let corpus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/corpus/field_sections"
    );
    // The published crate does not contain the corpus.
    if !std::path::Path::new(corpus).is_dir() {
        return;
    }
    let mut replayed = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        checks::field_sections(&std::fs::read(path).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "there is a corpus");
}

proptest! {
    #[test]
    fn any_bytes(input in proptest::collection::vec(any::<u8>(), 0..400)) {
        checks::field_sections(&input);
    }
}
