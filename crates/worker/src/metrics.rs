//! `/metrics`: a summary of all isolates, as the ledger counts it.

use std::fmt::Write as _;

use crate::host::Edge;
use crate::ledger::{self, Told};

/// The text that Prometheus reads. `None`: the ledger cannot be asked; the log says why.
pub(crate) async fn text(edge: &Edge) -> Option<String> {
    // Others tell what they have counted at their next request, a minute later at the earliest.
    ledger::flush(edge).await;
    match ledger::ask::<_, Told>(edge, "metrics", &()).await {
        Ok(told) => Some(written(&told)),
        Err(error) => {
            worker::console_error!("the ledger cannot be asked: {error}");
            None
        }
    }
}

/// The series of one family stand together, for `{` comes after all that its name may hold.
fn written(told: &Told) -> String {
    let mut text = String::new();
    let mut family = "";
    for (series, value) in &told.counters {
        let name = series.split('{').next().unwrap_or_default();
        if name != family {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# TYPE {name} counter");
            family = name;
        }
        let _ = writeln!(text, "{series} {value}");
    }
    for (name, value) in [("stored_bytes", told.totals.bytes), ("stored_objects", told.totals.objects)] {
        let _ = writeln!(text, "# TYPE entrepot_{name} gauge\nentrepot_{name} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Totals;

    #[test]
    fn families_stand_together_under_their_type() {
        let series = ["a{x=\"1\"}", "a{x=\"2\"}", "a_b", "a_b_total{y=\"1\"}", "b"];
        let counters = series.iter().zip(1..).map(|(series, value)| ((*series).to_owned(), value)).collect();
        let text = written(&Told { totals: Totals { objects: 2, bytes: 30 }, counters });
        let types = text.lines().filter(|line| line.starts_with("# TYPE"));
        assert_eq!(types.count(), 6, "one for each family:\n{text}");
        assert!(text.contains("# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2\n"), "{text}");
        assert!(text.ends_with("entrepot_stored_objects 2\n"), "{text}");
    }
}
