//! One layer that nobody holds yet.

use anyhow::{Result, bail};

use super::{Bench, Case, fetch_and_compare, in_memory, wan};
use crate::client::{self, Fetched, Sink, Task};
use crate::measure::Watch;
use crate::peers::{Peer, Server};
use crate::sheet::Sheet;

pub(super) const FAST: Case = Case {
    name: "cold-fast",
    about: "a layer of 2 GB that nobody holds, from an upstream on loopback; the stores are in memory (tmpfs).",
    peers: &[Peer::Nginx, Peer::Direct],
    runs: 7,
    needs: &[],
    measure: fast,
};

pub(super) const LAYER: Case = Case {
    name: "cold-layer",
    about: "a layer of 256 MB that nobody holds, over the WAN, by one plain GET.",
    peers: &[Peer::Nginx, Peer::Direct],
    runs: 3,
    needs: &[],
    measure: layer,
};

fn fast(bench: &Bench<'_>, sheet: &mut Sheet) -> Result<()> {
    let big = bench.upstream.big();
    let (digest, size) = big.layer();
    let path = big.blob_path(digest);
    let what = format!("{:.1} GB", size as f64 / 1e9);
    for &peer in &bench.peers {
        let dir = in_memory()?;
        let server = bench.start_in(peer, bench.upstream.address(), dir.path())?;
        fetch_and_compare(&server, &path, digest)?;
    }
    for run in 0..bench.runs {
        for peer in bench.turn(run) {
            let dir = in_memory()?;
            let server = bench.start_in(peer, bench.upstream.address(), dir.path())?;
            once(bench, sheet, &server, &what, &path, Sink::Dropped)?;
        }
    }
    Ok(())
}

fn layer(bench: &Bench<'_>, sheet: &mut Sheet) -> Result<()> {
    let layer = bench.upstream.layer();
    let (digest, size) = layer.layer();
    let path = layer.blob_path(digest);
    let what = format!("{} MB", size / 1_000_000);
    for run in 0..bench.runs {
        for peer in bench.turn(run) {
            let (wan, dir) = (wan::link(bench), in_memory()?);
            let server = bench.start_in(peer, wan.address(), dir.path())?;
            // Hashing costs no time that the link would not take.
            let fetched = once(bench, sheet, &server, &what, &path, Sink::Hashed)?;
            if fetched.digest != digest {
                bail!("{} sent other bytes than {digest}\n{}", peer.name(), server.log());
            }
            wan::count(sheet, &what, peer, &wan);
        }
    }
    sheet.note(wan::ABOUT);
    Ok(())
}

fn once(
    bench: &Bench<'_>,
    sheet: &mut Sheet,
    server: &Server,
    what: &str,
    path: &str,
    sink: Sink,
) -> Result<Fetched> {
    let (peer, watch, before) = (server.peer, server.tree().map(Watch::start), server.cpu());
    let fetched: Fetched =
        client::ask(&Task::Fetch { address: server.address, path: path.to_owned(), sink })?;
    sheet.add(what, "s", peer, fetched.total);
    sheet.add(what, "first byte s", peer, fetched.first_byte);
    if let (Some(before), Some(after)) = (before, server.cpu()) {
        sheet.add(what, "CPU s/GB", peer, (after - before) / (fetched.bytes as f64 / 1e9));
    }
    if let Some(watch) = watch {
        sheet.add(what, "peak RssAnon MB", peer, watch.peak_mb());
    }
    bench.say(format_args!(
        "{what}: {}: {:.2} s, first byte after {:.4} s",
        peer.name(),
        fetched.total,
        fetched.first_byte
    ));
    Ok(fetched)
}
