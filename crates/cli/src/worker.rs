//! `entrepot worker`: from the configuration at home to one that wrangler deploys at the edge.

mod wrangler;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use entrepot_core::config::edge::{self, Bundle, Kept, Place, Wanted};
use entrepot_core::config::{Config, Problem, Problems};

use crate::Choice;
use crate::load::{Refusal, Source};
use wrangler::{Deployment, ERRORS, Route};

/// What is written.
const FILE: &str = "wrangler.jsonc";

/// Where `cargo xtask worker build` leaves the Worker, in cargo's target directory.
const BUNDLE: &str = "worker/index.js";

/// What the platform lets a variable hold, in bytes.
const LARGEST_VALUE: usize = 5 * 1024;

/// The secret that signs the Worker's own tokens, 32 bytes in hexadecimal.
const KEY: &str = "ENTREPOT_KEY";

const SIGNS: &str = "signs the Worker's own tokens";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write a configuration for wrangler, and say what else it needs before it deploys
    Init(Init),
    /// Say all of the configuration that the edge cannot honour, and do nothing else
    Check(Check),
}

#[derive(Args)]
pub(crate) struct Init {
    #[command(flatten)]
    check: Check,
    /// Where to write wrangler.jsonc
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Replace a wrangler.jsonc that this program did not write
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    choice: Choice,
    /// For a runtime on this machine: allow plain http and private addresses, and write no routes
    #[arg(long)]
    local: bool,
}

/// A configuration that the edge can honour.
struct Edge {
    source: Source,
    config: Config,
    bundle: Bundle,
    /// What works, but not as at home.
    notes: Vec<Problem>,
}

/// Answers what to print.
///
/// # Errors
/// The edge cannot honour the configuration, or the file cannot be written.
pub(crate) fn run(command: Command) -> Result<String, Refusal> {
    match command {
        Command::Init(init) => self::init(&init),
        Command::Check(check) => self::check(check),
    }
}

fn check(check: Check) -> Result<String, Refusal> {
    let edge = read(&check)?;
    let mut lines =
        vec![format!("configuration: {}", edge.source), format!("endpoint: {}", edge.config.endpoint)];
    lines.extend(
        edge.config.sources.iter().map(|source| format!("source: {} at {}", source.name, source.url)),
    );
    lines.extend(
        edge.bundle.wanted.iter().map(|wanted| format!("secret: {}, {}", wanted.name, wanted.purpose)),
    );
    lines.extend(edge.notes.iter().map(|note| format!("note: {note}")));
    lines.push("ok".into());
    Ok(lines.join("\n"))
}

fn init(init: &Init) -> Result<String, Refusal> {
    let edge = read(&init.check)?;
    let path = init.dir.join(FILE);
    std::fs::create_dir_all(&init.dir).map_err(|error| unwritable(&path, &error))?;
    let ids = replaceable(&path, init.force)?;
    let bundle = bundle();
    let deployment = Deployment {
        config: &edge.config,
        origin: edge.source.to_string(),
        value: &edge.bundle.value,
        secrets: std::iter::once(KEY).chain(secrets(&edge).map(|wanted| wanted.name.as_str())).collect(),
        main: relative(&init.dir, &bundle).map_err(|error| unwritable(&path, &error))?,
        local: init.check.local,
        ids,
    };
    std::fs::write(&path, deployment.text()).map_err(|error| unwritable(&path, &error))?;
    let mut text: String = edge.notes.iter().map(|note| format!("note: {note}\n")).collect();
    _ = writeln!(text, "written: {}", path.display());
    let built = if bundle.exists() { "" } else { ", which `cargo xtask worker build` has yet to make" };
    _ = writeln!(text, "the Worker: {}{built}", bundle.display());
    text.push_str(&if init.check.local { local_steps(&edge) } else { steps(&edge) });
    Ok(text.trim_end().to_owned())
}

/// Reads it, and refuses what the edge cannot honour.
fn read(check: &Check) -> Result<Edge, Refusal> {
    let source = Source::find(check.choice.config.clone())?;
    let (text, file) = (source.text()?, source.to_string());
    let place = if check.local { Place::Local } else { Place::Platform };
    let loaded = edge::check(&text, &file, place).map_err(Refusal::Wrong)?;
    let bundle = edge::bundle(&text, &file, place).map_err(Refusal::Wrong)?;
    if bundle.value.len() > LARGEST_VALUE {
        let length = bundle.value.len();
        return Err(Refusal::Wrong(Problems(vec![Problem {
            file: file.into(),
            line: 0,
            column: 0,
            key: "proxy".into(),
            message: format!("a Worker's variable holds {LARGEST_VALUE} bytes, and this comes to {length}"),
            remedy: "put clients' tokens into `tokens_env`, and leave out what equals its default".into(),
        }])));
    }
    Ok(Edge { source, config: loaded.config, bundle, notes: loaded.warnings })
}

fn secrets(edge: &Edge) -> impl Iterator<Item = &Wanted> {
    edge.bundle.wanted.iter().filter(|wanted| wanted.kept == Kept::Secret)
}

