//! What is tried again, how often, and what a failure is called.

use super::*;
use crate::failure::Reason;
use crate::upstream::Breaker;

fn fails(ask: Ask, said: Said) -> (Reason, usize) {
    let mut world = World::new(move |_: &Outbound| said.clone());
    let failure = world.ask(ask).unwrap_err();
    assert!(failure.public.contains("library/nginx"), "{failure}");
    (failure.reason, world.sent.len())
}

#[test]
fn t_uf1_every_trouble_has_its_class_and_its_number_of_tries() {
    for (said, reason, sent) in [
        (http(500, &[]), Reason::UpstreamServerError, 2),
        (http(501, &[]), Reason::UpstreamUnsupported, 1),
        (http(502, &[]), Reason::UpstreamServerError, 3),
        (http(503, &[]), Reason::UpstreamServerError, 3),
        (http(504, &[]), Reason::UpstreamTimeout, 3),
        (http(507, &[]), Reason::UpstreamServerError, 1),
        (http(408, &[]), Reason::UpstreamTimeout, 3),
        (http(425, &[]), Reason::UpstreamServerError, 3),
        (http(429, &[]), Reason::UpstreamRateLimited, 1),
        (http(401, &[]), Reason::UpstreamUnauthorized, 1),
        (http(403, &[]), Reason::UpstreamDenied, 1),
        (http(451, &[]), Reason::UpstreamDenied, 1),
        (http(405, &[]), Reason::UpstreamUnsupported, 1),
        (http(400, &[]), Reason::UpstreamBadAnswer, 1),
        (Said::Fault(Fault::Connect), Reason::UpstreamUnreachable, 3),
        (Said::Fault(Fault::Reset), Reason::UpstreamUnreachable, 3),
        (Said::Fault(Fault::Dns), Reason::UpstreamNameUnresolved, 3),
        (Said::Fault(Fault::Timeout), Reason::UpstreamTimeout, 3),
        (Said::Fault(Fault::Stalled), Reason::UpstreamTimeout, 3),
        (Said::Fault(Fault::BadFraming), Reason::UpstreamBadAnswer, 3),
        (Said::Fault(Fault::Tls), Reason::UpstreamTls, 1),
        (Said::Fault(Fault::PrivateAddress), Reason::UpstreamUnreachable, 1),
    ] {
        for method in [Verb::Get, Verb::Head] {
            assert_eq!(fails(tag(hub(), method), said.clone()), (reason, sent), "{said:?}");
        }
        assert_eq!(fails(blob(hub(), Verb::Get), said.clone()), (reason, sent), "{said:?}");
        assert!(!reason.is_absence());
    }
}

#[test]
fn absence_is_named_by_what_was_asked_and_by_the_registry() {
    let named = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"m"}]}"#;
    let referrers = || ask(hub(), Verb::Get, What::Referrers(DIGEST.parse().unwrap(), String::new()));
    let tags = || ask(hub(), Verb::Get, What::Tags(String::new()));
    for (ask, body, reason) in [
        (tag(hub(), Verb::Get), "", Reason::ManifestUnknown),
        (tag(hub(), Verb::Get), "<html>", Reason::ManifestUnknown),
        (tag(hub(), Verb::Get), named, Reason::NameUnknown),
        (tag(hub(), Verb::Head), "", Reason::ManifestUnknown),
        (blob(hub(), Verb::Get), "", Reason::BlobUnknown),
        (blob(hub(), Verb::Head), "", Reason::BlobUnknown),
        (blob(hub(), Verb::Get), named, Reason::BlobUnknown),
        (tags(), "", Reason::NameUnknown),
        (referrers(), "", Reason::UpstreamUnsupported),
        (referrers(), named, Reason::NameUnknown),
        (tag(hub(), Verb::Get), &"x".repeat(70_000), Reason::ManifestUnknown),
    ] {
        assert_eq!(fails(ask, http(404, &[]).body(body)), (reason, 1));
    }
}

