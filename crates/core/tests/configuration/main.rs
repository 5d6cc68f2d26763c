//! The configuration's parser on what fuzzing found, and on what users write.

mod harness;

use std::path::Path;

/// Every file that fuzzing kept, through the same properties.
#[test]
fn t_bi7_t_bi8_the_corpus_of_the_configuration_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/config");
    let mut files = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        harness::config(&std::fs::read(&path).unwrap());
        files += 1;
    }
    assert!(files >= 10, "the corpus at {} has {files} files only", corpus.display());
}
