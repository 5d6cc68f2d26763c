//! The command `entrepot`.
#![forbid(unsafe_code)]

mod load;
mod secrets;
mod worker;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use entrepot_core::config;
use entrepot_server::Start;

use load::{Content, Refusal, Source};

/// A pull-through mirror for container registries.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the mirror
    Serve(Choice),
    /// Say all that is wrong with the configuration, and do nothing else
    Check(Choice),
    /// Print the configuration that holds in the end, secrets masked
    Config(Choice),
    /// The mirror at the edge, as a Cloudflare Worker
    #[command(subcommand)]
    Worker(worker::Command),
}

#[derive(Args)]
struct Choice {
    /// The configuration; otherwise the file that ENTREPOT_CONFIG names, ./config.yml, /etc/proxy/config.yml, or the
    /// built-in default, whichever is found first
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The exit status when the configuration is refused; the same as for wrong arguments.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(choice) => serve(choice),
        Command::Check(choice) => check(choice),
        Command::Config(choice) => show(choice),
        Command::Worker(command) => worker::run(command).map(|text| {
            say(&mut std::io::stdout(), &text);
            ExitCode::SUCCESS
        }),
    };
    outcome.unwrap_or_else(|refusal| {
        say(&mut std::io::stderr(), &refusal.to_string());
        ExitCode::from(REFUSED)
    })
}

fn serve(choice: Choice) -> Result<ExitCode, Refusal> {
    let source = Source::find(choice.config)?;
    let read = loaded(&source)?;
    let config = read.loaded.config;
    let file = source.path().map(|path| (path.clone(), read.text));
    let reload = Box::new(move || source.load().map(|read| read.loaded.config).map_err(|e| e.to_string()));
    match entrepot_server::serve(Start { config, file, reload }) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            say(&mut std::io::stderr(), &format!("entrepot: {error:#}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn check(choice: Choice) -> Result<ExitCode, Refusal> {
    let source = Source::find(choice.config)?;
    let read = loaded(&source)?;
    let config = &read.loaded.config;
    let mut lines = vec![format!("configuration: {source}"), format!("endpoint: {}", config.endpoint)];
    lines.extend(config.listen.iter().map(|address| format!("listens on: {address}")));
    lines.extend(config.sources.iter().map(|source| format!("source: {} at {}", source.name, source.url)));
    lines.extend(read.secrets.iter().map(|secret| format!("secret: {secret}")));
    lines.push("ok".into());
    say(&mut std::io::stdout(), &lines.join("\n"));
    Ok(ExitCode::SUCCESS)
}

fn show(choice: Choice) -> Result<ExitCode, Refusal> {
    let source = Source::find(choice.config)?;
    let config = loaded(&source)?.loaded.config;
    say(&mut std::io::stdout(), &format!("# {source}\n{}", config::show(&config).trim_end()));
    Ok(ExitCode::SUCCESS)
}

/// Reads it, and says what it warns of.
fn loaded(source: &Source) -> Result<Content, Refusal> {
    let read = source.load()?;
    for warning in &read.loaded.warnings {
        say(&mut std::io::stderr(), &format!("warning: {warning}"));
    }
    Ok(read)
}

/// Whoever does not read on (`| head`) is no reason to fail.
fn say(to: &mut dyn Write, text: &str) {
    _ = writeln!(to, "{text}");
}
