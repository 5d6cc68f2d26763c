//! A manifest that everyone holds, asked for as fast as they answer.

use anyhow::Result;
use entrepot_testkit::wan::Wan;

use super::{Bench, Case, fetch_and_compare, lay_out};
use crate::load::{Load, load};
use crate::peers::{Peer, Server};
use crate::sheet::Sheet;
use crate::upstream::TAG;

pub(super) const BY_TAG: Case = Case {
    name: "manifest-tag",
    about: "the manifest of the 8-layer image by its tag, which everyone holds and believes, with `wrk` on one thread.",
    peers: PEERS,
    runs: 5,
    needs: &["wrk"],
    measure: |bench, sheet| measure(bench, sheet, TAG, true, &[1, 16, 256]),
};

pub(super) const BY_DIGEST: Case = Case {
    name: "manifest-digest",
    about: "the same manifest by its digest.",
    measure: |bench, sheet| {
        measure(bench, sheet, bench.upstream.typical().image.digest(), true, &[1, 16, 256])
    },
    ..BY_TAG
};

pub(super) const UNLIKE: Case = Case {
    name: "manifest-unlike",
    about: "by tag, each request with a header that no other has: no answer to one can be given to another.",
    peers: &[Peer::Nginx],
    measure: |bench, sheet| measure(bench, sheet, TAG, false, &[16]),
    ..BY_TAG
};

const PEERS: &[Peer] = &[Peer::Nginx, Peer::Static, Peer::DockerRegistry];

/// `alike`: all requests are the same, as those of machines that pull one image.
fn measure(
    bench: &Bench<'_>,
    sheet: &mut Sheet,
    reference: &str,
    alike: bool,
    connections: &[usize],
) -> Result<()> {
    let typical = bench.upstream.typical();
    let path = typical.manifest_path(reference);
    // docker-registry asks upstream for every tag that it is asked for: what that costs depends on the way.
    let wan = Wan::start(bench.upstream.address());
    let start = |peer: Peer| -> Result<Server> {
        let server = bench.start(peer, wan.address())?;
        fetch_and_compare(&server, &path, typical.image.digest())?;
        Ok(server)
    };
    if bench.peers.contains(&Peer::Static) {
        lay_out(bench, typical)?;
    }
    let mut servers = bench.peers.iter().map(|&peer| start(peer)).collect::<Result<Vec<_>>>()?;
    for run in 0..bench.runs {
        for &connections in connections {
            let what = format!("{connections} connection{}", if connections == 1 { "" } else { "s" });
            for peer in bench.turn(run) {
                let Some(at) = servers.iter().position(|server| server.peer == peer) else { continue };
                if peer == Peer::DockerRegistry {
                    // It goes on working for clients that have left: those of the last measurement.
                    drop(servers.remove(at));
                    servers.insert(at, start(peer)?);
                }
                let load = |server: &Server| {
                    load(bench.dir.path(), server.address, &path, alike, connections, bench.scale.spell)
                };
                sample(bench, sheet, &servers[at], &what, load)?;
            }
        }
    }
    Ok(())
}

fn sample(
    bench: &Bench<'_>,
    sheet: &mut Sheet,
    server: &Server,
    what: &str,
    load: impl FnOnce(&Server) -> Result<Load>,
) -> Result<()> {
    let peer = server.peer;
    let before = server.cpu();
    let load = load(server)?;
    let cpu = before.zip(server.cpu()).map(|(before, after)| after - before);
    sheet.add(what, "req/s", peer, load.rate());
    if let Some(cpu) = cpu {
        sheet.add(what, "CPU s/10k", peer, cpu / load.requests as f64 * 1e4);
    }
    for (metric, micros) in [("p50 ms", load.p50), ("p99 ms", load.p99), ("p99.9 ms", load.p999)] {
        sheet.add(what, metric, peer, micros / 1e3);
    }
    if load.failed > 0 {
        sheet.note(format!(
            "{}, {what}: {} connections or requests came to nothing.",
            peer.name(),
            load.failed
        ));
    }
    bench.say(format_args!("{what}: {}: {:.0} req/s", peer.name(), load.rate()));
    Ok(())
}
