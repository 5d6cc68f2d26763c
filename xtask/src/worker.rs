//! `cargo xtask worker`: the Cloudflare Worker, from Rust to the two files that are deployed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use wasm_bindgen_cli_support::Bindgen;

use crate::layers;
use crate::machine::{self, WASM};
use crate::run::{cargo, command, run};

const CRATE: &str = "crates/worker";

/// What the script may come to in bytes, compressed. The platform's smallest plan takes three times as much; what is larger starts slower.
const LIMIT: usize = 1_000_000;

/// What rustc emits for this target and the glue needs. Named one by one, so that nothing is used that the runtime lacks.
const WASM_FEATURES: &[&str] = &[
    "mutable-globals",
    "sign-ext",
    "nontrapping-float-to-int",
    "bulk-memory",
    "multivalue",
    "reference-types",
    "exception-handling",
];

/// Builds the Worker, and answers the directory of `index.js` and `index_bg.wasm`.
pub(crate) fn build() -> Result<PathBuf> {
    if let Some(missing) = machine::missing_node() {
        bail!("{missing}: the Worker's script is put together by npm packages");
    }
    machine::npm_packages(Path::new(CRATE))?;
    run(cargo(["build", "--locked", "--profile", "worker", "--target", WASM, "-p", "entrepot-worker"]))?;
    let target = PathBuf::from(layers::target_directory()?);
    let stage = target.join("worker-stage");
    let bundle = target.join("worker");
    for directory in [&stage, &bundle] {
        empty(directory)?;
    }
    glue(&target.join(WASM).join("worker/entrepot_worker.wasm"), &stage)?;
    optimize(&stage.join("glue_bg.wasm"), &bundle.join("index_bg.wasm"))?;
    bundle_script(&stage, &bundle.join("index.js"))?;
    weigh(&bundle)?;
    Ok(bundle)
}

/// Writes the JavaScript between the runtime and the module. Cargo links one `wasm-bindgen-shared` into a workspace, and both
/// the macros and this library demand exactly theirs: they cannot disagree.
fn glue(wasm: &Path, stage: &Path) -> Result<()> {
    Bindgen::new()
        .input_path(wasm)
        .out_name("glue")
        .module(true)?
        .typescript(false)
        .reset_state_function(true)
        .force_enable_abort_handler(true)
        .generate(stage)
        .with_context(|| format!("wasm-bindgen of {}", wasm.display()))
}

/// The names of functions are kept: a stack trace without them says nothing.
fn optimize(from: &Path, to: &Path) -> Result<()> {
    let mut optimizer = command("node", [Path::new(CRATE).join("node_modules/binaryen/bin/wasm-opt")]);
    optimizer.arg(from).arg("-o").arg(to).arg("-Os").arg("--debuginfo");
    optimizer.args(WASM_FEATURES.iter().map(|feature| format!("--enable-{feature}")));
    run(optimizer)
}

fn bundle_script(stage: &Path, script: &Path) -> Result<()> {
    fs::copy(Path::new(CRATE).join("shim.js"), stage.join("shim.js")).context("crates/worker/shim.js")?;
    let mut esbuild = command("node", [Path::new(CRATE).join("node_modules/esbuild/bin/esbuild")]);
    esbuild.arg(stage.join("shim.js")).arg(format!("--outfile={}", script.display()));
    esbuild.args(["--bundle", "--minify", "--format=esm", "--log-level=warning"]);
    esbuild.args(["--external:./glue_bg.wasm", "--external:cloudflare:*"]);
    run(esbuild)?;
    // The runtime gives a compiled module to an ordinary import, and does not know the proposed `import source`.
    let text = fs::read_to_string(script)?;
    let (found, wanted) = ("import source ", "./glue_bg.wasm");
    if !text.contains(found) || !text.contains(wanted) {
        bail!("{} does not import its module as expected", script.display());
    }
    fs::write(script, text.replace(found, "import ").replace(wanted, "./index_bg.wasm"))?;
    Ok(())
}

/// Prints the sizes; an error if the compressed script is too large.
fn weigh(bundle: &Path) -> Result<()> {
    let mut sum = 0;
    for name in ["index.js", "index_bg.wasm"] {
        let bytes = fs::read(bundle.join(name)).with_context(|| name.to_owned())?;
        let compressed = gzipped(&bytes)?;
        println!("{name}: {} bytes, {compressed} gzipped", bytes.len());
        sum += compressed;
    }
    println!("worker: {sum} of {LIMIT} bytes gzipped, in {}", bundle.display());
    if sum > LIMIT {
        bail!("the Worker compresses to {sum} bytes, and may have {LIMIT}");
    }
    Ok(())
}

fn gzipped(bytes: &[u8]) -> Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}

fn empty(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())
}
