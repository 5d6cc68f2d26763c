//! Memory that connections cost.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Bench, Case, fetch_and_compare, lay_out};
use crate::client::{self, Task};
use crate::measure::{Tree, Watch, allow_files};
use crate::peers::Peer;
use crate::sheet::Sheet;

pub(super) const IDLE: Case = Case {
    name: "idle",
    about: "anonymous memory (`RssAnon`): of a server that has nothing to do, with 10,000 kept connections at rest, and with 1,000 slow \
            readers of the layer of 2 GB at once.",
    peers: &[Peer::Nginx, Peer::Static],
    runs: 3,
    needs: &[],
    measure,
};

/// Connections that are not the case's own.
const SPARE: usize = 50;
/// How long memory is looked at.
const LOOK: Duration = Duration::from_secs(3);

fn measure(bench: &Bench<'_>, sheet: &mut Sheet) -> Result<()> {
    let big = bench.upstream.big();
    let (digest, _) = big.layer();
    let path = big.blob_path(digest);
    let (connections, streams) = if bench.options.quick { (1_000, 100) } else { (10_000, 1_000) };
    let files = allow_files();
    // We take a quarter of what we may have for connections, and tell the others that there is no room.
    let possible = usize::try_from(files / 4).unwrap_or(usize::MAX).saturating_sub(SPARE).min(connections);
    if possible < connections {
        sheet.note(format!(
            "{possible} connections instead of {connections}: a process may have {files} open files here."
        ));
    }
    let connections = possible;
    if bench.peers.contains(&Peer::Static) {
        lay_out(bench, big)?;
    }
    for run in 0..bench.runs {
        for peer in bench.turn(run) {
            let server = bench.start(peer, bench.upstream.address())?;
            let Some(tree) = server.tree() else { bail!("{} has no memory of its own", peer.name()) };
            let before = peak(tree);
            sheet.add("idle", "RssAnon MB", peer, before);
            sheet.add("idle", "PSS MB", peer, tree.proportional_kb() as f64 * 1024.0 / 1e6);

            let (address, rest) = (server.address, "/v2/".to_owned());
            let held = client::held(&Task::Hold { address, path: rest, connections, sip: false })?;
            let resting = peak(tree);
            still_there(tree, connections)?;
            drop(held);
            let what = format!("{connections} connections at rest");
            sheet.add(&what, "RssAnon MB", peer, resting);
            sheet.add(&what, "kB each", peer, (resting - before) * 1e3 / connections as f64);

            // Anew: an allocator keeps what it once had. It is fetched first, but for who has it from the run before.
            drop(server);
            let server = bench.start(peer, bench.upstream.address())?;
            let Some(tree) = server.tree() else { continue };
            fetch_and_compare(&server, &path, digest)?;
            let (address, path) = (server.address, path.clone());
            let held = client::held(&Task::Hold { address, path, connections: streams, sip: true })?;
            let streaming = peak(tree);
            still_there(tree, streams)?;
            drop(held);
            sheet.add(&format!("{streams} streams"), "RssAnon MB", peer, streaming);
            bench.say(format_args!(
                "{}: idle {before:.1} MB, {connections} at rest {resting:.1} MB, {streams} streams {streaming:.1} MB",
                peer.name()
            ));
        }
    }
    Ok(())
}

/// A connection that was closed costs nothing, and tells nothing.
fn still_there(tree: Tree, connections: usize) -> Result<()> {
    let open = tree.descriptors();
    if open < connections {
        bail!("of {connections} connections some were closed: {open} descriptors are open");
    }
    Ok(())
}

/// The most of a few seconds, in MB.
fn peak(tree: Tree) -> f64 {
    let watch = Watch::start(tree);
    std::thread::sleep(LOOK);
    watch.peak_mb()
}
