use std::process::Command;

use entrepot_testkit::mirror::binary;

/// What `entrepot check` says of a configuration, and its exit status.
pub(crate) fn check(config: &str) -> (Option<i32>, String) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), config).expect("writing it");
    let output = Command::new(binary())
        .arg("check")
        .arg("--config")
        .arg(file.path())
        .output()
        .expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}
