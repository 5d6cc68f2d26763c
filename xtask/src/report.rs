//! The steps of `cargo xtask test`, their times, and the line that sums them up.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How a step ended when it did not fail.
pub(crate) enum Done {
    Passed,
    /// Passed but for tests that did not run; each as `name: why`.
    PassedBut(Vec<String>),
    /// Passed but for `tests`, which failed beside others and passed alone, and for those that did not run.
    Unsteady {
        tests: Vec<String>,
        skips: Vec<String>,
    },
    /// Did not run, and need not: it is not counted.
    Optional(String),
}

#[derive(Default)]
pub(crate) struct Report {
    passed: Vec<(String, Duration)>,
    failed: Vec<(String, String)>,
    skipped: Vec<String>,
    unsteady: Vec<String>,
    optional: Vec<String>,
}

impl Report {
    /// Runs a step under its own heading. Answers whether it did not fail.
    pub(crate) fn step(&mut self, name: &str, step: impl FnOnce() -> Result<Done>) -> bool {
        println!("\n==== {name} ====");
        let start = Instant::now();
        let outcome = step();
        let took = start.elapsed();
        let word = match outcome {
            Ok(Done::Passed) => {
                self.passed.push((name.to_owned(), took));
                "passed"
            }
            Ok(Done::PassedBut(skips)) => {
                self.passed.push((name.to_owned(), took));
                self.skipped.extend(skips);
                "passed"
            }
            Ok(Done::Unsteady { tests, skips }) => {
                self.passed.push((name.to_owned(), took));
                self.skipped.extend(skips);
                self.unsteady.extend(tests.iter().map(|test| format!("{name}: {test}")));
                "passed, unsteadily"
            }
            Ok(Done::Optional(why)) => {
                self.optional.push(format!("{name}: {why}"));
                "left out (optional)"
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                self.failed.push((name.to_owned(), format!("{error:#}")));
                "FAILED"
            }
        };
        println!("---- {name}: {word} in {:.1} s", took.as_secs_f64());
        !word.starts_with('F')
    }

    /// Prints the summary, whose last line is `N passed, N failed, N skipped`. An error if a step failed, or, with
    /// `CI=true`, if anything was skipped.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n==== summary ====");
        for (name, took) in &self.passed {
            println!("passed   {:>7.1} s  {name}", took.as_secs_f64());
        }
        for left_out in &self.optional {
            println!("optional            {left_out}");
        }
        for test in &self.unsteady {
            println!("UNSTEADY            {test}: failed beside others, passed alone");
        }
        for skip in &self.skipped {
            println!("SKIPPED             {skip}");
        }
        for (name, why) in &self.failed {
            println!("FAILED              {name}: {}", why.lines().next().unwrap_or_default());
        }
        let strict = std::env::var("CI").is_ok_and(|value| value == "true");
        if strict && !self.skipped.is_empty() {
            println!("with CI=true nothing may be skipped");
        }
        println!(
            "{} passed, {} failed, {} skipped",
            self.passed.len(),
            self.failed.len(),
            self.skipped.len()
        );
        if !self.failed.is_empty() {
            bail!("a step failed");
        }
        if strict && !self.skipped.is_empty() {
            bail!("a test was skipped");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_fails_the_run_and_an_optional_one_counts_for_nothing() {
        let mut report = Report::default();
        assert!(report.step("good", || Ok(Done::Passed)));
        assert!(report.step("left out", || Ok(Done::Optional("not installed".into()))));
        let unsteady = || Ok(Done::Unsteady { tests: vec!["now and then".into()], skips: Vec::new() });
        assert!(report.step("unsteady", unsteady));
        assert_eq!(report.unsteady, ["unsteady: now and then"]);
        assert!(!report.step("bad", || bail!("broken")));
        assert_eq!((report.passed.len(), report.failed.len(), report.skipped.len()), (2, 1, 0));
        assert!(report.finish().is_err());
        assert!(Report::default().finish().is_ok());
    }
}
