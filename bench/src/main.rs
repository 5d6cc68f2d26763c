//! The bench: what a pull costs through Entrepot, and through what a user would take instead, on the same work in the
//! same run. `bench/README.md` says how to run it and how to read it.

mod bars;
mod bench;
mod cases;
mod client;
mod load;
mod machine;
mod measure;
mod objects;
mod options;
mod peers;
mod report;
mod sheet;
mod stats;
mod summary;
mod table;
mod upstream;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Command, Options};

#[derive(Parser)]
#[command(about = "Measures Entrepot beside its peers; see bench/README.md")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Some(Command::Client { task }) => client::perform(&task),
        None => bench::run(&arguments.options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
