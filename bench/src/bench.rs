//! A run of the bench: the cases, one after the other, each with all of its peers in turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use entrepot_testkit::real::find;

use crate::cases::{Bench, CASES, Case};
use crate::machine::Machine;
use crate::measure::allow_files;
use crate::options::Options;
use crate::peers::Peer;
use crate::report::{Measured, Report};
use crate::sheet::Sheet;
use crate::summary;
use crate::upstream::Upstream;

/// Another place for upstream's images and the stores than the build directory.
const DIR: &str = "ENTREPOT_BENCH_DIR";

pub(crate) fn run(options: &Options) -> Result<()> {
    let cases = chosen(options)?;
    // Inherited by servers and clients.
    allow_files();
    let dir = match &options.dir {
        Some(dir) => dir.clone(),
        None => std::env::var_os(DIR).map_or_else(build_dir, |dir| Ok(PathBuf::from(dir)))?,
    };
    let out = match &options.out {
        Some(out) => out.clone(),
        None if options.whole() => PathBuf::from("bench/results"),
        None => dir.join("results"),
    };
    if find("docker-registry").is_none() {
        bail!(
            "docker-registry is the upstream of everyone, and is not installed: apt-get install docker-registry"
        );
    }
    let scale = options.scale();
    let upstream =
        Upstream::start(&dir.join(if options.quick { "upstream-quick" } else { "upstream" }), &scale)?;
    let mut report = Report::new(Machine::here(), options);
    for case in cases {
        let measured = measure(case, options, &upstream, &dir)?;
        println!("\n{}", measured.markdown());
        report.cases.push(measured);
        // After each: a run takes long, and may be ended before it is over.
        report.save(&out)?;
    }
    let (missed, short) = (report.missed(), summary::block(&report));
    println!("\n{short}");
    if options.readme {
        summary::write(Path::new("README.md"), &short)?;
    }
    eprintln!("\nresults: {}", report.save(&out)?.display());
    for line in &missed {
        eprintln!("not met: {line}");
    }
    Ok(())
}

fn chosen(options: &Options) -> Result<Vec<&'static Case>> {
    if options.cases.is_empty() {
        return Ok(CASES.iter().collect());
    }
    let by_name = |name: &String| {
        CASES.iter().find(|case| case.name == name).with_context(|| {
            let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
            format!("there is no case `{name}`; there are {}", names.join(", "))
        })
    };
    options.cases.iter().map(by_name).collect()
}

/// A case that fails says so in its place in the table, and the others go on.
fn measure(case: &'static Case, options: &Options, upstream: &Upstream, dir: &Path) -> Result<Measured> {
    eprintln!("{}", case.name);
    let start = Instant::now();
    let mut sheet = Sheet::default();
    let missing: Vec<&str> = case.needs.iter().copied().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        let peers = peers(case, options, &mut sheet);
        let own =
            tempfile::Builder::new().prefix(case.name).tempdir_in(dir).context("the bench's directory")?;
        let runs = options.runs(case.runs);
        let bench = Bench { options, scale: options.scale(), upstream, peers, runs, dir: &own, kept: dir };
        let outcome = catch_unwind(AssertUnwindSafe(|| (case.measure)(&bench, &mut sheet)));
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some("it panicked; see its output".to_owned()),
        };
        if let Some(failure) = failure {
            eprintln!("FAILED {}: {failure}", case.name);
            sheet.note(format!("**This case failed:** {failure}"));
        }
    } else {
        let text = format!("LEFT OUT {}: {} not installed", case.name, missing.join(" and "));
        eprintln!("{text}");
        sheet.note(text);
    }
    Ok(Measured { case, sheet, seconds: start.elapsed().as_secs_f64() })
}

/// Us, and those beside us that this machine has.
fn peers(case: &Case, options: &Options, sheet: &mut Sheet) -> Vec<Peer> {
    let asked = if options.peers.is_empty() { case.peers } else { &options.peers };
    let mut peers = vec![Peer::Entrepot];
    for &peer in asked {
        match peer.missing() {
            Some(remedy) => {
                let text = format!("LEFT OUT {}: {} is not installed ({remedy})", case.name, peer.name());
                eprintln!("{text}");
                sheet.note(text);
            }
            None if !peers.contains(&peer) => peers.push(peer),
            None => {}
        }
    }
    peers
}

/// `bench` in the build directory, told from where this program lies (`<target>/<profile>/entrepot-bench`).
fn build_dir() -> Result<PathBuf> {
    let program = std::env::current_exe().context("the bench's own path")?;
    let target = program.ancestors().nth(2).context("the bench lies in a build directory")?;
    Ok(target.join("bench"))
}
