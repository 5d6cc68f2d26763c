//! More than fits, pulled round and round.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use entrepot_testkit::wan::{Shape, Wan};

use super::{Bench, Case, fetch_and_compare};
use crate::client::{self, Flood, Task};
use crate::peers::{Peer, Place};
use crate::sheet::Sheet;

pub(super) const EVICT: Case = Case {
    name: "evict",
    about: "24 layers of 8 MB, of which the store may hold a third, pulled round and round by four clients from an upstream that is near.",
    peers: &[Peer::Nginx],
    runs: 3,
    needs: &[],
    measure,
};

const CLIENTS: usize = 4;
const ROUNDS: usize = 5;

fn measure(bench: &Bench<'_>, sheet: &mut Sheet) -> Result<()> {
    let many = bench.upstream.many();
    let layers = &many.image.blobs[1..];
    let paths: Vec<String> = layers.iter().map(|blob| many.blob_path(&blob.digest)).collect();
    let cap = layers.iter().map(|blob| blob.size).sum::<u64>() / 3;
    let what = format!("{} MB in {} MB", cap * 3 / 1_000_000, cap / 1_000_000);
    for run in 0..bench.runs {
        for peer in bench.turn(run) {
            // Near, but counted.
            let near = Shape {
                round_trip: Duration::ZERO,
                connection_bits: 1 << 40,
                link_bits: 1 << 40,
                initial_window: 1000,
            };
            let wan = Wan::shaped(bench.upstream.address(), near);
            let dir = tempfile::Builder::new().prefix(peer.name()).tempdir_in(bench.dir.path())?;
            let (upstream, access_log) = (wan.address(), bench.options.access_log);
            let server =
                peer.start(&Place { upstream, dir: dir.path(), max_size: cap, access_log, admin: None })?;
            let before = server.cpu();
            let task = Task::Round {
                address: server.address,
                paths: paths.clone(),
                clients: CLIENTS,
                rounds: ROUNDS,
            };
            let (flood, most) = watching(&dir.path().join("cache"), || client::ask::<Flood>(&task));
            let flood = flood?;
            let fetched = wan.bytes_down() as f64;
            sheet.add(&what, "req/s", peer, flood.requests as f64 / flood.seconds);
            sheet.add(&what, "hits %", peer, 100.0 * (1.0 - fetched / flood.bytes as f64).max(0.0));
            // Whoever stores at all stores a whole layer.
            let above = most.saturating_sub(cap) as f64 / layers[0].size as f64;
            sheet.add(&what, "layers above the cap", peer, above);
            if let (Some(before), Some(after)) = (before, server.cpu()) {
                sheet.add(&what, "CPU s/GB", peer, (after - before) / (flood.bytes as f64 / 1e9));
            }
            bench.say(format_args!(
                "{what}: {}: {:.1} req/s, at most {:.2} of the cap",
                peer.name(),
                flood.requests as f64 / flood.seconds,
                most as f64 / cap as f64
            ));
            if run == 0 {
                for (path, blob) in paths.iter().zip(layers) {
                    fetch_and_compare(&server, path, &blob.digest)?;
                }
            }
        }
    }
    sheet.note("The store's size is that of its layers' files, those under way included, looked at a hundred times a second.");
    Ok(())
}

/// Does something, and answers how many bytes of layers a folder held at most meanwhile.
fn watching<T>(folder: &Path, work: impl FnOnce() -> T) -> (T, u64) {
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(layers_in(folder), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let answer = work();
        done.store(true, Ordering::Relaxed);
        answer
    });
    (answer, most.into_inner())
}

/// What our store holds besides objects.
const NO_OBJECTS: [&str; 3] = ["index.db", "key", "lock"];

/// Bytes of all files that are objects, or become some.
fn layers_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => layers_in(&entry.path()),
        _ if NO_OBJECTS.iter().any(|name| entry.file_name().to_string_lossy().starts_with(name)) => 0,
        // Gone, perhaps, since it was listed.
        _ => entry.metadata().map_or(0, |meta| meta.len()),
    };
    entries.map(size).sum()
}
