//! Logs: for people on a terminal, JSON otherwise; one line for each request.

mod lines;
mod request;

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use lines::Lines;

pub(crate) use request::request;

/// Where the lines of this process go, unless that is a terminal.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Sets logging up for the process; `ENTREPOT_LOG` says how much (`info`, `debug`, …).
pub fn init() {
    let filter = EnvFilter::try_from_env("ENTREPOT_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,hyper=warn,reqwest=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_timer(SystemTime);
    // A process that already has a subscriber keeps it.
    if std::io::stderr().is_terminal() {
        let _ = builder.with_writer(std::io::stderr).with_target(false).compact().try_init();
        return;
    }
    let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
    match Lines::to_stderr() {
        Ok(lines) => {
            if builder.with_writer(lines.clone()).try_init().is_ok() {
                let _ = LINES.set(lines);
            }
        }
        Err(_) => drop(builder.with_writer(std::io::stderr).try_init()),
    }
}

/// Writes what has not been written yet, before the process ends.
pub(crate) fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}