#[test]
fn t_uf6_waits_grow_with_jitter_and_heed_the_registry() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let mut world = World::new(|_: &Outbound| http(503, &[]));
        world.seed = seed;
        world.ask(tag(hub(), Verb::Get)).unwrap_err();
        let [first, second] = world.waits[..] else { panic!() };
        assert!(first <= Duration::from_millis(500) && second <= Duration::from_secs(1));
        seen.insert(first);
    }
    assert!(seen.len() > 20, "no jitter");
    let run = |after: &str| {
        let mut world = World::new(|_: &Outbound| http(503, &[("retry-after", after)]));
        let failure = world.ask(tag(hub(), Verb::Get)).unwrap_err();
        (world.waits.clone(), failure.retry_after.unwrap_or_default().as_secs())
    };
    assert_eq!(run("4").0, [Duration::from_secs(4); 2]);
    assert_eq!(run("6"), (vec![], 6));
    assert_eq!(run("99999999999999999999"), (vec![], 3600));
    assert_eq!(run("Sun, 06 Nov 1994 08:49:37 GMT").1, 0);
    // The world begins on 15 January 2027 at 08:00.
    assert_eq!(run("Fri, 15 Jan 2027 08:01:00 GMT"), (vec![], 60));
    assert_eq!(run("Fri, 15 Jan 2066 08:01:00 GMT"), (vec![], 3600));
    assert_eq!(run("whenever").0.len(), 2);
}

#[test]
fn a_retry_that_succeeds_is_a_success() {
    let mut said = vec![http(200, &MANIFEST), Said::Fault(Fault::Reset), http(503, &[])];
    let mut script = |_: &Outbound| said.pop().unwrap();
    let mut world = World::new(&mut script);
    world.ask(tag(hub(), Verb::Get)).unwrap();
}

#[test]
fn alternates_come_before_waiting_and_their_no_counts_for_nothing() {
    let source =
        || Source { alternates: vec![url("https://a.example.com"), url("https://b.example.com")], ..hub() };
    let mut world = World::new(|request: &Outbound| match request.url.host_str().unwrap() {
        "registry-1.docker.io" => http(503, &[]),
        "a.example.com" => http(404, &[]),
        _ => http(200, &MANIFEST),
    });
    assert_eq!(world.ask(tag(source(), Verb::Get)).unwrap().upstream, url("https://b.example.com/"));
    assert!(world.waits.is_empty());

    for no in [401, 403, 404, 429, 500] {
        let mut world = World::new(|request: &Outbound| match request.url.host_str().unwrap() {
            "registry-1.docker.io" => Said::Fault(Fault::Timeout),
            _ => http(no, &[]),
        });
        let failure = world.ask(tag(source(), Verb::Get)).unwrap_err();
        assert_eq!(failure.reason, Reason::UpstreamTimeout);
        assert!(failure.public.contains("registry-1.docker.io"));
        assert_eq!(world.sent.len(), 3);
    }
    // What the registry itself denies is denied.
    for (no, reason) in
        [(401, Reason::UpstreamUnauthorized), (403, Reason::UpstreamDenied), (404, Reason::ManifestUnknown)]
    {
        assert_eq!(fails(tag(source(), Verb::Get), http(no, &[])), (reason, 1));
    }
}

