//! A large layer that everyone holds.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, bail};
use entrepot_testkit::real::fetch;

use super::{Bench, Case, fetch_and_compare, lay_out};
use crate::client::{self, Fetched, Flood, Part, Sink, Task};
use crate::measure::Watch;
use crate::peers::{Peer, Server};
use crate::sheet::Sheet;

pub(super) const WARM: Case = Case {
    name: "blob-warm",
    about: "a layer of 2 GB that everyone holds, in the page cache, over plain HTTP/1.1. Dropped: the clients let the kernel drop \
            the bytes (`MSG_TRUNC`); copied: they read them.",
    peers: &[Peer::Nginx, Peer::Static],
    runs: 5,
    needs: &[],
    measure: warm,
};

pub(super) const RANGES: Case = Case {
    name: "ranges",
    about: "random ranges of 1 MiB of the same layer on 16 connections; the clients let the kernel drop the bytes.",
    measure: ranges,
    ..WARM
};

/// Bytes of a range.
const RANGE: u64 = 1 << 20;

fn ranges(bench: &Bench<'_>, sheet: &mut Sheet) -> Result<()> {
    let big = bench.upstream.big();
    let (digest, size) = big.layer();
    let path = big.blob_path(digest);
    let servers = holding(bench, &path, digest)?;
    let (what, part) = ("16 connections", Some(Part { length: RANGE, of: size }));
    for server in &servers {
        compare_range(bench, server, &path, digest, size)?;
    }
    for run in 0..bench.runs {
        for peer in bench.turn(run) {
            let server = servers.iter().find(|server| server.peer == peer);
            let Some(server) = server else { continue };
            let (address, path, spell) = (server.address, path.clone(), bench.scale.spell);
            // The page cache may have lost some of it meanwhile.
            let _: Fetched = client::ask(&Task::Fetch { address, path: path.clone(), sink: Sink::Dropped })?;
            let before = server.cpu();
            let task = Task::Flood { address, path, clients: 16, sink: Sink::Dropped, spell, part };
            let flood: Flood = client::ask(&task)?;
            let rate = flood.requests as f64 / flood.seconds;
            sheet.add(what, "req/s", peer, rate);
            if let (Some(before), Some(after)) = (before, server.cpu()) {
                sheet.add(what, "CPU s/GB", peer, (after - before) / (flood.bytes as f64 / 1e9));
            }
            bench.say(format_args!("{what}: {}: {rate:.0} req/s", peer.name()));
        }
    }
    Ok(())
}

fn warm(bench: &Bench<'_>, sheet: &mut Sheet) -> Result<()> {
    let big = bench.upstream.big();
    let (digest, size) = big.layer();
    let path = big.blob_path(digest);
    let servers = holding(bench, &path, digest)?;
    for run in 0..bench.runs {
        for clients in [1, 8, 64] {
            for (sink, word) in [(Sink::Dropped, "dropped"), (Sink::Copied, "copied")] {
                let plural = if clients == 1 { "" } else { "s" };
                let what = format!("{clients} client{plural}, {word}");
                for peer in bench.turn(run) {
                    let server = servers.iter().find(|server| server.peer == peer);
                    let Some(server) = server else { continue };
                    measure(bench, sheet, server, &what, &path, clients, sink)?;
                }
            }
        }
    }
    sheet.note(format!(
        "{size} bytes; each measurement lasts {:?}, after an untimed reading.",
        bench.scale.spell
    ));
    Ok(())
}

/// A range in the middle, with what upstream's own file has there.
fn compare_range(bench: &Bench<'_>, server: &Server, path: &str, digest: &str, size: u64) -> Result<()> {
    let first = size / 2 + 7;
    let url = format!("http://{}{path}", server.address);
    let range = format!("bytes={first}-{}", first + RANGE - 1);
    let fetched = fetch("GET", &url, &[("range", &range)]).map_err(anyhow::Error::msg)?;
    let mut there = vec![0; RANGE as usize];
    File::open(bench.upstream.file_of(digest))?.read_exact_at(&mut there, first)?;
    if (fetched.status, &fetched.body) != (206, &there) {
        bail!("{} sent other bytes for {range}: {}\n{}", server.peer.name(), fetched.status, server.log());
    }
    Ok(())
}

fn measure(
    bench: &Bench<'_>,
    sheet: &mut Sheet,
    server: &Server,
    what: &str,
    path: &str,
    clients: usize,
    sink: Sink,
) -> Result<()> {
    let address = server.address;
    // The page cache may have lost some of it meanwhile.
    let _: Fetched = client::ask(&Task::Fetch { address, path: path.to_owned(), sink: Sink::Dropped })?;
    let (watch, before) = (server.tree().map(Watch::start), server.cpu());
    let spell = bench.scale.spell;
    let flood: Flood =
        client::ask(&Task::Flood { address, path: path.to_owned(), clients, sink, spell, part: None })?;
    let gigabytes = flood.bytes as f64 / 1e9;
    sheet.add(what, "GB/s", server.peer, gigabytes / flood.seconds);
    if let (Some(before), Some(after)) = (before, server.cpu()) {
        sheet.add(what, "CPU s/GB", server.peer, (after - before) / gigabytes);
    }
    if let Some(watch) = watch {
        sheet.add(what, "peak RssAnon MB", server.peer, watch.peak_mb());
    }
    bench.say(format_args!("{what}: {}: {:.2} GB/s", server.peer.name(), gigabytes / flood.seconds));
    Ok(())
}

/// All peers, each with the large layer in its store, and found to serve it whole.
fn holding(bench: &Bench<'_>, path: &str, digest: &str) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for &peer in &bench.peers {
        if peer == Peer::Static {
            lay_out(bench, bench.upstream.big())?;
        }
        let server = bench.start(peer, bench.upstream.address())?;
        // Once to fill it, once from what it stored.
        fetch_and_compare(&server, path, digest)?;
        fetch_and_compare(&server, path, digest)?;
        servers.push(server);
    }
    Ok(servers)
}
