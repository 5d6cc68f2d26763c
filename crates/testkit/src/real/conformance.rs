//! The OCI conformance suite in read-only mode, against a mirror whose upstream the same suite has filled.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::{TempDir, go_tool, run, temp_dir};
use super::push::Fetched;
use super::registry::{Credentials, Registry};

/// A commit of the suite. In read-only mode it panics while it writes its YAML report, after the report on standard output,
/// which is the one read here.
const SUITE: &str =
    "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111";
const RUN: Duration = Duration::from_secs(300);
const ROOT: &str = "OCI Conformance Test";

/// The repository that the suite fills, by the origin's own name.
pub const REPOSITORY: &str = "conformance/one";

/// What is in the origin's repository.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    pub tags: BTreeSet<String>,
    pub manifests: BTreeSet<String>,
    pub blobs: BTreeSet<String>,
    /// Digests that something refers to.
    pub subjects: BTreeSet<String>,
    /// Whether the origin has the referrers API. Without, a mirror may answer 404, and the suite would object.
    pub referrers: bool,
}

/// What the suite found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Names of the tests that passed, one entry for each time.
    pub passed: Vec<String>,
    /// Names and findings of the tests that did not.
    pub failed: Vec<(String, String)>,
}

/// The suite as a program.
#[derive(Debug)]
pub struct Suite {
    program: PathBuf,
    /// Where it leaves reports of its own.
    dir: TempDir,
}

impl Suite {
    /// Builds it once into the build directory. `None`, with the reason on standard error, where that fails.
    pub fn build() -> Option<Suite> {
        let program = go_tool("conformance", SUITE)?;
        Some(Suite { program, dir: temp_dir() })
    }

    /// Lets the suite push all it has into `origin`, and lists what is there then. Registries differ in what they take; what
    /// one refuses is not listed.
    pub fn fill(&self, origin: &Registry) -> Inventory {
        let mut command = self.command(&origin.address(), REPOSITORY);
        command.env("OCI_REPO2", "conformance/two");
        if origin.tokens().is_some() {
            command
                .env("OCI_USERNAME", Credentials::TEST.username)
                .env("OCI_PASSWORD", Credentials::TEST.password);
        }
        let done = run(&mut command, RUN);
        let inventory = Inventory::of(origin).unwrap_or_else(|e| panic!("{e}\n{}", done.text()));
        assert!(inventory.manifests.len() > 20, "too little was pushed: {inventory:#?}\n{}", done.text());
        inventory
    }

    /// Reads everything listed from `repository` of the registry at `address`, as the suite does.
    pub fn read(&self, address: &str, repository: &str, inventory: &Inventory) -> Report {
        let list = |items: &BTreeSet<String>| items.iter().cloned().collect::<Vec<_>>().join(" ");
        let mut command = self.command(address, repository);
        command.env("OCI_API_PUSH", "false");
        command.env("OCI_RO_DATA_TAGS", list(&inventory.tags));
        command.env("OCI_RO_DATA_MANIFESTS", list(&inventory.manifests));
        command.env("OCI_RO_DATA_BLOBS", list(&inventory.blobs));
        if inventory.referrers {
            command.env("OCI_RO_DATA_REFERRERS", list(&inventory.subjects));
        } else {
            command.env("OCI_API_REFERRER", "false");
        }
        let done = run(&mut command, RUN);
        let report = Report::parse(&done.stdout);
        // Each object is read by HEAD and by GET.
        let least = 2 * (inventory.tags.len() + inventory.manifests.len() + inventory.blobs.len());
        let seen = report.passed.len() + report.failed.len();
        assert!(seen >= least, "{seen} results for {least} reads: {}", done.text());
        report
    }

    fn command(&self, address: &str, repository: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("OCI_REGISTRY", address).env("OCI_TLS", "disabled").env("OCI_REPO1", repository);
        command.env("OCI_VERSION", "1.1").env("OCI_RESULTS_DIR", self.dir.path());
        for deletes in ["OCI_API_BLOBS_DELETE", "OCI_API_MANIFESTS_DELETE", "OCI_API_TAGS_DELETE"] {
            command.env(deletes, "false");
        }
        command
    }
}

impl Report {
    /// The findings, one a line.
    pub fn failures(&self) -> String {
        self.failed.iter().map(|(name, finding)| format!("{name}: {finding}\n")).collect()
    }

