//! Clients that stay: on connections that rest, or on streams that they hardly read.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use sha2::{Digest as _, Sha256};

use super::Sink;
use super::wire::Connection;

/// Between two sips of all streams.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of each stream at a time.
const SIP: u64 = 4096;

/// Asks for `path` on so many connections; says so when everyone has an answer, and stays until standard input ends. Whoever
/// sips has read but the beginning by then, and goes on slowly.
pub(super) fn hold(
    address: SocketAddr,
    path: &str,
    connections: usize,
    sip: bool,
    ready: impl FnOnce(),
) -> Result<()> {
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut connection = Connection::open(address)?;
        let head = connection.get(path, None)?;
        if head.status != 200 {
            bail!("{address}{path}: {}", head.status);
        }
        let length = if sip { SIP } else { head.length };
        connection.body(length, Sink::Dropped, &mut Sha256::new(), |_| true)?;
        held.push(connection);
    }
    ready();
    // Everything goes with the process, in the midst of whatever it does.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    loop {
        std::thread::sleep(PAUSE);
        for connection in held.iter_mut().filter(|_| sip) {
            connection.body(SIP, Sink::Dropped, &mut Sha256::new(), |_| true)?;
        }
    }
}
