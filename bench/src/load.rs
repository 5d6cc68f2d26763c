//! Small requests, as many as a server takes: `wrk`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use entrepot_testkit::real::find;
use serde::Deserialize;

use crate::upstream::ACCEPT;

/// Says as JSON what `wrk` knows; its own text leaves out the last of the percentiles.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"micros":%d,"p50":%f,"p99":%f,"p999":%f,"failed":%d,"refused":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.connect + e.read + e.write + e.timeout, e.status))
end
"#;

/// Has each request say what no other says.
const UNLIKE: &str = r#"
local nth = 0
request = function()
  nth = nth + 1
  wrk.headers["X-Nth"] = nth
  return wrk.format()
end
"#;

/// What `wrk` saw.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    /// How long it took.
    micros: u64,
    /// Percentiles of the latency, in microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// Connections and requests that came to nothing.
    pub(crate) failed: u64,
    /// Answers with another status than 2xx or 3xx.
    refused: u64,
}

impl Load {
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / (self.micros as f64 / 1e6)
    }
}

/// Asks for `path` over and over on so many connections, in the same words if `alike`. `wrk` has one thread: the other processor is
/// the server's.
pub(crate) fn load(
    dir: &Path,
    address: SocketAddr,
    path: &str,
    alike: bool,
    connections: usize,
    spell: Duration,
) -> Result<Load> {
    let script = dir.join("wrk.lua");
    let text = format!("{SCRIPT}{}", if alike { "" } else { UNLIKE });
    std::fs::write(&script, text).with_context(|| script.display().to_string())?;
    let mut command = Command::new(find("wrk").context("wrk is not installed: apt-get install wrk")?);
    command.args(["-t1", "--timeout", "60s", "-c", &connections.to_string()]);
    command.args(["-d", &format!("{}s", spell.as_secs().max(1)), "-H", &format!("Accept: {ACCEPT}"), "-s"]);
    command.arg(script).arg(format!("http://{address}{path}"));
    let output = command.output().context("wrk")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with('{')).with_context(|| format!("wrk: {text}"))?;
    let load: Load = serde_json::from_str(line).with_context(|| format!("wrk: {line}"))?;
    if load.refused > 0 || load.requests == 0 {
        bail!("{address}{path}: {load:?}");
    }
    Ok(load)
}
