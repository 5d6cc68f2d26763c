//! Where and with what something was measured.

use std::fs;
use std::process::Command;

use serde::Serialize;

use entrepot_testkit::mirror::binary;
use entrepot_testkit::real::find;

/// What stands beside every table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_gb: f64,
    pub(crate) kernel: String,
    /// What the kernel uses where nobody chooses: over loopback, too, `bbr` paces what is sent by timers.
    pub(crate) congestion_control: String,
    pub(crate) system: String,
    /// Processes that ran or waited when the bench began, on average over a minute.
    pub(crate) load: f64,
    pub(crate) versions: Vec<(&'static str, String)>,
}

impl Machine {
    pub(crate) fn here() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let memory_kb = value(&meminfo, "MemTotal", ':').trim_end_matches(" kB").parse().unwrap_or(0.0);
        Machine {
            commit: commit(),
            date: said("date", &["-u", "+%Y-%m-%d"]),
            processor: value(&cpuinfo, "model name", ':'),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gb: (memory_kb * 1024.0 / 1e8_f64).round() / 10.0,
            kernel: said("uname", &["-sr"]),
            congestion_control: fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
                .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned()),
            system: value(&release, "PRETTY_NAME", '=').trim_matches('"').to_owned(),
            load: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            versions: versions(),
        }
    }
}

/// The commit's short name; with `-changed` where something else was built.
fn commit() -> String {
    let name = said("git", &["rev-parse", "--short=8", "HEAD"]);
    let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    if changed { format!("{name}-changed") } else { name }
}

fn versions() -> Vec<(&'static str, String)> {
    let asked: [(&str, &[&str]); 6] = [
        ("nginx", &["-v"]),
        ("docker-registry", &["--version"]),
        ("dockerd", &["--version"]),
        ("skopeo", &["--version"]),
        ("wrk", &["-v"]),
        ("rustc", &["--version"]),
    ];
    let ours = said(&binary().display().to_string(), &["--version"]);
    let others = asked.into_iter().filter_map(|(name, arguments)| {
        let program = find(name)?.display().to_string();
        Some((name, said(&program, arguments)))
    });
    std::iter::once(("entrepot", ours)).chain(others).collect()
}

/// The first line of what a program says, on whichever stream; empty if it cannot be run.
fn said(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return String::new();
    };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

/// Of the first line that begins with `name`: what comes after `separator`.
fn value(text: &str, name: &str, separator: char) -> String {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(separator).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}
