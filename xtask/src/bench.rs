//! `cargo xtask bench`: builds what users run, and measures it beside its peers.

use std::path::Path;

use anyhow::Result;

use crate::layers;
use crate::run::{cargo, run};

/// What may be said is told by the bench itself: `cargo xtask bench --help`.
pub(crate) fn bench(arguments: &[&str]) -> Result<()> {
    let mut bench = cargo(["run", "--locked", "--quiet", "--release", "-p", "entrepot-bench", "--"]);
    bench.args(arguments);
    // Somebody else's binary is measured as it is.
    if std::env::var_os("ENTREPOT_BIN").is_none() {
        run(cargo(["build", "--locked", "--release", "-p", "entrepot"]))?;
        bench.env("ENTREPOT_BIN", Path::new(&layers::target_directory()?).join("release/entrepot"));
    }
    run(bench)
}