#[test]
fn t_uf6_the_breaker_opens_probes_and_closes() {
    let healthy = std::cell::Cell::new(false);
    let mut world = World::new(|_: &Outbound| match healthy.get() {
        true => http(200, &MANIFEST),
        false => Said::Fault(Fault::Connect),
    });
    world.ask(tag(hub(), Verb::Get)).unwrap_err();
    assert_eq!(world.state.health(world.now)[0].breaker, Breaker::Closed);
    let failure = world.ask(tag(hub(), Verb::Get)).unwrap_err();
    assert_eq!((failure.reason, world.sent.len()), (Reason::UpstreamUnreachable, 5));
    let Breaker::Open { retry_at } = world.state.health(world.now)[0].breaker else { panic!() };
    assert_eq!(retry_at, world.now.mono.plus(Duration::from_secs(1)));
    let failure = world.ask(tag(hub(), Verb::Get)).unwrap_err();
    assert_eq!((failure.reason, world.sent.len()), (Reason::UpstreamSuspended, 5));
    assert_eq!(failure.retry_after, Some(Duration::from_secs(1)));

    // Each failed probe doubles the pause.
    let mut pauses = vec![];
    for _ in 0..7 {
        let Breaker::Open { retry_at } = world.state.health(world.now)[0].breaker else { panic!() };
        let pause = retry_at.since(world.now.mono);
        pauses.push(pause.as_secs());
        world.pass(pause);
        let before = world.sent.len();
        assert_eq!(world.ask(tag(hub(), Verb::Get)).unwrap_err().reason, Reason::UpstreamUnreachable);
        assert_eq!(world.sent.len(), before + 1, "one probe");
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);

    // Half open: one is let through, the others are not; its success closes the breaker.
    world.pass(Duration::from_secs(30));
    assert_eq!(world.state.health(world.now)[0].breaker, Breaker::HalfOpen);
    let mut probe = Exchange::new(tag(hub(), Verb::Get));
    let step = probe.step(&mut world.state, world.now, 0, Input::Start);
    assert!(matches!(step, Step::Send(_)));
    assert_eq!(world.ask(tag(hub(), Verb::Get)).unwrap_err().reason, Reason::UpstreamSuspended);
    healthy.set(true);
    world.go_on(&mut probe, step).unwrap();
    assert_eq!(world.state.health(world.now)[0].breaker, Breaker::Closed);
    world.ask(tag(hub(), Verb::Get)).unwrap();
}

/// A probe whose conversation was dropped does not keep the breaker open for ever.
#[test]
fn t_uf6_a_lost_probe_is_replaced() {
    let mut world = World::new(|_: &Outbound| Said::Fault(Fault::Connect));
    let _ = (world.ask(tag(hub(), Verb::Get)), world.ask(tag(hub(), Verb::Get)));
    world.pass(Duration::from_secs(1));
    let start = |world: &mut World<_>| {
        let mut exchange = Exchange::new(tag(hub(), Verb::Get));
        matches!(exchange.step(&mut world.state, world.now, 0, Input::Start), Step::Send(_))
    };
    assert!(start(&mut world));
    assert!(!start(&mut world));
    world.pass(Duration::from_secs(30));
    assert!(start(&mut world));
}

/// Ten minutes of outage, a thousand clients, each asking every forty seconds.
#[test]
fn t_uf6_an_outage_is_not_amplified() {
    for said in [http(503, &[]), Said::Fault(Fault::Timeout), http(408, &[]), http(425, &[])] {
        let mut world = World::new(|_: &Outbound| said.clone());
        let mut asked = 0_usize;
        for _ in 0..600 {
            for _ in 0..25 {
                let mut exchange = Exchange::new(tag(hub(), Verb::Get));
                let (now, mut step) = (world.now, Step::Wait(Duration::ZERO));
                let mut input = Some(Input::Start);
                // Waits take no time here, so that retries of all clients compete.
                while !matches!(step, Step::Done(_)) {
                    let next = input.take().unwrap_or(Input::Waited);
                    step = exchange.step(&mut world.state, now, 7, next);
                    if let Step::Send(request) = step {
                        input = Some(world.send(request, &mut String::new()));
                        step = Step::Wait(Duration::ZERO);
                    }
                }
                asked += 1;
            }
            world.pass(Duration::from_secs(1));
        }
        assert!(world.sent.len() * 10 <= asked * 11, "{said:?}: {} for {asked}", world.sent.len());
    }
}

#[test]
fn inputs_out_of_turn_are_an_internal_failure() {
    let mut state = UpstreamState::new();
    let now = Now::default();
    for input in [Input::Waited, Input::Fault(Fault::Reset), Input::Small(Ok(Bytes::new()))] {
        let mut exchange = Exchange::new(tag(hub(), Verb::Get));
        let Step::Done(Err(failure)) = exchange.step(&mut state, now, 0, input) else { panic!() };
        assert_eq!(failure.reason, Reason::Internal);
    }
}
