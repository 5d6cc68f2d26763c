//! What a hit costs as the store grows, in instructions.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use entrepot_testkit::mirror::free_address;
use entrepot_testkit::real::{Process, find};

use super::{Bench, Case};
use crate::client::{self, Flood, Task};
use crate::measure::Tree;
use crate::objects;
use crate::peers::{Peer, Place};
use crate::sheet::Sheet;
use crate::upstream::TAG;

pub(super) const GROWTH: Case = Case {
    name: "growth",
    about: "instructions of ours for a hit (by turns a manifest by tag and a blob of a kilobyte) with 10² and with 10⁶ objects stored, \
            counted by callgrind; without those of the scrubber, which goes on beside them.",
    peers: &[],
    runs: 1,
    needs: &["valgrind", "callgrind_control"],
    measure,
};

const HITS: usize = 2_000;
/// What is not counted: the clock drives it, and not the hits.
const SCRUBBER: &str = "*::scrub_after";
/// How long it may take to start, and to compare the store with the index, within callgrind.
const LIMIT: Duration = Duration::from_secs(1800);

fn measure(bench: &Bench<'_>, sheet: &mut Sheet) -> Result<()> {
    let many = if bench.options.quick { 10_000 } else { 1_000_000 };
    for _ in 0..bench.runs {
        let mut counted = Vec::new();
        for objects in [100, many] {
            let store = objects::store(bench.kept, objects, bench.upstream)?;
            let hit = instructions(bench, &store)?;
            let what = format!("{objects} objects");
            sheet.add(&what, "instructions/hit", Peer::Entrepot, hit);
            bench.say(format_args!("{what}: {hit:.0} instructions for a hit"));
            counted.push(hit);
        }
        let [few, many] = counted[..] else { bail!("two stores") };
        sheet.add("many ÷ few", "instructions", Peer::Entrepot, many / few);
    }
    Ok(())
}

fn instructions(bench: &Bench<'_>, store: &Path) -> Result<f64> {
    let typical = bench.upstream.typical();
    let config = &typical.image.blobs[0].digest;
    let paths = vec![typical.manifest_path(TAG), typical.blob_path(config)];
    let (address, counts) = (free_address(), bench.dir.path().join("callgrind.out"));
    let upstream = bench.upstream.address();
    let place = Place { upstream, dir: store, max_size: 100 << 30, access_log: false, admin: None };
    let ours = Peer::Entrepot.command(&place, address)?;
    let mut command = Command::new(find("valgrind").context("valgrind is not installed")?);
    command.args(["--tool=callgrind", "--instr-atstart=no"]);
    // In this order: what is counted is then all but that function, thread by thread.
    command.args([format!("--toggle-collect={SCRUBBER}"), "--collect-atstart=yes".to_owned()]);
    command.arg(format!("--callgrind-out-file={}", counts.display()));
    command.arg(ours.get_program()).args(ours.get_args()).current_dir(store);
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut process = Process::of(command, store.join("log"));
    if !process.ready(LIMIT, || client::answers(address)) {
        bail!("it does not start within callgrind\n{}", process.log());
    }
    let hits = |rounds| -> Result<Flood> {
        client::ask(&Task::Round { address, paths: paths.clone(), clients: 1, rounds })
    };
    hits(50)?;
    at_rest(Tree { root: process.id() })?;
    hits(50)?;
    control(&process, "on")?;
    hits(HITS / paths.len())?;
    control(&process, "off")?;
    // It writes its counts when it ends.
    drop(process);
    let text = fs::read_to_string(&counts).with_context(|| counts.display().to_string())?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse::<f64>().ok());
    Ok(total.context("the totals of callgrind")? / HITS as f64)
}

/// Waits until a start's work in the background is done.
fn at_rest(tree: Tree) -> Result<()> {
    let start = Instant::now();
    loop {
        let before = tree.cpu();
        std::thread::sleep(Duration::from_secs(2));
        if tree.cpu() - before < Duration::from_millis(200) {
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            bail!("it is not at rest after {LIMIT:?}");
        }
    }
}

fn control(process: &Process, counting: &str) -> Result<()> {
    let mut command = Command::new(find("callgrind_control").context("callgrind_control is not installed")?);
    command.args(["-i", counting, &process.id().to_string()]).stdin(Stdio::null());
    let output = command.output().context("callgrind_control")?;
    if !output.status.success() {
        bail!("callgrind_control: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
