//! A run as a document: what was measured, where, and with what.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use crate::cases::Case;
use crate::machine::Machine;
use crate::options::Options;
use crate::sheet::Sheet;
use crate::table;

/// A run.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Machine,
    quick: bool,
    access_log: bool,
    pub(crate) cases: Vec<Measured>,
    saved: Option<PathBuf>,
}

/// A case that was run.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) case: &'static Case,
    pub(crate) sheet: Sheet,
    pub(crate) seconds: f64,
}

impl Measured {
    pub(crate) fn markdown(&self) -> String {
        let (name, about, table) =
            (self.case.name, self.case.about, table::markdown(self.case.name, &self.sheet));
        format!("## {name}\n\n{about}\n\n{table}")
    }
}

impl Report {
    pub(crate) fn new(machine: Machine, options: &Options) -> Report {
        let (quick, access_log) = (options.quick, options.access_log);
        Report { machine, quick, access_log, cases: Vec::new(), saved: None }
    }

    /// Writes what there is to `<date>-<commit>.md` and `.json` in `dir`, or, if another run is there, under the next name.
    pub(crate) fn save(&mut self, dir: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let name = format!("{}-{}", self.machine.date, self.machine.commit);
        let free = || {
            let names = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}-{n}")));
            names.map(|name| dir.join(format!("{name}.md"))).find(|path| !path.exists())
        };
        let path = self.saved.clone().or_else(free).context("a free name")?;
        std::fs::write(&path, self.markdown()).with_context(|| path.display().to_string())?;
        let json = path.with_extension("json");
        std::fs::write(&json, serde_json::to_string_pretty(&self.json())?)
            .with_context(|| json.display().to_string())?;
        self.saved = Some(path.clone());
        Ok(path)
    }

    /// The bars that are not met.
    pub(crate) fn missed(&self) -> Vec<String> {
        self.cases.iter().flat_map(|measured| table::missed(measured.case.name, &measured.sheet)).collect()
    }

    fn markdown(&self) -> String {
        let machine = &self.machine;
        let mut text = format!("# Bench of {}, {}\n\n", machine.commit, machine.date);
        if self.quick {
            text.push_str("**A quick run: its figures mean nothing.**\n\n");
        }
        let _ = writeln!(
            text,
            "{} × {}, {} GB, {}, TCP by {}, {}, load {:.2} at the beginning. {}",
            machine.processors,
            machine.processor,
            machine.memory_gb,
            machine.kernel,
            machine.congestion_control,
            machine.system,
            machine.load,
            if self.access_log {
                "Everyone writes a line for each request."
            } else {
                "Nobody logs requests."
            }
        );
        for (name, version) in &machine.versions {
            let _ = write!(text, "\n- {name}: {version}");
        }
        text.push_str("\n\nMedian [least..greatest]; `÷` is ours divided by theirs, by medians. How to read it: bench/README.md.\n");
        for measured in &self.cases {
            let _ = write!(text, "\n{}", measured.markdown());
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let cases: Vec<_> = self.cases.iter().map(case_json).collect();
        json!({ "machine": self.machine, "quick": self.quick, "access_log": self.access_log, "cases": cases })
    }
}

fn case_json(measured: &Measured) -> impl Serialize + use<> {
    json!({
        "case": measured.case.name,
        "seconds": measured.seconds,
        "sheet": measured.sheet,
        "missed": table::missed(measured.case.name, &measured.sheet),
    })
}
