//! What a developer does with this repository, one command for each thing: `cargo xtask <command>`.

mod bench;
mod fuzz;
mod r#gen;
mod layers;
mod machine;
mod report;
mod run;
mod sources;
mod test;
mod worker;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  test [--quick]     everything that must hold, what it needs installed first; --quick leaves out real clients
  bench […]          what a pull costs beside other mirrors; --help says what may be chosen
  guard [--bless]    whether a hit costs more instructions than it did; --bless: what it costs now is what it may cost
  layers             which crate may depend on which, and what the pure ones may not reach
  gen [--check]      the reference, the sample and the JSON schema of the configuration; --check only compares
  worker build       the Worker's script, ready to be deployed or run
  worker test        the tests of the Worker alone
  worker dev <file>  the Worker on this machine, with that configuration
  fuzz [seconds]     every fuzz target for that long (60 unless told)
";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    std::env::set_current_dir(root).expect("the workspace exists");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["test"] => test::run_all(false),
        ["test", "--quick"] => test::run_all(true),
        ["bench", arguments @ ..] => bench::bench(arguments),
        ["guard"] => test::run_guard(false),
        ["guard", "--bless"] => test::run_guard(true),
        ["layers"] => layers::check(),
        ["gen"] => r#gen::write(),
        ["gen", "--check"] => r#gen::check(),
        ["worker", "build"] => worker::build().map(drop),
        ["worker", "test"] => test::run_worker(),
        ["worker", "dev", config] => worker::dev(Path::new(config)),
        ["fuzz"] => fuzz::targets_for(60),
        ["fuzz", seconds] if seconds.parse::<u64>().is_ok_and(|n| n > 0) => {
            fuzz::targets_for(seconds.parse().unwrap_or(60))
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
