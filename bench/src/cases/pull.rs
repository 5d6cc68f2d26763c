//! The typical image, pulled by real clients.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use entrepot_testkit::real::{Dockerd, Skopeo};

use super::{Bench, Case, MEMORY, fetch_and_compare, in_memory, wan};
use crate::measure::Watch;
use crate::peers::{Peer, Server};
use crate::sheet::Sheet;
use crate::upstream::{Stored, TAG};

pub(super) const COLD: Case = Case {
    name: "cold-pull",
    about: "the image of 142 MB in 8 layers, pulled over the WAN by clients that have nothing, through mirrors that have nothing.",
    peers: &[Peer::Nginx, Peer::DockerRegistry, Peer::Direct],
    runs: 3,
    needs: &["dockerd", "skopeo"],
    measure: cold,
};

pub(super) const WARM: Case = Case {
    name: "warm-pull",
    about: "the same image, which the mirrors hold; `direct` is over the WAN as ever.",
    peers: &[Peer::Nginx, Peer::DockerRegistry, Peer::Direct],
    runs: 5,
    needs: &["dockerd", "skopeo"],
    measure: warm,
};

const CLIENTS: [(&str, Pull); 2] = [("dockerd", by_docker), ("skopeo", by_skopeo)];

/// Pulls, and answers the seconds that it took.
type Pull = fn(SocketAddr, &Stored) -> Result<f64>;

fn cold(bench: &Bench<'_>, sheet: &mut Sheet) -> Result<()> {
    let typical = bench.upstream.typical();
    for run in 0..bench.runs {
        for (what, pull) in CLIENTS {
            for peer in bench.turn(run) {
                let (wan, dir) = (wan::link(bench), in_memory()?);
                let server = bench.start_in(peer, wan.address(), dir.path())?;
                timed(bench, sheet, &server, what, pull)?;
                wan::count(sheet, what, peer, &wan);
                if run == 0 {
                    // What it stored is what it was given.
                    let (digest, _) = typical.layer();
                    fetch_and_compare(&server, &typical.blob_path(digest), digest)?;
                }
            }
        }
    }
    sheet.note(wan::ABOUT);
    Ok(())
}

fn warm(bench: &Bench<'_>, sheet: &mut Sheet) -> Result<()> {
    let typical = bench.upstream.typical();
    let mut servers = Vec::new();
    for &peer in &bench.peers {
        let wan = wan::link(bench);
        let server = bench.start(peer, wan.address())?;
        if peer != Peer::Direct {
            by_skopeo(server.address, typical)?;
        }
        servers.push((server, wan));
    }
    for run in 0..bench.runs {
        for (what, pull) in CLIENTS {
            for peer in bench.turn(run) {
                let Some((server, _)) = servers.iter().find(|(server, _)| server.peer == peer) else {
                    continue;
                };
                if peer != Peer::Direct {
                    // The page cache may have lost some of it meanwhile.
                    for blob in &typical.image.blobs {
                        fetch_and_compare(server, &typical.blob_path(&blob.digest), &blob.digest)?;
                    }
                }
                timed(bench, sheet, server, what, pull)?;
            }
        }
    }
    sheet.note(wan::ABOUT);
    Ok(())
}

fn timed(bench: &Bench<'_>, sheet: &mut Sheet, server: &Server, what: &str, pull: Pull) -> Result<()> {
    let (peer, watch, before) = (server.peer, server.tree().map(Watch::start), server.cpu());
    let seconds = pull(server.address, bench.upstream.typical())
        .with_context(|| format!("through {}\n{}", peer.name(), server.log()))?;
    sheet.add(what, "s", peer, seconds);
    if let (Some(before), Some(after)) = (before, server.cpu()) {
        sheet.add(what, "CPU s", peer, after - before);
    }
    if let Some(watch) = watch {
        sheet.add(what, "peak RssAnon MB", peer, watch.peak_mb());
    }
    bench.say(format_args!("{what}: {}: {seconds:.2} s", peer.name()));
    Ok(())
}

/// By a daemon that has never seen it: it keeps manifests beyond an image's removal.
fn by_docker(address: SocketAddr, stored: &Stored) -> Result<f64> {
    let docker =
        Dockerd::on_overlayfs(MEMORY.as_ref()).map_err(|log| anyhow!("dockerd does not start: {log}"))?;
    seconds(docker.docker(&["pull", "--quiet", &format!("{address}/{}:{TAG}", stored.repository)]))
}

/// Into a directory; it takes one layer after the other.
fn by_skopeo(address: SocketAddr, stored: &Stored) -> Result<f64> {
    let dir = in_memory()?;
    let mut command = Skopeo::command(None, dir.path());
    command.args(["copy", "--quiet", "--preserve-digests", "--src-tls-verify=false"]);
    command.arg(format!("docker://{address}/{}:{TAG}", stored.repository));
    command.arg(format!("dir:{}", dir.path().join("copy").display()));
    seconds(command)
}

fn seconds(mut command: Command) -> Result<f64> {
    command.stdin(Stdio::null());
    let start = Instant::now();
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let took = start.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(took)
}
