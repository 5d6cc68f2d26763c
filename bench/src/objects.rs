//! A store of ours with very many objects, made once and kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use entrepot_testkit::mirror::free_address;
use entrepot_testkit::real::fetch;
use sha2::{Digest as _, Sha256};

use crate::peers::{Peer, Place};
use crate::upstream::Upstream;

/// How long adopting the objects may take.
const ADOPTING: Duration = Duration::from_secs(3600);
/// What the sum of all objects is called on the metrics page.
const SUM: &str = "entrepot_stored_bytes ";

/// The directory of a mirror whose store holds so many objects of a few bytes. They are put where objects lie, and the mirror's
/// own sweep finds and names them: nothing here knows what its index looks like.
pub(crate) fn store(dir: &Path, objects: u64, upstream: &Upstream) -> Result<PathBuf> {
    let place = dir.join(format!("objects-{objects}"));
    let done = place.join("complete");
    if done.is_file() {
        return Ok(place);
    }
    let start = Instant::now();
    eprintln!("  making a store of {objects} objects in {}", place.display());
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
    }
    let bytes = fill(&place.join("cache/blobs/sha256"), objects)?;
    adopt(&place, upstream, bytes)?;
    fs::write(&done, "").with_context(|| done.display().to_string())?;
    eprintln!("  made in {:.0} s", start.elapsed().as_secs_f64());
    Ok(place)
}

/// Their bytes together.
fn fill(folder: &Path, objects: u64) -> Result<u64> {
    for byte in 0..=u8::MAX {
        fs::create_dir_all(folder.join(format!("{byte:02x}")))?;
    }
    let mut bytes = 0;
    for i in 0..objects {
        let content = format!("object {i:08}");
        let hex: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        let file = folder.join(&hex[..2]).join(&hex);
        fs::write(&file, &content).with_context(|| file.display().to_string())?;
        bytes += content.len() as u64;
    }
    Ok(bytes)
}

fn adopt(place: &Path, upstream: &Upstream, bytes: u64) -> Result<()> {
    let admin = free_address();
    let settings = Place {
        upstream: upstream.address(),
        dir: place,
        max_size: 100 << 30,
        access_log: false,
        admin: Some(admin),
    };
    let server = Peer::Entrepot.start(&settings)?;
    let start = Instant::now();
    loop {
        let page = fetch("GET", &format!("http://{admin}/metrics"), &[]).map_err(anyhow::Error::msg)?;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let sum =
            page.lines().find_map(|line| line.strip_prefix(SUM)).and_then(|sum| sum.parse::<f64>().ok());
        if sum.with_context(|| format!("no {SUM}on the metrics page"))? >= bytes as f64 {
            return Ok(());
        }
        if start.elapsed() > ADOPTING {
            bail!("the objects are not in the index after {ADOPTING:?}\n{}", server.log());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
