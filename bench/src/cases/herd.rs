//! Many who want the same at once, and nobody has it.

use anyhow::Result;

use super::{Bench, Case, fetch_and_compare, in_memory, wan};
use crate::client::{self, Herd, Task};
use crate::measure::Watch;
use crate::peers::Peer;
use crate::sheet::Sheet;
use crate::stats::{median, spread};
use crate::upstream::TAG;

pub(super) const FIFTY: Case = Case {
    name: "herd-50",
    about: "50 clients at once pull the image of 142 MB in 8 layers, which nobody holds, over the WAN: manifest, configuration, then \
            three layers at a time, on kept connections.",
    peers: &[Peer::Nginx],
    runs: 3,
    needs: &[],
    measure: |bench, sheet| measure(bench, sheet, 50),
};

pub(super) const FIVE_HUNDRED: Case = Case {
    name: "herd-500",
    about: "the same with 500 clients.",
    measure: |bench, sheet| measure(bench, sheet, 500),
    ..FIFTY
};

fn measure(bench: &Bench<'_>, sheet: &mut Sheet, clients: usize) -> Result<()> {
    let typical = bench.upstream.typical();
    let clients = if bench.options.quick { clients / 10 } else { clients };
    let image: u64 = typical.image.blobs.iter().map(|blob| blob.size).sum();
    let what = format!("{clients} clients");
    for run in 0..bench.runs {
        for peer in bench.turn(run) {
            let (wan, dir) = (wan::link(bench), in_memory()?);
            let server = bench.start_in(peer, wan.address(), dir.path())?;
            let (watch, before) = (server.tree().map(Watch::start), server.cpu());
            let (repository, tag) = (typical.repository.to_owned(), TAG.to_owned());
            let herd: Herd = client::ask(&Task::Herd { address: server.address, repository, tag, clients })?;
            let cpu = before.zip(server.cpu()).map(|(before, after)| after - before);
            let expected = image * clients as u64;
            if let Some(failure) = herd.failures.first() {
                let failed = herd.failures.len();
                sheet.note(format!("{}: {failed} of {clients} clients failed: {failure}", peer.name()));
            }
            let fetched = wan.bytes_down() as f64 / image as f64;
            sheet.add(&what, "upstream ÷ image", peer, fetched);
            wan::count(sheet, &what, peer, &wan);
            let slowest = spread(&herd.clients).map_or(f64::NAN, |(_, most)| most);
            sheet.add(&what, "slowest client s", peer, slowest);
            sheet.add(&what, "median client s", peer, median(&herd.clients).unwrap_or(f64::NAN));
            sheet.add(&what, "first layer byte s", peer, median(&herd.first_layers).unwrap_or(f64::NAN));
            let worst = herd.first_bytes.values().filter_map(|waits| median(waits)).max_by(f64::total_cmp);
            sheet.add(&what, "worst first byte s", peer, worst.unwrap_or(f64::NAN));
            sheet.add(&what, "delivered ÷ asked", peer, herd.bytes as f64 / expected as f64);
            if let Some(cpu) = cpu {
                sheet.add(&what, "CPU s/GB", peer, cpu / (herd.bytes as f64 / 1e9));
            }
            if let Some(watch) = watch {
                sheet.add(&what, "peak RssAnon MB", peer, watch.peak_mb());
            }
            bench.say(format_args!(
                "{what}: {}: slowest after {slowest:.2} s, {fetched:.3} images fetched",
                peer.name()
            ));
            if run == 0 {
                for blob in &typical.image.blobs {
                    fetch_and_compare(&server, &typical.blob_path(&blob.digest), &blob.digest)?;
                }
            }
        }
    }
    sheet.note(wan::ABOUT);
    sheet.note("Worst first byte: of each blob the median over the clients, from when they asked for it; of these the longest.");
    Ok(())
}
