//! The short table for the README.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::peers::Peer;
use crate::report::Report;
use crate::stats::median;
use crate::table::number;

const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";

/// What is told: words, case, circumstances, metric, unit.
const ROWS: &[(&str, &str, &str, &str, &str)] = &[
    ("142 MB in 8 layers over a long link, cold, `docker pull`", "cold-pull", "dockerd", "s", "s"),
    ("the same, warm", "warm-pull", "dockerd", "s", "s"),
    ("one layer of 256 MB over that link, cold", "cold-layer", "256 MB", "s", "s"),
    ("50 clients at once, cold: the slowest", "herd-50", "50 clients", "slowest client s", "s"),
    ("the same: fetched from upstream", "herd-50", "50 clients", "upstream MB", "MB"),
    ("manifests by tag, 16 connections", "manifest-tag", "16 connections", "req/s", "/s"),
    ("the same, no two requests alike", "manifest-unlike", "16 connections", "req/s", "/s"),
    ("a warm layer of 2 GB, 8 clients", "blob-warm", "8 clients, dropped", "GB/s", "GB/s"),
    ("the same: processor time", "blob-warm", "8 clients, dropped", "CPU s/GB", "s/GB"),
    ("memory at rest", "idle", "idle", "RssAnon MB", "MB"),
];

/// The table, of the rows that were measured; empty if none was.
pub(crate) fn block(report: &Report) -> String {
    let measured = |case: &str, what: &str, metric: &str| {
        let sheet = &report.cases.iter().find(|measured| measured.case.name == case)?.sheet;
        sheet.rows.iter().find(|row| row.what == what && row.metric == metric)
    };
    let rows: Vec<_> = ROWS
        .iter()
        .filter_map(|(words, case, what, metric, unit)| Some((words, measured(case, what, metric)?, unit)))
        .collect();
    let mut peers: Vec<Peer> =
        rows.iter().flat_map(|(_, row, _)| row.cells.iter().map(|(peer, _)| *peer)).collect();
    peers.sort();
    peers.dedup();
    if peers.is_empty() {
        return String::new();
    }
    let mut text = String::from("|");
    for peer in &peers {
        let _ = write!(text, " | {}", peer.name());
    }
    text.push_str(" |\n|---");
    text.push_str(&"|---".repeat(peers.len()));
    text.push_str("|\n");
    for (words, row, unit) in rows {
        let _ = write!(text, "| {words}");
        for peer in &peers {
            match median(row.of(*peer)) {
                Some(value) => _ = write!(text, " | {} {unit}", number(value)),
                None => text.push_str(" | –"),
            }
        }
        text.push_str(" |\n");
    }
    text
}

/// Puts a block between the marks of a document, in place of what stands there.
pub(crate) fn write(document: &Path, block: &str) -> Result<()> {
    let text = std::fs::read_to_string(document).with_context(|| document.display().to_string())?;
    let text = replaced(&text, block).with_context(|| document.display().to_string())?;
    std::fs::write(document, text).with_context(|| document.display().to_string())
}

fn replaced(text: &str, block: &str) -> Result<String> {
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = parts else {
        bail!("no place for the table: put `{BEGIN}` and `{END}` on lines of their own where it shall stand");
    };
    Ok(format!("{before}{BEGIN}\n{block}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_the_marks_is_replaced_and_nothing_else() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replaced(&text, "| new |\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n| new |\n{END}\nb\n"));
        assert_eq!(replaced(&new, "| new |\n").unwrap(), new);
        assert!(replaced("a\n", "b").is_err());
        assert!(replaced(&format!("{END}{BEGIN}"), "b").is_err());
    }
}
