//! The ways in which an upstream fails, and what a client must hear of each.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use entrepot_testkit::script::{Method, Reply, Upstream};

use crate::common::Setup;

/// Short enough for a test, long enough for a busy machine.
pub(crate) const TIMEOUTS: &str = "{ connect: \"2s\", first_byte: \"3s\", stall: \"1s\" }";
/// For upstreams that never answer: nothing is lost by giving up early.
const IMPATIENT: &str = "{ connect: \"200ms\", first_byte: \"300ms\", stall: \"1s\" }";

/// One way to fail, and the answer that it must lead to while nothing is held.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) upstream: Failing,
    /// Any of these: what a resolver says, and how fast, is not ours.
    pub(crate) statuses: &'static [u16],
    pub(crate) code: &'static str,
    /// The least and the most that `Retry-After` may say, if it must be there.
    pub(crate) retry_after: Option<(u64, u64)>,
}

/// An upstream that fails.
pub(crate) enum Failing {
    /// Answers everything with this.
    Scripted(Upstream, Box<Reply>),
    /// Speaks no HTTP.
    Raw(RawServer),
    /// Is not there at all.
    Absent(String),
}

impl Fault {
    fn of(name: &'static str, reply: Reply, statuses: &'static [u16], code: &'static str) -> Fault {
        let upstream = Failing::Scripted(Upstream::start(), Box::new(reply));
        Fault { name, upstream, statuses, code, retry_after: None }
    }

    fn beyond(name: &'static str, upstream: Failing, statuses: &'static [u16]) -> Fault {
        Fault { name, upstream, statuses, code: "UNAVAILABLE", retry_after: None }
    }

    fn saying(mut self, least: u64, most: u64) -> Fault {
        self.retry_after = Some((least, most));
        self
    }

    pub(crate) fn url(&self) -> String {
        match &self.upstream {
            Failing::Scripted(upstream, _) => upstream.url(),
            Failing::Raw(server) => format!("https://{}", server.address),
            Failing::Absent(url) => url.clone(),
        }
    }

    /// Fails from now on, whatever was served before.
    pub(crate) fn begin(&self) {
        if let Failing::Scripted(upstream, reply) = &self.upstream {
            upstream.on(Method::Any, "/*").reply((**reply).clone());
        }
    }

    /// The repository `team/app` of this source, as clients of the mirror spell it.
    pub(crate) fn repository(&self) -> String {
        format!("/v2/{}.test/team/app", self.name)
    }
}

/// Every fault, each at an upstream of its own.
pub(crate) fn all() -> Vec<Fault> {
    let limited = |value: &str| Reply::oci_error(429, "TOOMANYREQUESTS").header("retry-after", value);
    let in_five = SystemTime::now() + Duration::from_secs(5);
    let mut faults = vec![
        Fault::of("r429-seconds", limited("5"), &[429], "TOOMANYREQUESTS").saying(1, 5),
        Fault::of("r429-date", limited(&http_date(in_five)), &[429], "TOOMANYREQUESTS").saying(1, 5),
        Fault::of("r429-absurd", limited("99999999999"), &[429], "TOOMANYREQUESTS").saying(60, 21_600),
        Fault::of("r429-mute", Reply::status(429), &[429], "TOOMANYREQUESTS").saying(1, 900),
        Fault::of("r500", Reply::oci_error(500, "UNKNOWN"), &[502], "UNAVAILABLE"),
        Fault::of("r500-page", page(500), &[502], "UNAVAILABLE"),
        Fault::of("r502", page(502), &[502], "UNAVAILABLE"),
        Fault::of("r503", Reply::status(503).header("retry-after", "30"), &[502], "UNAVAILABLE")
            .saying(1, 30),
        Fault::of("r504", Reply::status(504), &[504], "UNAVAILABLE"),
        Fault::of("r401", Reply::oci_error(401, "UNAUTHORIZED"), &[401], "UNAUTHORIZED"),
        Fault::of("r403", Reply::oci_error(403, "DENIED"), &[403], "DENIED"),
        Fault::of("r418", Reply::status(418), &[502], "UNKNOWN"),
        Fault::of("silent", Reply::status(200).delay(Duration::from_secs(60)), &[504], "UNAVAILABLE"),
        Fault::of("reset", Reply::reset(), &[502], "UNAVAILABLE"),
        Fault::of("hangs-up", Reply::close_before_head(), &[502], "UNAVAILABLE"),
        Fault::of("garbage", Reply::raw("\u{1}\u{2}SSH-2.0-x\r\n\r\n"), &[502], "UNKNOWN"),
    ];
    // An alert of level fatal, handshake_failure; and what a TLS client hears from a plain HTTP server.
    let alert = RawServer::start(b"\x15\x03\x03\x00\x02\x02\x28");
    let plain = RawServer::start(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    let closes = RawServer::start(b"");
    faults.push(Fault::beyond("tls-alert", Failing::Raw(alert), &[502]));
    faults.push(Fault::beyond("tls-plain", Failing::Raw(plain), &[502]));
    faults.push(Fault::beyond("tls-closes", Failing::Raw(closes), &[502]));
    faults.push(Fault::beyond("refused", Failing::Absent(format!("http://{}", free_port())), &[502]));
    faults.push(Fault::beyond("no-name", Failing::Absent("https://registry.invalid".into()), &[502, 504]));
    faults
}

/// Adds each fault as a source `<name>.test`.
pub(crate) fn with_sources(setup: Setup, faults: &[Fault], keys: &[(&str, &str)]) -> Setup {
    faults.iter().fold(setup, |setup, fault| {
        let timeouts = if fault.name == "silent" { IMPATIENT } else { TIMEOUTS };
        let keys: Vec<_> = [("timeouts", timeouts)].iter().chain(keys).copied().collect();
        setup.and_source(fault.name, &fault.url(), &keys)
    })
}

/// A port on which nobody listens.
pub(crate) fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

fn page(status: u16) -> Reply {
    Reply::status(status).header("content-type", "text/html").body("<html><body>nginx</body></html>")
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, which `date` writes.
fn http_date(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let output = std::process::Command::new("date")
        .env("LC_ALL", "C")
        .args(["-u", "-d", &format!("@{seconds}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .output()
        .expect("date runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Reads a little, answers with the same bytes to anyone, and hangs up.
pub(crate) struct RawServer {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl RawServer {
    pub(crate) fn start(says: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                let _ = stream.read(&mut [0; 2048]);
                let _ = stream.write_all(says);
            }
        });
        Self { address, stop }
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}
