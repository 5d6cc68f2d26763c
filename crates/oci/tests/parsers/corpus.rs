//! T-BI7: whatever fuzzing found worth keeping stays harmless. Each file of `fuzz/corpus/<parser>/` is run through the
//! same function that fuzzing runs.

use std::path::Path;

use crate::harness;

#[test]
fn t_bi7_the_corpora_hold() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, check) in harness::ALL {
        let mut files: Vec<_> = std::fs::read_dir(corpora.join(name))
            .unwrap_or_else(|error| panic!("no corpus for {name}: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(files.len() >= 5, "the corpus of {name} has only {} files", files.len());
        for file in files {
            // The name of the file is all that a failing assertion does not say.
            println!("{}", file.display());
            check(&std::fs::read(file).unwrap());
        }
    }
}
