//! `cargo xtask worker`: the Cloudflare Worker, from Rust to the two files that are deployed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail};
use entrepot_core::config::edge::{self, Kept};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use wasm_bindgen_cli_support::Bindgen;

use crate::layers;
use crate::machine::{self, WASM};
use crate::run::{cargo, command, run};

pub(crate) const PACKAGE: &str = "entrepot-worker";

const CRATE: &str = "crates/worker";

/// Where `dev` listens on this machine.
const DEV_PORT: u16 = 8787;

/// The secret that signs the Worker's own tokens. On this machine, where nobody else comes, it has a default.
const KEY: &str = "ENTREPOT_KEY";

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
    run(cargo(["build", "--locked", "--profile", "worker", "--target", WASM, "-p", PACKAGE]))?;
    let target = PathBuf::from(layers::target_directory()?);
    let stage = target.join("worker-stage");
    let bundle = target.join("worker");
    for directory in [&stage, &bundle] {
        empty(directory)?;
    }
    glue(&target.join(WASM).join("worker/entrepot_worker.wasm"), &stage)?;
    optimize(&stage.join("glue_bg.wasm"), &stage.join("named.wasm"), &bundle.join("index_bg.wasm"))?;
    bundle_script(&stage, &bundle.join("index.js"))?;
    weigh(&bundle)?;
    Ok(bundle)
}

/// Builds the Worker and runs it until it is interrupted, with this configuration, secrets from the environment, and storage
/// that stays in the target directory.
pub(crate) fn dev(config: &Path) -> Result<()> {
    let name = config.display().to_string();
    let text = fs::read_to_string(config).with_context(|| name.clone())?;
    let made = edge::bundle(&text, &name, edge::Place::Local).map_err(|problems| anyhow!("{problems}"))?;
    let (mut vars, mut kv) = (Map::new(), Map::new());
    vars.insert("ENTREPOT_CONFIG".into(), made.value.into());
    vars.insert(KEY.into(), std::env::var(KEY).unwrap_or_else(|_| "0".repeat(64)).into());
    for wanted in made.wanted {
        let given = wanted.value.map(|secret| secret.expose().to_owned());
        let Some(value) = given.or_else(|| std::env::var(&wanted.name).ok()) else {
            bail!("set {}, {}, in the environment", wanted.name, wanted.purpose)
        };
        let place = if wanted.kept == Kept::Kv { &mut kv } else { &mut vars };
        place.insert(wanted.name, value.into());
    }
    let bundle = build()?;
    let settings = json!({
        "bundle": bundle,
        "persist": bundle.with_file_name("worker-dev"),
        "port": DEV_PORT,
        "vars": vars,
        "kv": kv,
    });
    run_locally(&settings)
}

fn run_locally(settings: &Value) -> Result<()> {
    let mut child = command("node", [Path::new(CRATE).join("dev/run.mjs")]).stdin(Stdio::piped()).spawn()?;
    // Held open until the child ends: it ends with its input, so it cannot outlive us.
    let mut input = child.stdin.take().context("a piped stdin")?;
    writeln!(input, "{settings}")?;
    let status = child.wait()?;
    if !status.success() {
        bail!("the local runtime: {status}");
    }
    Ok(())
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

/// What is deployed has no names of functions: they are a seventh of its weight. The same module with names is left at
/// `named`, for the offsets of a stack trace.
fn optimize(from: &Path, named: &Path, to: &Path) -> Result<()> {
    let optimizer = || {
        let mut optimizer = command("node", [Path::new(CRATE).join("node_modules/binaryen/bin/wasm-opt")]);
        optimizer.args(WASM_FEATURES.iter().map(|feature| format!("--enable-{feature}")));
        optimizer
    };
    let mut shrink = optimizer();
    shrink.arg(from).arg("-o").arg(named).args(["-Os", "--debuginfo"]);
    run(shrink)?;
    let mut strip = optimizer();
    strip.arg(named).arg("-o").arg(to).arg("--strip-debug");
    run(strip)
}

fn bundle_script(stage: &Path, script: &Path) -> Result<()> {
    fs::copy(Path::new(CRATE).join("shim.js"), stage.join("shim.js")).context("crates/worker/shim.js")?;
    let mut esbuild = command("node", [Path::new(CRATE).join("node_modules/esbuild/bin/esbuild")]);
    esbuild.arg(stage.join("shim.js")).arg(format!("--outfile={}", script.display()));
    esbuild.args(["--bundle", "--minify", "--format=esm", "--log-level=warning"]);
    esbuild.args(["--external:./glue_bg.wasm", "--external:cloudflare:*"]);
    // What the glue does not export is missing at run time only.
    esbuild.arg("--log-override:import-is-undefined=error");
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