    /// The tree under `Test results`, of which only the leaves are tests.
    fn parse(text: &str) -> Report {
        let lines: Vec<&str> = text.lines().skip_while(|l| *l != "Test results").skip(1).collect();
        let end = lines.iter().position(|line| line.is_empty()).unwrap_or(lines.len());
        let mut report = Report { passed: vec![], failed: vec![] };
        let result = |line: &str| {
            let (name, status) = line.trim_start().rsplit_once(": ")?;
            name.starts_with(ROOT)
                .then(|| (name.to_owned(), status.to_owned(), line.len() - line.trim_start().len()))
        };
        for (at, line) in lines[..end].iter().enumerate() {
            let Some((name, status, depth)) = result(line) else {
                continue;
            };
            let rest = &lines[at + 1..end];
            if rest.iter().find_map(|line| result(line)).is_some_and(|(_, _, next)| next > depth) {
                continue;
            }
            match status.as_str() {
                "Pass" => report.passed.push(name),
                "FAIL" | "Error" | "Unknown" => {
                    let finding: Vec<&str> =
                        rest.iter().take_while(|l| result(l).is_none()).map(|l| l.trim()).collect();
                    report.failed.push((name, finding.join(" ")));
                }
                _ => {}
            }
        }
        report
    }
}

impl Inventory {
    fn of(origin: &Registry) -> Result<Inventory, String> {
        let mut inventory = Inventory::default();
        let tags = json(&origin.ask(REPOSITORY, "tags/list")?)?;
        let mut pending: Vec<String> = vec![];
        for tag in tags["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            inventory.tags.insert(tag.to_owned());
            pending.push(tag.to_owned());
        }
        while let Some(reference) = pending.pop() {
            if inventory.manifests.contains(&reference) {
                continue;
            }
            let found = origin.ask(REPOSITORY, &format!("manifests/{reference}"))?;
            if found.status == 404 {
                continue;
            }
            let digest = found.header("docker-content-digest").map_or(reference, str::to_owned);
            if inventory.manifests.insert(digest.clone()) {
                pending.extend(inventory.enter(origin, &digest, &json(&found)?)?);
            }
        }
        // A descriptor may name what was never pushed.
        inventory.blobs = inventory.present(origin)?;
        Ok(inventory)
    }

    /// Notes what a manifest names; the digests of further manifests.
    fn enter(&mut self, origin: &Registry, digest: &str, manifest: &Value) -> Result<Vec<String>, String> {
        let named = |value: &Value| value["digest"].as_str().map(str::to_owned);
        let list =
            |key: &str| manifest[key].as_array().into_iter().flatten().filter_map(named).collect::<Vec<_>>();
        self.blobs.extend(named(&manifest["config"]));
        self.blobs.extend(list("layers"));
        let mut further = list("manifests");
        if let Some(subject) = named(&manifest["subject"]) {
            self.subjects.insert(subject.clone());
            further.push(subject);
        }
        let referrers = origin.ask(REPOSITORY, &format!("referrers/{digest}"))?;
        if referrers.status == 200 {
            self.referrers = true;
            let referrers = json(&referrers)?;
            further.extend(referrers["manifests"].as_array().into_iter().flatten().filter_map(named));
        }
        Ok(further)
    }

    fn present(&self, origin: &Registry) -> Result<BTreeSet<String>, String> {
        let mut present = BTreeSet::new();
        for digest in &self.blobs {
            if origin.ask(REPOSITORY, &format!("blobs/{digest}"))?.status == 200 {
                present.insert(digest.clone());
            }
        }
        Ok(present)
    }
}

fn json(answer: &Fetched) -> Result<Value, String> {
    serde_json::from_slice(&answer.body).map_err(|e| format!("not JSON ({e}): {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leaves_are_results() {
        let text = "Test results\nOCI Conformance Test: FAIL\n  OCI Conformance Test/ping: Pass\n  OCI Conformance Test/read: FAIL\n    \
                    OCI Conformance Test/read/blob: FAIL\n     - status 500\nmissing header\n    OCI Conformance Test/read/tag: Pass\n    \
                    OCI Conformance Test/read/off: Disabled\n\nConfiguration:\n  OCI Conformance Test/no: Pass\n";
        let report = Report::parse(text);
        assert_eq!(report.passed, ["OCI Conformance Test/ping", "OCI Conformance Test/read/tag"]);
        let finding = "- status 500 missing header".to_owned();
        assert_eq!(report.failed, [("OCI Conformance Test/read/blob".to_owned(), finding)]);
    }
}
