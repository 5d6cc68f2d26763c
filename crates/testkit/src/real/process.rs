//! Programs: found, started, awaited by condition, bounded in time, ended on drop.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use tempfile::TempDir;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long a daemon may take to end on SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(8);

/// A tool that a test needs and this machine lacks.
#[derive(Debug)]
pub struct Missing {
    test: String,
    tools: Vec<String>,
}

impl Missing {
    /// Says so on the real standard error; panics when `CI=true`, where nothing may be skipped.
    pub fn report(&self) {
        skip(&self.test, &format!("{} not found", self.tools.join(", ")));
    }
}

/// Says on the real standard error that a test does not run, and why; panics when `CI=true`, where nothing may be skipped.
pub fn skip(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}\n");
    // `eprintln!` would be captured by the harness, and a skip nobody sees is a lie.
    let _ = std::io::stderr().write_all(line.as_bytes());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
}

/// `None` when every one of `tools` is installed.
pub fn missing(test: &str, tools: &[&str]) -> Option<Missing> {
    let tools: Vec<String> = tools.iter().filter(|t| find(t).is_none()).map(|t| (*t).to_owned()).collect();
    (!tools.is_empty()).then(|| Missing { test: test.to_owned(), tools })
}

/// The program of this name, in `PATH` or where daemons live.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from));
    places.map(|place| place.join(name)).find(|file| file.is_file())
}

/// A Go program, built by `go install` into the build directory and kept there; `None` without Go or when it does not build.
pub fn go_tool(name: &str, module: &str) -> Option<PathBuf> {
    let folder = build_dir().join("go-tools").join(module.replace(['/', '@', ':'], "_"));
    built_once(&folder.join(name), |go| {
        go.args(["install", module]).env("GOBIN", &folder);
    })
}

/// A Go program of this crate, from the folder `source` in it; `None` without Go or when it does not build.
pub(crate) fn go_program(source: &str) -> Option<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let program = build_dir().join("go-tools").join(source);
    built_once(&program, |go| {
        go.args(["build", "-o"]).arg(&program).arg(".").current_dir(sources);
    })
}

/// Tests run side by side, and in several processes: one builds, the others wait for it.
fn built_once(program: &Path, build: impl FnOnce(&mut Command)) -> Option<PathBuf> {
    let go = find("go")?;
    let folder = program.parent()?;
    std::fs::create_dir_all(folder).expect("the build directory is writable");
    let lock = create(&folder.join(".lock"));
    lock.lock().expect("a file can be locked");
    if !program.is_file() {
        let mut command = Command::new(go);
        build(&mut command);
        let done = run(&mut command, Duration::from_secs(300));
        if !done.success {
            let _ = std::io::stderr().write_all(format!("{command:?}: {}\n", done.text()).as_bytes());
        }
    }
    program.is_file().then(|| program.to_path_buf())
}

/// Cargo's target directory, told from where the test program lies (`<target>/<profile>/deps/<test>`).
fn build_dir() -> PathBuf {
    let program = std::env::current_exe().expect("a test program knows its own path");
    program.ancestors().nth(3).map_or_else(std::env::temp_dir, Path::to_path_buf)
}

/// A new empty directory, removed with everything in it on drop.
pub(crate) fn temp_dir() -> TempDir {
    tempfile::Builder::new().prefix("entrepot-").tempdir().expect("the temporary directory is writable")
}

/// A loopback port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Waits until `condition` holds; `false` when it does not within `limit`.
pub fn until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(POLL);
    }
}

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Both streams, for a message.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// The standard output, or a failure that names `what`.
    pub fn or_fail(self, what: &str) -> Result<String, String> {
        if self.success { Ok(self.stdout) } else { Err(format!("{what} failed: {}", self.text())) }
    }
}

/// Runs a command to its end, or kills it (and what it started) after `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Output {
    let dir = temp_dir();
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    command.stdin(Stdio::null()).stdout(create(&out)).stderr(create(&err)).process_group(0);
    let mut child =
        command.spawn().unwrap_or_else(|e| panic!("cannot start {:?}: {e}", command.get_program()));
    let mut success = false;
    let ended = until(limit, || match child.try_wait() {
        Ok(Some(status)) => {
            success = status.success();
            true
        }
        _ => false,
    });
    let mut stderr = read(&err);
    if !ended {
        signal_group(&child, libc::SIGKILL);
        let _ = child.wait();
        stderr.push_str(&format!("\nkilled: not done within {limit:?}"));
    }
    Output { success, stdout: read(&out), stderr }
}

/// A daemon in its own process group, whose output is kept.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; its output goes to `log`.
    pub fn start(program: impl AsRef<OsStr>, args: &[&str], log: PathBuf) -> Process {
        let mut command = Command::new(program);
        command.args(args);
        Process::of(command, log)
    }

    /// Starts what is ready to be started; its output goes to `log`.
    pub fn of(mut command: Command, log: PathBuf) -> Process {
        let file = create(&log);
        let second = file.try_clone().expect("a file handle can be duplicated");
        command.stdin(Stdio::null()).stdout(file).stderr(second).process_group(0);
        let child =
            command.spawn().unwrap_or_else(|e| panic!("cannot start {:?}: {e}", command.get_program()));
        Process { child, log }
    }

    /// Waits until `condition` holds. `false` when the program ended first, or `limit` passed.
    pub fn ready(&mut self, limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let mut dead = false;
        let met = until(limit, || {
            dead = !matches!(self.child.try_wait(), Ok(None));
            dead || condition()
        });
        met && !dead
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        signal_group(&self.child, libc::SIGTERM);
        if !until(GRACE, || !matches!(self.child.try_wait(), Ok(None))) {
            signal_group(&self.child, libc::SIGKILL);
        }
        let _ = self.child.wait();
        // Whatever the daemon left behind in its group goes with it.
        signal_group(&self.child, libc::SIGKILL);
    }
}

fn signal_group(child: &Child, signal: libc::c_int) {
    let group = libc::pid_t::try_from(child.id()).expect("a process id fits its own type");
    // SAFETY: `kill` takes two integers and touches no memory; the group is the one this process created for its child.
    unsafe { libc::kill(-group, signal) };
}

fn create(path: &Path) -> File {
    File::create(path).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
