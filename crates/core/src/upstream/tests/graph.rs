//! Random networks of hostile hosts.

use proptest::prelude::*;

use super::*;

/// Hosts, declared and not. The first is the registry, the second its token host.
const HOSTS: &[&str] = &[
    "https://registry-1.docker.io",
    "https://auth.docker.io",
    "http://registry-1.docker.io",
    "http://auth.docker.io",
    "https://auth.docker.io:8443",
    "https://auth.docker.io.evil.com",
    "https://evil-docker.io",
    "https://cdn.example.com",
    "https://mirror.example.com",
    "https://user@auth.docker.io",
    "https://127.0.0.1",
    "https://localhost",
];

#[derive(Clone, Debug)]
enum Move {
    Redirect(u16, usize),
    Bearer(usize),
    Basic,
    Both(usize),
    Status(u16),
    Fault(Fault),
    Fine,
}

fn a_move() -> impl Strategy<Value = Move> {
    let host = 0..HOSTS.len();
    prop_oneof![
        3 => (prop::sample::select(vec![301, 302, 303, 307, 308]), host.clone()).prop_map(|(status, to)| Move::Redirect(status, to)),
        3 => host.clone().prop_map(Move::Bearer),
        1 => Just(Move::Basic),
        1 => host.prop_map(Move::Both),
        2 => (100_u16..600).prop_map(Move::Status),
        1 => prop::sample::select(vec![
            Fault::Connect, Fault::Dns, Fault::PrivateAddress, Fault::Tls, Fault::Timeout, Fault::Stalled, Fault::Reset,
            Fault::BadFraming,
        ]).prop_map(Move::Fault),
        2 => Just(Move::Fine),
    ]
}

fn perform(step: &Move, request: &Outbound) -> Said {
    let challenge = |realm: usize| format!(r#"Bearer realm="{}/token",service="s""#, HOSTS[realm]);
    match step {
        Move::Redirect(status, to) => {
            Said::Http(*status, vec![("location", format!("{}/x", HOSTS[*to]))], String::new())
        }
        Move::Bearer(realm) => Said::Http(401, vec![("www-authenticate", challenge(*realm))], String::new()),
        Move::Basic => http(401, &[("www-authenticate", "Basic realm=x")]),
        Move::Both(realm) => Said::Http(
            401,
            vec![("www-authenticate", format!("Basic realm=x, {}", challenge(*realm)))],
            String::new(),
        ),
        Move::Status(status) => http(*status, &[("retry-after", "1")]),
        Move::Fault(fault) => Said::Fault(*fault),
        Move::Fine if is_token(request) => http(200, &[]).body(r#"{"token":"canary-token"}"#),
        Move::Fine => http(200, &[("content-length", "100"), ("etag", "\"v\"")]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// The set of origins that saw any credential is a subset of those declared, and every conversation ends.
    #[test]
    fn t_cr1_credentials_stay_with_declared_hosts(
        moves in prop::collection::vec(a_move(), 1..60),
        kinds in prop::collection::vec((0..6_u8, 0..101_u64), 1..6),
        insecure: bool,
        alternate: bool,
        seed: u64,
    ) {
        let mut at = 0;
        let mut script = |request: &Outbound| {
            at += 1;
            perform(&moves[at % moves.len()], request)
        };
        let mut world = World::new(&mut script);
        world.seed = seed;
        for (kind, received) in kinds {
            let source = || Source {
                insecure,
                alternates: if alternate { vec![url("https://mirror.example.com")] } else { vec![] },
                ..account()
            };
            let ask = match kind {
                0 => tag(source(), Verb::Get),
                1 => tag(source(), Verb::Head),
                2 => blob(source(), Verb::Head),
                3 => ranged(source(), 10, Some(50)),
                4 => ask(source(), Verb::Get, What::Tags(String::new())),
                _ => blob(source(), Verb::Get),
            };
            let before = world.sent.len();
            let mut exchange = Exchange::new(ask);
            let mut result = world.run(&mut exchange);
            let mut breaks = 0;
            while result.is_ok() && matches!(kind, 3 | 5) && breaks < 20 {
                breaks += 1;
                result = world.broken(&mut exchange, received);
            }
            prop_assert!(breaks < 20, "no progress, and no end");
            prop_assert!(world.sent.len() - before < 400);
            world.pass(Duration::from_secs(20));
        }
        let mut declared = vec!["https://registry-1.docker.io", "https://auth.docker.io"];
        if insecure {
            // Declared hosts by plain http, as the owner allows.
            declared.extend(["http://auth.docker.io"]);
        }
        for request in world.sent.iter().filter(|request| !is_clean(request)) {
            let origin = request.url.origin().ascii_serialization();
            let seen = authorization(&request.headers);
            // A token bought without credentials is none; only a registry that was asked anonymously sees it.
            let anonymous = origin == "https://mirror.example.com" && seen == "Bearer canary-token";
            prop_assert!(declared.contains(&origin.as_str()) || anonymous, "{origin} saw {seen}");
            prop_assert!(!seen.starts_with("Basic") || declared.contains(&origin.as_str()));
        }
    }

    /// Nothing that a registry sends makes a conversation panic or go on for ever.
    #[test]
    fn any_answer_is_survived(
        answers in prop::collection::vec((100_u16..1000, prop::collection::vec((0..12_usize, "[ -~]{0,60}"), 0..5), ".{0,80}"), 1..12),
        kind in 0..6_u8,
        received: u64,
    ) {
        const NAMES: [&str; 12] = [
            "location", "www-authenticate", "content-length", "content-range", "content-encoding", "content-type", "etag",
            "retry-after", "ratelimit-limit", "ratelimit-remaining", "link", "age",
        ];
        let mut at = 0;
        let mut script = |_: &Outbound| {
            at += 1;
            let (status, headers, body) = &answers[at % answers.len()];
            let headers = headers.iter().map(|(name, value)| (NAMES[*name], value.clone())).collect();
            Said::Http(*status, headers, body.clone())
        };
        let mut world = World::new(&mut script);
        let ask = match kind {
            0 => tag(account(), Verb::Get),
            1 => tag(hub(), Verb::Head),
            2 => blob(account(), Verb::Head),
            3 => ranged(hub(), 10, None),
            4 => ask(hub(), Verb::Get, What::Referrers(DIGEST.parse().unwrap(), String::new())),
            _ => blob(hub(), Verb::Get),
        };
        let mut exchange = Exchange::new(ask);
        let mut result = world.run(&mut exchange);
        for _ in 0..10 {
            if result.is_err() {
                break;
            }
            result = world.broken(&mut exchange, received);
        }
        prop_assert!(world.steps < 2000);
    }
}
