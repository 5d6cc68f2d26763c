//! The transcripts through the engine in memory, whose answers the other hosts are held to.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use entrepot_core::upstream::{Fault, Outbound};
use entrepot_testkit::transcript::{
    self, After, Answer, Exchange, Fills, Heard, Host, Request, Script, Transcript,
};

use crate::memory::{Ask, Said, World, get, head};

#[test]
fn transcripts_in_memory() {
    if std::env::var_os("TRANSCRIPTS_WRITE").is_some() {
        transcript::write_all(replay);
    }
    transcript::replay_all(Fills::Followed, |transcript| replay(transcript, Fills::Followed));
}

/// As a Worker fills its store.
#[test]
fn transcripts_in_memory_apart() {
    transcript::replay_all(Fills::Apart, |transcript| replay(transcript, Fills::Apart));
}

fn replay(transcript: &Transcript, fills: Fills) -> Vec<Exchange> {
    let mut host = InMemory::new(transcript);
    if fills == Fills::Apart {
        host.world.store.fill_apart();
    }
    let script = host.script.clone();
    transcript.replay(fills, &mut host, &script)
}

struct InMemory {
    world: World,
    script: Script,
    /// The upstreams that are away.
    away: Rc<RefCell<BTreeSet<String>>>,
}

impl InMemory {
    fn new(transcript: &Transcript) -> InMemory {
        // As upstreams on sockets have them: one host, a port for each.
        let addresses: BTreeMap<String, String> = transcript
            .upstreams()
            .iter()
            .zip(5001..)
            .map(|(name, port)| (name.clone(), format!("http://127.0.0.1:{port}")))
            .collect();
        let keys: Vec<String> =
            transcript.config(&addresses).iter().map(|(key, value)| format!("  {key}: {value}\n")).collect();
        let world = World::new(&keys.concat());
        let script = transcript.script(&addresses);
        let away = Rc::<RefCell<BTreeSet<String>>>::default();
        let (heard, gone) = (script.clone(), away.clone());
        world.upstream.follow(move |request| said(&heard, &addresses, &gone.borrow(), request));
        InMemory { world, script, away }
    }
}

impl Host for InMemory {
    fn ask(&mut self, request: &Request) -> Answer {
        let mut ask = Ask::whole(request.method.parse().unwrap(), &request.target);
        for (name, value) in &request.headers {
            ask = ask.header(name.parse().unwrap(), value);
        }
        if let Some(form) = &request.body {
            ask = ask.form(form);
        }
        let answered = self.world.answer(ask);
        let headers = answered.headers.iter();
        Answer {
            status: answered.status.as_u16(),
            headers: headers
                .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
                .collect(),
            body: answered.body.to_vec(),
            whole: answered.whole,
        }
    }

    fn settle(&mut self, _: &After) {
        self.world.clock.settle();
    }

    fn turn(&mut self, upstream: &str, up: bool) {
        let mut away = self.away.borrow_mut();
        if up {
            away.remove(upstream);
        } else {
            away.insert(upstream.to_owned());
        }
    }
}

fn said(
    script: &Script,
    addresses: &BTreeMap<String, String>,
    away: &BTreeSet<String>,
    request: &Outbound,
) -> Said {
    let url = request.url.as_str();
    let answer = match request.method.as_str() {
        "HEAD" => head(url),
        _ => get(url),
    };
    let (upstream, target) = addresses
        .iter()
        .find_map(|(name, address)| Some((name, url.strip_prefix(address.as_str())?)))
        .unwrap_or_else(|| panic!("a request to an address that is no upstream's: {request:?}"));
    if away.contains(upstream) {
        return answer.fails(Fault::Connect);
    }
    let headers = request.headers.iter();
    let heard = Heard {
        upstream,
        method: request.method.as_str(),
        target,
        headers: headers
            .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
            .collect(),
    };
    let said = script.hear(&heard);
    let answer = answer.status(said.status).bytes(Bytes::from(said.body));
    let answer = if said.unsized_body { answer.unsized_body() } else { answer };
    let answer = said.cut.into_iter().fold(answer, |answer, bytes| answer.cut(bytes));
    said.headers.iter().fold(answer, |answer, (name, value)| answer.header(name.parse().unwrap(), value))
}
