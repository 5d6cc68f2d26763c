//! What the mirror asks of the file system.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Bench;

/// `strace` on the mirror: every system call that takes a path.
pub struct Trace {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Trace {
    /// `None` where there is no `strace`, which is said.
    pub fn attach(test: &str, bench: &Bench) -> Option<Self> {
        if let Some(missing) = entrepot_testkit::real::missing(test, &["strace"]) {
            missing.report();
            return None;
        }
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut child = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-e",
                "trace=%file",
                "-s",
                "4096",
                "-p",
                &bench.mirror.pid().to_string(),
                "-o",
            ])
            .arg(file.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace starts");
        // It follows the process once /proc says so.
        let status = format!("/proc/{}/status", bench.mirror.pid());
        let traced =
            |text: &str| text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
        let mut attached = false;
        for _ in 0..200 {
            attached = std::fs::read_to_string(&status).is_ok_and(|text| traced(&text));
            if attached {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if !attached {
            let _ = child.kill();
            let output = child.wait_with_output().expect("what strace said");
            panic!("strace does not attach: {}", String::from_utf8_lossy(&output.stderr));
        }
        Some(Self { child, file })
    }

    pub fn assert_nothing_outside(mut self, bench: &Bench) {
        let pid = self.child.id() as libc::pid_t;
        // SAFETY: kill takes no pointers, and the child is not yet reaped. SIGINT makes strace detach and finish its file.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
        let _ = self.child.wait();
        let trace = std::fs::read_to_string(self.file.path()).expect("what strace wrote");
        let home = bench.mirror.config_file().parent().expect("the mirror's directory").to_owned();
        // The resolver, the allocator and the runtime read about the machine; none of that depends on a request.
        const MACHINE: &[&str] =
            &["/proc/", "/sys/", "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime"];
        for line in trace.lines() {
            for path in line.split('"').skip(1).step_by(2) {
                let inside = path.starts_with(&*home.to_string_lossy()) || !path.starts_with('/');
                let machine = MACHINE.iter().any(|start| path.starts_with(start));
                assert!((inside && !path.contains("..")) || machine, "a path outside the store: {line}");
            }
        }
    }
}
