//! Measurements as Markdown.

use std::fmt::Write as _;

use crate::bars::{self, Judgement};
use crate::peers::Peer;
use crate::sheet::{Row, Sheet};
use crate::stats;

/// One row for each thing measured: the median and the spread of every peer, ours divided by each other's, and the bars.
pub(crate) fn markdown(case: &str, sheet: &Sheet) -> String {
    let peers = sheet.peers();
    let others: Vec<Peer> = peers.iter().copied().filter(|peer| *peer != Peer::Entrepot).collect();
    let compared: &[Peer] = if peers.contains(&Peer::Entrepot) { &others } else { &[] };
    let mut head = vec!["what".to_owned(), "measured".to_owned()];
    head.extend(peers.iter().map(|peer| peer.name().to_owned()));
    head.extend(compared.iter().map(|peer| format!("÷ {}", peer.name())));
    head.push("bar".to_owned());
    let mut text = line(&head);
    text.push_str(&line(&vec!["---".to_owned(); head.len()]));
    for row in &sheet.rows {
        let mut cells = vec![row.what.clone(), row.metric.clone()];
        cells.extend(peers.iter().map(|peer| cell(row.of(*peer))));
        cells.extend(compared.iter().map(|peer| {
            stats::ratio(row.of(Peer::Entrepot), row.of(*peer)).map_or_else(|| "–".to_owned(), number)
        }));
        cells.push(verdicts(case, row));
        text.push_str(&line(&cells));
    }
    for note in &sheet.notes {
        let _ = writeln!(text, "\n{note}");
    }
    text
}

/// Every judgement of a case that is not met, with its row.
pub(crate) fn missed(case: &str, sheet: &Sheet) -> Vec<String> {
    let judged = sheet.rows.iter().flat_map(|row| judgements(case, row).map(move |judged| (row, judged)));
    judged
        .filter(|(_, judged)| !judged.met)
        .map(|(row, judged)| format!("{case}: {}: {}: {}", row.what, row.metric, said(&judged)))
        .collect()
}

fn verdicts(case: &str, row: &Row) -> String {
    judgements(case, row).map(|judged| said(&judged)).collect::<Vec<_>>().join("<br>")
}

fn judgements<'a>(case: &'a str, row: &'a Row) -> impl Iterator<Item = Judgement> + 'a {
    bars::of(case, row).filter_map(|bar| bar.judge(row))
}

fn said(judged: &Judgement) -> String {
    let verdict = if judged.met { "met" } else { "**not met**" };
    format!("{} · got {} · {verdict}", judged.bar, number(judged.got))
}

fn cell(values: &[f64]) -> String {
    match (stats::median(values), stats::spread(values)) {
        (Some(median), Some((least, greatest))) if values.len() > 1 => {
            format!("{} [{}..{}]", number(median), number(least), number(greatest))
        }
        (Some(only), _) => number(only),
        _ => "–".to_owned(),
    }
}

/// Three figures that count, or all before the point.
pub(crate) fn number(value: f64) -> String {
    let whole = value.abs();
    let decimals = match whole {
        0.0 => 0,
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.01.. => 3,
        _ => 5,
    };
    format!("{value:.decimals$}")
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_median_spread_ratio_and_bar() {
        let mut sheet = Sheet::default();
        for value in [3.0, 1.0, 2.0] {
            sheet.add("16 connections", "req/s", Peer::Entrepot, value);
        }
        sheet.add("16 connections", "req/s", Peer::Nginx, 4.0);
        sheet.note("A word.");
        let expected = "\
| what | measured | entrepot | nginx | ÷ nginx | bar |
| --- | --- | --- | --- | --- | --- |
| 16 connections | req/s | 2.00 [1.00..3.00] | 4.00 | 0.500 | ≥ 1.2 × nginx · got 0.500 · **not met** |

A word.
";
        assert_eq!(markdown("manifest-tag", &sheet), expected);
        assert_eq!(missed("manifest-tag", &sheet).len(), 1);
    }

    #[test]
    fn numbers_are_as_long_as_they_mean_something() {
        let shown: Vec<String> = [0.0, 0.0012, 0.25, 1.5, 25.04, 61234.5].map(number).into();
        assert_eq!(shown, ["0", "0.00120", "0.250", "1.50", "25.0", "61234"]);
    }
}
