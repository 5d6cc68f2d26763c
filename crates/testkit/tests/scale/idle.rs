use std::fs;
use std::time::Duration;

use entrepot_testkit::limits::bytes_read;

use crate::common::Bench;

/// Somebody reads the configuration: that is no reason to read it again and again.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_mirror_rests() {
    let bench = Bench::new();
    let pid = bench.mirror.pid();
    let (read, cpu) = (bytes_read(pid), bench.mirror.cpu_time());
    fs::read(bench.mirror.config_file()).expect("a configuration");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (read, cpu) = (bytes_read(pid) - read, bench.mirror.cpu_time() - cpu);
    assert!(read < 1_000_000, "{read} bytes read in two seconds");
    assert!(cpu < Duration::from_secs(1), "{cpu:?} of processor time in two seconds");
}
