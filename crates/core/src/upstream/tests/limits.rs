//! Pull limits, abuse limits and the budget.

use super::*;
use crate::failure::Reason;

const PULL_LIMIT: &str = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}"#;

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

fn quota(remaining: &str) -> Said {
    http(
        200,
        &[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", remaining), ("content-length", "3")],
    )
}

#[test]
fn t_rl7_the_budget_is_read_and_kept() {
    for (remaining, low) in
        [("100;w=21600", false), ("11;w=21600", false), ("10;w=21600", true), ("0;w=21600", true)]
    {
        for method in [Verb::Get, Verb::Head] {
            let mut world = World::new(|_: &Outbound| quota(remaining));
            assert!(!world.state.budget_low(&hub(), world.now));
            world.ask(tag(hub(), method)).unwrap();
            assert_eq!(world.state.budget_low(&hub(), world.now), low, "{remaining}");
            assert!(!world.state.budget_low(&account(), world.now), "an account has its own");
        }
    }
}

#[test]
fn t_rl7_a_pull_that_would_be_refused_is_not_sent() {
    let mut world = World::new(|_: &Outbound| quota("0;w=21600"));
    world.ask(tag(hub(), Verb::Get)).unwrap();
    let failure = world.ask(tag(hub(), Verb::Get)).unwrap_err();
    assert_eq!((failure.reason, world.sent.len()), (Reason::BudgetExhausted, 1));
    assert!(failure.retry_after.unwrap() <= minutes(60) && failure.retry_after.unwrap() > minutes(59));
    // HEAD and blobs are free.
    world.ask(tag(hub(), Verb::Head)).unwrap();
    world.ask(blob(hub(), Verb::Get)).unwrap();
    assert_eq!(world.sent.len(), 3);
    // After an hour it is worth asking again.
    world.pass(minutes(61));
    world.ask(tag(hub(), Verb::Get)).unwrap();
}

#[test]
fn t_rl7_a_head_tells_that_pulls_are_granted_again() {
    let mut remaining = vec!["50;w=21600", "0;w=21600"];
    let mut script = |_: &Outbound| quota(remaining.pop().unwrap_or("49;w=21600"));
    let mut world = World::new(&mut script);
    world.ask(tag(hub(), Verb::Get)).unwrap();
    assert!(world.ask(tag(hub(), Verb::Get)).is_err());
    world.ask(tag(hub(), Verb::Head)).unwrap();
    world.ask(tag(hub(), Verb::Get)).unwrap();
}

/// Pulls under way count, though their answers are not there yet.
#[test]
fn t_rl7_concurrent_pulls_do_not_overdraw() {
    let mut world = World::new(|_: &Outbound| quota("3;w=21600"));
    world.ask(tag(hub(), Verb::Head)).unwrap();
    let mut sent = 0;
    for _ in 0..10 {
        let mut exchange = Exchange::new(tag(hub(), Verb::Get));
        sent +=
            usize::from(matches!(exchange.step(&mut world.state, world.now, 0, Input::Start), Step::Send(_)));
    }
    assert_eq!(sent, 3);
}

#[test]
fn t_rl7_no_headers_no_limit() {
    let mut said = vec![http(200, &MANIFEST), quota("5;w=21600")];
    let mut script = |_: &Outbound| said.pop().unwrap();
    let mut world = World::new(&mut script);
    world.ask(tag(hub(), Verb::Get)).unwrap();
    assert!(world.state.budget_low(&hub(), world.now));
    world.ask(tag(hub(), Verb::Get)).unwrap();
    assert!(!world.state.budget_low(&hub(), world.now));
}

#[test]
fn t_rl8_a_used_up_pull_limit_stops_pulls_only() {
    let mut world =
        World::new(|request: &Outbound| match request.method == http::Method::GET && !is_blob(request) {
            true => http(429, &[]).body(PULL_LIMIT),
            false => http(200, &[]),
        });
    let failure = world.ask(tag(hub(), Verb::Get)).unwrap_err();
    assert_eq!((failure.reason, world.sent.len()), (Reason::UpstreamRateLimited, 1));
    assert_eq!(failure.retry_after, Some(minutes(15)));
    assert!(failure.public.contains("account"), "{failure}");
    assert_eq!(world.ask(tag(hub(), Verb::Get)).unwrap_err().reason, Reason::BudgetExhausted);
    assert_eq!(world.sent.len(), 1);
    world.ask(blob(hub(), Verb::Get)).unwrap();
    world.ask(tag(hub(), Verb::Head)).unwrap();
}

#[test]
fn t_rl8_an_abuse_limit_stops_everything_for_a_short_while() {
    for (headers, wait) in
        [(&[][..], 15), (&[("retry-after", "3")], 3), (&[("retry-after", "999999999999")], 3600)]
    {
        let mut world = World::new(|_: &Outbound| http(429, headers).body("Too Many Requests (HAP429)"));
        let failure = world.ask(tag(hub(), Verb::Get)).unwrap_err();
        assert_eq!(failure.reason, Reason::UpstreamRateLimited);
        assert_eq!(failure.retry_after, Some(Duration::from_secs(wait)));
        for other in [blob(hub(), Verb::Get), tag(hub(), Verb::Head), tag(hub(), Verb::Get)] {
            assert_eq!(world.ask(other).unwrap_err().reason, Reason::UpstreamRateLimited);
        }
        assert_eq!(world.sent.len(), 1, "never at once again");
        world.pass(Duration::from_secs(wait));
        let _ = world.ask(tag(hub(), Verb::Get));
        assert_eq!(world.sent.len(), 2);
        assert!(!world.state.budget_low(&hub(), world.now), "it says nothing about pulls");
    }
}

#[test]
fn t_rl8_a_lasting_abuse_limit_doubles_the_pause() {
    let mut world = World::new(|_: &Outbound| http(429, &[]));
    let mut waits = vec![];
    for _ in 0..5 {
        let wait = world.ask(tag(hub(), Verb::Head)).unwrap_err().retry_after.unwrap();
        waits.push(wait.as_secs());
        world.pass(wait);
    }
    assert_eq!(waits, [15, 30, 60, 120, 120]);
    world.pass(minutes(10));
    assert_eq!(world.ask(tag(hub(), Verb::Head)).unwrap_err().retry_after, Some(Duration::from_secs(15)));
}

#[test]
fn limits_are_what_alternates_are_for() {
    let source = || Source { alternates: vec![url("https://mirror.gcr.io")], ..hub() };
    let mut world = World::new(|request: &Outbound| match request.url.host_str() {
        Some("mirror.gcr.io") => http(200, &MANIFEST),
        _ => http(429, &[]).body(PULL_LIMIT),
    });
    world.ask(tag(source(), Verb::Get)).unwrap();
    world.ask(tag(source(), Verb::Get)).unwrap();
    assert_eq!(world.sent.len(), 3);
}

fn is_blob(request: &Outbound) -> bool {
    request.url.path().contains("/blobs/")
}

/// T-RL7: what one node was told holds for another, until its time has passed.
#[test]
fn t_rl7_one_node_tells_another() {
    let mut told = World::new(|_: &Outbound| quota("0;w=600"));
    told.ask(tag(hub(), Verb::Get)).unwrap();
    let suspensions = told.state.suspensions(told.now);
    let until = told.now.wall.plus(minutes(10));
    let of = Suspended::Pulls { source: hub().name.to_string(), credentialed: false };
    let expected = Suspension { of, until };
    assert_eq!(suspensions, [expected]);

    let mut other = World::new(|_: &Outbound| quota("50;w=21600"));
    other.state.suspend(&suspensions[0], other.now);
    assert_eq!(other.ask(tag(hub(), Verb::Get)).unwrap_err().reason, Reason::BudgetExhausted);
    other.ask(tag(account(), Verb::Get)).unwrap();
    assert_eq!(other.sent.len(), 1, "an account has its own");
    other.pass(minutes(11));
    other.ask(tag(hub(), Verb::Get)).unwrap();
    // A word that is late changes nothing.
    other.state.suspend(&suspensions[0], other.now);
    assert!(other.state.suspensions(other.now).is_empty());
}

/// T-RL8: an abuse limit holds for everything at that registry, and for every node.
#[test]
fn t_rl8_one_node_tells_another_of_an_abuse_limit() {
    let mut told = World::new(|_: &Outbound| http(429, &[("retry-after", "90"), ("content-length", "0")]));
    told.ask(blob(hub(), Verb::Get)).unwrap_err();
    let suspensions = told.state.suspensions(told.now);
    let [Suspension { of: Suspended::Origin(_), until }] = &suspensions[..] else {
        panic!("{suspensions:?}")
    };
    assert!(*until > told.now.wall.plus(Duration::from_secs(80)));

    let mut other = World::new(|_: &Outbound| quota("50;w=21600"));
    other.state.suspend(&suspensions[0], other.now);
    assert!(other.ask(blob(hub(), Verb::Get)).is_err());
    assert_eq!(other.sent.len(), 0);
    other.pass(minutes(2));
    other.ask(blob(hub(), Verb::Get)).unwrap();
}
