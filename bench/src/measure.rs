//! What a server costs: processor time and memory of its process and of all that it started.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A server's first process; the others are found below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree {
    pub(crate) root: u32,
}

impl Tree {
    /// Processor time that those processes which live now have used, user and system together.
    pub(crate) fn cpu(self) -> Duration {
        self.processes().into_iter().filter_map(cpu_of).sum()
    }

    /// Memory of all together in KiB, what they share counted once. Slow where much is mapped.
    pub(crate) fn proportional_kb(self) -> u64 {
        let field = |pid| field(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
        self.processes().into_iter().filter_map(field).sum()
    }

    /// Files and sockets that they have open.
    pub(crate) fn descriptors(self) -> usize {
        let open = |pid| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.processes().into_iter().map(open).sum()
    }

    /// The process and its descendants.
    fn processes(self) -> Vec<u32> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if let Some(parent) = parent_of(pid) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut all = vec![self.root];
        let mut at = 0;
        while at < all.len() {
            all.extend(children.get(&all[at]).into_iter().flatten());
            at += 1;
        }
        all
    }
}

/// Watches anonymous memory, fifty times a second.
#[derive(Debug)]
pub(crate) struct Watch {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(tree: Tree) -> Watch {
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (sampled, stopped) = (peak.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut processes = Vec::new();
            for round in 0_u64.. {
                // All processes of the machine are looked through for that: not each time.
                if round % 25 == 0 {
                    processes = tree.processes();
                }
                let field = |pid| field(&format!("/proc/{pid}/status"), "RssAnon:");
                let now = processes.iter().filter_map(field).sum();
                sampled.fetch_max(now, Ordering::Relaxed);
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Watch { peak, stop, thread: Some(thread) }
    }

    /// The most there was, in MB.
    pub(crate) fn peak_mb(mut self) -> f64 {
        self.end();
        self.peak.load(Ordering::Relaxed) as f64 * 1024.0 / 1e6
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Open files that a server with ten thousand connections may want.
const FILES: u64 = 1 << 17;

/// Lets this process and all that it starts have that many files open, or as many as it may; answers how many.
pub(crate) fn allow_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: each call gets a pointer to a live rlimit.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        let most = FILES.max(limit.rlim_max);
        let most = libc::rlimit { rlim_cur: most, rlim_max: most };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most) != 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
    }
    limit.rlim_cur
}

/// From the process' own clock, which is as fine as the scheduler's; `/proc/<pid>/stat` counts in 10 ms.
fn cpu_of(pid: u32) -> Option<Duration> {
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls get a pointer to a live value of the type that they fill in.
    let known = unsafe {
        libc::clock_getcpuclockid(libc::pid_t::try_from(pid).ok()?, &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    known.then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything; after it come the state and the parent.
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_a_child_uses_counts() {
        let script = "while :; do :; done & while :; do :; done";
        let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
        let tree = Tree { root: child.id() };
        let start = Instant::now();
        while tree.processes().len() < 2 || tree.cpu() < Duration::from_millis(20) {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", tree.cpu());
            std::thread::yield_now();
        }
        assert!(Watch::start(tree).peak_mb() > 0.0 && tree.proportional_kb() > 0);
        for pid in tree.processes().into_iter().rev() {
            // SAFETY: kill takes no pointers; the processes are those that this test started.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        }
        let _ = child.wait();
    }
}