/// What is to be done once, and what after every change.
fn steps(edge: &Edge) -> String {
    let name = wrangler::name(&edge.config);
    let mut text = String::from("\nOnce, where that file is:\n");
    step(&mut text, &format!("npx wrangler r2 bucket create {name}"), "");
    let namespace = format!("npx wrangler kv namespace create {name} --binding {ERRORS}");
    step(&mut text, &namespace, "writes its id into the file");
    step(&mut text, &format!("openssl rand -hex 32 | npx wrangler secret put {KEY}"), SIGNS);
    for wanted in &edge.bundle.wanted {
        let name = &wanted.name;
        let command = match wanted.kept {
            Kept::Secret => format!("npx wrangler secret put {name}"),
            Kept::Kv => format!("npx wrangler kv key put --remote --binding {ERRORS} '{name}' --path FILE"),
        };
        step(&mut text, &command, &purpose(wanted));
    }
    text.push_str("\nOnce, in Cloudflare's DNS, proxied, with no server behind them:\n");
    for Route { host, zone } in wrangler::routes(&edge.config) {
        let certificate = match host.strip_prefix("*.") {
            Some(parent) if parent == zone => "; its route takes every proxied host of the zone",
            Some(_) => {
                "; only for labels, of secrets and of registries, and needs a certificate for this very name"
            }
            None => "",
        };
        step(&mut text, &format!("{host} AAAA 100::"), &format!("in the zone {zone}{certificate}"));
    }
    text.push_str(
        "\nNow, and after every change of the configuration, which has to go through `init` again:\n",
    );
    step(&mut text, "npx wrangler deploy", "");
    text
}

/// The same for a runtime on this machine, which makes everything but the secrets itself.
fn local_steps(edge: &Edge) -> String {
    let mut text = String::from("\nOnce, where that file is, a file `.dev.vars` with these lines:\n");
    step(&mut text, &format!("{KEY}=…"), &format!("{SIGNS}: openssl rand -hex 32"));
    for wanted in secrets(edge) {
        step(&mut text, &format!("{}=…", wanted.name), &purpose(wanted));
    }
    text.push_str("\nNow:\n");
    step(&mut text, "npx wrangler dev", "");
    text
}

fn step(text: &mut String, command: &str, why: &str) {
    _ = writeln!(text, "  {command}{}{why}", if why.is_empty() { "" } else { "   # " });
}

fn purpose(wanted: &Wanted) -> String {
    let given = if wanted.value.is_some() { ", as it stands in the configuration" } else { "" };
    format!("{}{given}", wanted.purpose)
}

/// Where cargo builds, as it is told by the environment.
fn bundle() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty());
    PathBuf::from(target.unwrap_or_else(|| "target".into())).join(BUNDLE)
}

/// The ids of KV namespaces in a file that may be replaced.
///
/// # Errors
/// There is a file that may not be replaced, or that cannot be read.
fn replaceable(path: &Path, force: bool) -> Result<BTreeMap<String, String>, Refusal> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unwritable(path, &error)),
    };
    match wrangler::ids(&text) {
        Some(ids) => Ok(ids),
        None if force => Ok(BTreeMap::new()),
        None => Err(Refusal::Foreign(path.to_owned())),
    }
}

/// The way from a directory to a file, in slashes. Both begin where the program was started.
fn relative(directory: &Path, file: &Path) -> std::io::Result<String> {
    let from = directory.canonicalize()?;
    let here = std::env::current_dir()?.canonicalize()?;
    let to = here.join(file);
    let (from, to): (Vec<_>, Vec<_>) = (from.components().collect(), to.components().collect());
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[shared..].iter().map(|_| "..".into());
    let down = to[shared..].iter().map(|part| part.as_os_str().to_string_lossy());
    let parts: Vec<std::borrow::Cow<'_, str>> = up.chain(down).collect();
    Ok(parts.join("/"))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::Unwritable { path: path.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_bundle_begins_at_the_file() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(relative(&here, Path::new("target/worker/index.js")).unwrap(), "target/worker/index.js");
        let below = tempfile::tempdir_in(&here).unwrap();
        let way = relative(below.path(), Path::new("target/worker/index.js")).unwrap();
        assert_eq!(way, "../target/worker/index.js");
        let elsewhere = tempfile::tempdir().unwrap();
        let file = elsewhere.path().canonicalize().unwrap().join("worker/index.js");
        assert_eq!(relative(elsewhere.path(), &file).unwrap(), "worker/index.js");
        assert!(relative(Path::new("/nowhere/at/all"), &file).is_err());
    }

    #[test]
    fn only_what_we_wrote_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        assert_eq!(replaceable(&path, false).unwrap(), BTreeMap::new());
        for foreign in ["{}", "", "// Written by hand\n{}", "// Written by `entrepot worker init`\n{"] {
            std::fs::write(&path, foreign).unwrap();
            assert!(matches!(replaceable(&path, false), Err(Refusal::Foreign(_))), "{foreign}");
            assert_eq!(replaceable(&path, true).unwrap(), BTreeMap::new());
        }
        let ours = "// Written by `entrepot worker init` from c\n{\n  \"kv_namespaces\": [\n    {\"binding\": \"ERRORS\", \"id\": \"0f\"}\n  ],\n  // why\n  \"x\": 1\n}\n";
        std::fs::write(&path, ours).unwrap();
        assert_eq!(replaceable(&path, false).unwrap(), BTreeMap::from([("ERRORS".into(), "0f".into())]));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(replaceable(&path, true), Err(Refusal::Unwritable { .. })));
    }
}
