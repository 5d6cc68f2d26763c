//! A replay over sockets: scripted upstreams on addresses of their own, and a mirror at some URL before them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::{After, Answer, Heard, Host, Request, Said, Script, Transcript};
use crate::http;
use crate::script::{Reply, Upstream};

/// The upstreams of one transcript.
#[derive(Debug)]
pub struct Sockets {
    upstreams: BTreeMap<String, Upstream>,
    pub script: Script,
    /// The upstreams' URLs by name.
    pub addresses: BTreeMap<String, String>,
}

/// A mirror whose upstreams those are.
pub struct Over<'a> {
    sockets: &'a Sockets,
    url: String,
    runtime: Runtime,
    settled: Box<Settled<'a>>,
    /// How long requests upstream that are still to come are waited for: once in vain, never again.
    patience: Duration,
}

type Settled<'a> = dyn Fn(Option<&str>) + 'a;

const PATIENCE: Duration = Duration::from_secs(3);

impl Sockets {
    pub fn start(transcript: &Transcript) -> Sockets {
        let upstreams: BTreeMap<String, Upstream> =
            transcript.upstreams().iter().map(|name| (name.clone(), Upstream::start())).collect();
        let addresses: BTreeMap<String, String> =
            upstreams.iter().map(|(name, upstream)| (name.clone(), upstream.url())).collect();
        let script = transcript.script(&addresses);
        for (name, upstream) in &upstreams {
            let (name, script) = (name.clone(), script.clone());
            upstream.guard(move |request| {
                let heard = Heard {
                    upstream: &name,
                    method: &request.method,
                    target: &request.target,
                    headers: request.headers.iter().cloned().collect(),
                };
                Some(reply(script.hear(&heard)))
            });
        }
        Sockets { upstreams, script, addresses }
    }

    /// The mirror at `url`. `settled` waits until the work that outlives an answer is done, which has put the blob with the
    /// digest into the store if there is one.
    pub fn before<'a>(&'a self, url: String, settled: impl Fn(Option<&str>) + 'a) -> Over<'a> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for the client");
        Over { sockets: self, url, runtime, settled: Box::new(settled), patience: PATIENCE }
    }
}

impl std::fmt::Debug for Over<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Over").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Host for Over<'_> {
    fn ask(&mut self, ask: &Request) -> Answer {
        let mut call = http::request(&ask.method, format!("{}{}", self.url, ask.target));
        for (name, value) in &ask.headers {
            call = if name == "host" { call.host(value) } else { call.header(name, value) };
        }
        if let Some(body) = &ask.body {
            call = call.body(body.as_str());
        }
        let answer = self.runtime.block_on(call.send());
        Answer {
            status: answer.status,
            headers: answer.head.headers,
            body: answer.body,
            whole: answer.clean_end,
        }
    }

    fn settle(&mut self, after: &After) {
        let (script, start) = (&self.sockets.script, Instant::now());
        while script.asked() < after.asked {
            if start.elapsed() >= self.patience {
                self.patience = Duration::ZERO;
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // What is not what its name says is not stored.
        (self.settled)(after.fills.as_deref().filter(|digest| script.has_sent(digest)));
    }

    fn turn(&mut self, upstream: &str, up: bool) {
        let upstream = &self.sockets.upstreams[upstream];
        if up { upstream.resume() } else { upstream.stop() }
    }
}

fn reply(said: Said) -> Reply {
    let reply = Reply::status(said.status).body(said.body);
    let reply = said.headers.iter().fold(reply, |reply, (name, value)| reply.header(name, value));
    let reply = if said.unsized_body { reply.chunked() } else { reply };
    match said.cut {
        Some(after) => reply.truncate_after(after as u64),
        None => reply,
    }
}
