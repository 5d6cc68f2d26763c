//! How long it takes to be there, and what many objects cost.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use entrepot_testkit::mirror::free_address;

use super::{Bench, Case, in_memory};
use crate::client;
use crate::measure::Watch;
use crate::objects;
use crate::peers::{Peer, Place};
use crate::sheet::Sheet;

pub(super) const START: Case = Case {
    name: "start",
    about: "from the start of the process to the first 200 on `/v2/`: with an empty store, with 10⁶ objects in it, and with an upstream \
            that takes connections and says nothing.",
    peers: &[Peer::Nginx, Peer::DockerRegistry],
    runs: 5,
    needs: &[],
    measure,
};

/// How long a server may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long memory is looked at while the store is compared with its index.
const LOOK: Duration = Duration::from_secs(20);

fn measure(bench: &Bench<'_>, sheet: &mut Sheet) -> Result<()> {
    let objects = if bench.options.quick { 10_000 } else { 1_000_000 };
    let full = objects::store(bench.kept, objects, bench.upstream)?;
    // A listener whose connections nobody ever looks at.
    let silent = TcpListener::bind("127.0.0.1:0").context("a port")?;
    let (near, silent) = (bench.upstream.address(), silent.local_addr()?);
    let many = format!("{objects} objects");
    for run in 0..bench.runs {
        for peer in bench.turn(run) {
            let dir = in_memory()?;
            first_answer(bench, sheet, "empty", peer, near, dir.path())?;
        }
        // The others ask upstream before they say anything, or do not start.
        let (ours, dir) = (Peer::Entrepot, in_memory()?);
        first_answer(bench, sheet, "empty, upstream silent", ours, silent, dir.path())?;
        first_answer(bench, sheet, &many, ours, near, &full)?;
        first_answer(bench, sheet, &format!("{many}, upstream silent"), ours, silent, &full)?;
    }
    let server = bench.start_in(Peer::Entrepot, near, &full)?;
    if let Some(watch) = server.tree().map(Watch::start) {
        std::thread::sleep(LOOK);
        sheet.add(&many, "peak RssAnon MB", Peer::Entrepot, watch.peak_mb());
    }
    Ok(())
}

fn first_answer(
    bench: &Bench<'_>,
    sheet: &mut Sheet,
    what: &str,
    peer: Peer,
    upstream: SocketAddr,
    dir: &Path,
) -> Result<()> {
    let address = free_address();
    let place =
        Place { upstream, dir, max_size: 100 << 30, access_log: bench.options.access_log, admin: None };
    let start = Instant::now();
    let process = peer.launch(&place, address)?;
    while !client::answers(address) {
        if start.elapsed() > LIMIT {
            bail!("{}, {what}: no answer within {LIMIT:?}\n{}", peer.name(), process.log());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let took = start.elapsed().as_secs_f64();
    sheet.add(what, "first 200 s", peer, took);
    bench.say(format_args!("{what}: {}: {took:.4} s", peer.name()));
    Ok(())
}
