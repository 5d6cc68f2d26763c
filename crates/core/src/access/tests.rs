use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::answer::Answer;
use crate::failure::{Failure, Reason};
use crate::resolve::sample;
use crate::time::{Mono, Now, Wall};

const NOW: Now = Now { wall: Wall(1_795_358_179_000), mono: Mono(0) };

fn key() -> SigningKey {
    SigningKey::new([7; 32])
}

fn address() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn identified(config: &Config, values: &[&str]) -> Result<Authorized, Failure> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    identify(config, &headers, address(), None, &key(), NOW.wall)
}

fn name_of(authorized: &Authorized) -> Option<&str> {
    authorized.client.name().map(|name| &**name)
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn basic_and_our_own_bearer_are_the_same_client() {
    let config = sample::config_with_token();
    let token = sign(&key(), config.endpoint.as_str(), "ci", NOW.wall);
    for value in [
        basic("ci", sample::TOKEN),
        basic("anyone", sample::TOKEN),
        basic("", sample::TOKEN),
        basic("ci", sample::TOKEN).replace("Basic", "bAsIc"),
        bearer(&token),
        bearer(&token).replace("Bearer", "BEARER"),
    ] {
        let authorized = identified(&config, &[&value]).unwrap();
        assert_eq!(name_of(&authorized), Some("ci"), "{value}");
        assert!(authorized.presented);
    }
    let nobody = identified(&config, &[]).unwrap();
    assert_eq!((name_of(&nobody), nobody.presented), (None, false));
    let anyone = sign(&key(), config.endpoint.as_str(), "", NOW.wall);
    let anyone = identified(&config, &[&bearer(&anyone)]).unwrap();
    assert_eq!((name_of(&anyone), anyone.presented), (None, true));
}

/// T-HC4: one verdict, and one text, for every way to be wrong.
#[test]
fn t_hc4_whatever_is_wrong_is_wrong_alike() {
    let config = sample::config_with_token();
    let good = basic("ci", sample::TOKEN);
    let long = basic("ci", &"x".repeat(1_000_000));
    let nul = basic("ci\0admin", sample::TOKEN);
    let open = basic("ci", "");
    let wrong = basic("ci", "wrong");
    let cases: Vec<Vec<&str>> = vec![
        vec![&good, &good],
        vec![&long],
        vec![&nul],
        vec![&open],
        vec![&wrong],
        vec![""],
        vec!["Basic"],
        vec!["Basic "],
        vec!["Basic !!!"],
        vec!["Basic Y2k="],
        vec!["Basic /////w=="],
        vec!["Digest username=\"ci\""],
        vec!["Negotiate abc"],
        vec![sample::TOKEN],
        vec!["Bearer s3cret-of-ci"],
        vec!["Bearer ."],
        vec!["Bearer a.b"],
    ];
    let mut known_network = config.clone();
    known_network.access.networks = vec!["192.0.2.0/24".parse().unwrap()];
    for config in [config, known_network] {
        for case in &cases {
            let failure = identified(&config, case).unwrap_err();
            assert_eq!(failure.reason, Reason::Unauthorized);
            assert_eq!(failure.public, "the credentials are not valid here");
            assert_eq!(failure.internal, None);
        }
    }
}

#[test]
fn a_known_network_needs_no_credential() {
    let mut config = sample::config();
    config.access.networks = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let authorized = identified(&config, &[]).unwrap();
    assert_eq!((name_of(&authorized), authorized.presented), (Some("network"), false));
    config.access.networks = vec!["198.51.100.0/24".parse().unwrap()];
    assert!(!identified(&config, &[]).unwrap().client.is_known());
}

/// T-CR10, for tokens that have no header: whoever has not our key, our endpoint and our time is refused alike.
#[test]
fn t_cr10_forged_tokens_are_refused() {
    let config = sample::config_with_token();
    let endpoint = config.endpoint.as_str();
    let good = sign(&key(), endpoint, "ci", NOW.wall);
    let (payload, mac) = good.split_once('.').unwrap();
    let at = |seconds: i64| Wall(NOW.wall.0.checked_add_signed(seconds * 1000).unwrap());
    let jwt = |header: &str| {
        let claims = r#"{"aud":"https://mirror.example.com/","sub":"ci","exp":9999999999,"iat":1795358179}"#;
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    };
    let other = |from: &str, to: &str| {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        assert!(text.contains(from), "{text}");
        URL_SAFE_NO_PAD.encode(text.replace(from, to))
    };
    for (what, token) in [
        ("another key", sign(&SigningKey::new([8; 32]), endpoint, "ci", NOW.wall)),
        ("another endpoint", sign(&key(), "https://other.example.com/", "ci", NOW.wall)),
        ("an unknown subject", sign(&key(), endpoint, "root", NOW.wall)),
        ("expired", sign(&key(), endpoint, "ci", at(-300))),
        ("from the future", sign(&key(), endpoint, "ci", at(61))),
        ("no signature", format!("{payload}.")),
        ("no payload", format!(".{mac}")),
        ("a cut signature", format!("{payload}.{}", &mac[..mac.len() - 2])),
        ("a padded signature", format!("{payload}.{mac}=")),
        ("a third part", format!("{good}.x")),
        ("another subject under the same signature", format!("{}.{mac}", other("\"ci\"", "\"\""))),
        ("alg none", format!("{}.", jwt(r#"{"alg":"none"}"#))),
        ("alg none, two parts", jwt(r#"{"alg":"none"}"#)),
        ("its own key", format!("{}.{mac}", jwt(r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AA"}}"#))),
        ("too long", format!("{}.{mac}", "A".repeat(5000))),
    ] {
        let failure = identified(&config, &[&bearer(&token)]).unwrap_err();
        assert_eq!(failure.public, "the credentials are not valid here", "{what}");
    }
    assert!(identified(&config, &[&bearer(&sign(&key(), endpoint, "ci", at(-299)))]).is_ok());
    assert!(identified(&config, &[&bearer(&sign(&key(), endpoint, "ci", at(59)))]).is_ok());
}

/// T-AZ8: striking a token off ends the bearer tokens it was traded for.
#[test]
fn a_token_that_is_struck_off_is_nobodys() {
    let mut config = sample::config_with_token();
    let token = bearer(&sign(&key(), config.endpoint.as_str(), "ci", NOW.wall));
    assert!(identified(&config, &[&token]).is_ok());
    config.access.tokens[0].name = "other".into();
    assert!(identified(&config, &[&token]).is_err());
}

/// T-AZ5, the table: who may have what of a source with credentials.
#[test]
fn t_az5_credentials_serve_known_clients_and_what_is_public() {
    let config = sample::config();
    let anonymous = Client { identity: Identity::Anonymous, address: address() };
    let known = Client { identity: Identity::Known { name: "ci".into() }, address: address() };
    let (hub, private) = (&config.sources[0], &config.sources[4]);
    for (source, repository, client, expected) in [
        (hub, "library/busybox", &anonymous, Standing::Open),
        (hub, "library/busybox", &known, Standing::Open),
        (private, "app", &known, Standing::Open),
        (private, "open/app", &known, Standing::Open),
        (private, "open/app", &anonymous, Standing::Public),
        (private, "app", &anonymous, Standing::Probe),
        (private, "open/app/deep", &anonymous, Standing::Probe),
        (private, "opened/app", &anonymous, Standing::Probe),
    ] {
        let repository = repository.parse().unwrap();
        assert_eq!(standing(source, &repository, client), expected, "{repository}");
    }
    let app: Repository = "app".parse().unwrap();
    assert!(credentialed(private, &app, false));
    assert!(!credentialed(private, &app, true));
    assert!(!credentialed(private, &"open/app".parse().unwrap(), false));
    assert!(!credentialed(hub, &app, false));
}

/// T-AZ5: the anonymous HEAD is asked once an hour, and only its plain yes or no is kept.
#[test]
fn t_az5_the_anonymous_verdict_stands_for_an_hour() {
    let start = NOW.wall;
    let Probed::Public(record) = after_probe(None, Ok(()), start) else { panic!("not public") };
    assert_eq!(probe_verdict(None, start), None);
    assert_eq!(probe_verdict(Some(&record), start), Some(true));
    assert_eq!(probe_verdict(Some(&record), Wall(start.0 + 3_599_999)), Some(true));
    assert_eq!(probe_verdict(Some(&record), Wall(start.0 + 3_600_000)), None);
    assert_eq!(probe_verdict(Some(&record), Wall(start.0 - 1)), None);
    for &reason in Reason::ALL {
        let failure = Failure::new(reason, "why");
        let first = after_probe(None, Err(&failure), start);
        let again = after_probe(Some(&record), Err(&failure), start);
        if reason.is_refusal() {
            for probed in [first, again] {
                let Probed::Private(record, failure) = probed else { panic!("{reason:?}: {probed:?}") };
                assert_eq!(probe_verdict(Some(&record), start), Some(false));
                assert_eq!(failure.reason, Reason::Unauthorized);
            }
        } else {
            assert_eq!(first, Probed::Unknown(failure.clone()), "never open by default");
            let outlives = again == Probed::StillPublic;
            assert_eq!(outlives, !reason.is_absence(), "{reason:?}");
        }
    }
    let private = PublicRecord { public: false, checked: start };
    let failure = Failure::new(Reason::UpstreamTimeout, "");
    assert!(matches!(after_probe(Some(&private), Err(&failure), start), Probed::Unknown(_)));
}

/// T-AZ5: a page that says 200 to everything makes no repository public.
#[test]
fn t_az5_only_a_manifest_shows_a_repository() {
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    for (kind, digest, expected) in [
        (Some(manifest), true, true),
        (Some(manifest), false, true),
        (Some("application/vnd.docker.distribution.manifest.list.v2+json; charset=utf-8"), false, true),
        (None, true, true),
        (None, false, false),
        (Some("text/html"), true, false),
        (Some("text/html; charset=utf-8"), false, false),
        (Some("application/json"), false, false),
        (Some("nonsense"), true, false),
    ] {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert("content-type", kind.parse().unwrap());
        }
        if digest {
            headers.insert("docker-content-digest", "sha256:x".parse().unwrap());
        }
        let reply = crate::upstream::Reply {
            status: StatusCode::OK,
            headers,
            offset: 0,
            length: None,
            size: None,
            upstream: "https://registry.example.com".parse().unwrap(),
        };
        assert_eq!(shown(&reply).is_ok(), expected, "{kind:?} {digest}");
    }
}

#[test]
fn t_cr9_the_challenge_is_made_of_the_endpoint() {
    let mut config = sample::config();
    assert_eq!(
        challenge(&config, Some("ghcr.io/a/b"), false),
        "Bearer realm=\"https://mirror.example.com/token\",service=\"mirror.example.com\",\
         scope=\"repository:ghcr.io/a/b:pull\""
    );
    config.endpoint = "http://127.0.0.1:8080/base/".parse().unwrap();
    assert_eq!(
        challenge(&config, None, true),
        "Bearer realm=\"http://127.0.0.1:8080/base/token\",service=\"127.0.0.1:8080\",error=\"insufficient_scope\""
    );
    assert!(!challenge(&config, Some("a\",realm=\"https://evil"), false).contains("\",realm=\"https://evil"));
}

fn request(config: &Config, authorization: Option<&str>, has_form: bool) -> TokenRequest {
    let values: Vec<&str> = authorization.into_iter().collect();
    let authorized = identified(config, &values).unwrap();
    TokenRequest { has_form, head_only: false, authorized }
}

fn answered(config: &Config, request: &TokenRequest, form: Option<&str>) -> Answer {
    let form = form.map(|form| Bytes::copy_from_slice(form.as_bytes()));
    token_answer(config, request, form.as_ref(), &key(), NOW)
}

/// The client that the token in an answer stands for.
fn subject(config: &Config, answer: &Answer) -> Option<String> {
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["token"], body["access_token"]);
    assert_eq!(body["expires_in"], 300);
    assert_eq!(body["issued_at"], "2026-11-22T14:36:19Z");
    let authorized = identified(config, &[&bearer(body["token"].as_str().unwrap())]).unwrap();
    authorized.client.name().map(|name| name.to_string())
}

#[test]
fn the_token_endpoint_trades_a_password_by_get_and_post() {
    let config = sample::config_with_token();
    let password = basic("x", sample::TOKEN);
    let by_get = answered(&config, &request(&config, Some(&password), false), None);
    assert_eq!(subject(&config, &by_get).as_deref(), Some("ci"));
    assert_eq!(by_get.headers["cache-control"], "no-store");
    assert!(by_get.headers.get("access-control-allow-origin").is_none());
    let post = request(&config, None, true);
    let form = format!("grant_type=password&service=m&username=u&password={}&scope=a", sample::TOKEN);
    assert_eq!(subject(&config, &answered(&config, &post, Some(&form))).as_deref(), Some("ci"));
    assert_eq!(subject(&config, &answered(&config, &request(&config, None, false), None)), None);
}

#[test]
fn the_token_endpoint_refuses_in_words_that_clients_fall_back_upon() {
    let config = sample::config_with_token();
    let post = request(&config, None, true);
    let long = format!("grant_type=password&password={}", "x".repeat(MAX_TOKEN_BODY));
    for (form, status) in [
        (Some("grant_type=password&password=wrong"), 401),
        (Some("grant_type=password&password="), 401),
        (Some("grant_type=refresh_token&refresh_token=x"), 400),
        (Some("grant_type=password&grant_type=password&password=s3cret-of-ci"), 400),
        (Some(""), 400),
        (Some(long.as_str()), 400),
        (None, 400),
    ] {
        let answer = answered(&config, &post, form);
        assert_eq!(answer.status.as_u16(), status, "{form:?}");
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(answer.body.starts_with(b"{\"errors\":[{\"code\":\""));
    }
    let mut closed = config.clone();
    closed.access.anonymous = false;
    let answer = answered(&closed, &request(&closed, None, false), None);
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(
        answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer realm=\"https://mirror.")
    );
}

#[test]
fn a_network_client_gets_a_token_for_anyone_even_where_anyone_may_not_pull() {
    let mut config = sample::config_with_token();
    config.access.anonymous = false;
    config.access.networks = vec!["192.0.2.0/24".parse().unwrap()];
    let answer = answered(&config, &request(&config, None, false), None);
    assert_eq!(subject(&config, &answer).as_deref(), Some("network"));
}

#[test]
fn no_secret_shows_in_debug_output() {
    let config = sample::config_with_token();
    let shown = format!("{:?} {config:?}", key());
    for secret in ["7, 7", "canary-upstream-password", sample::TOKEN] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

proptest! {
    #[test]
    fn no_header_but_the_right_one_makes_a_known_client(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let config = sample::config_with_token();
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value);
        prop_assert!(identify(&config, &headers, address(), None, &key(), NOW.wall).is_err());
    }

    #[test]
    fn a_flipped_bit_anywhere_voids_a_token(position: prop::sample::Index, bit in 0u8..7) {
        let config = sample::config_with_token();
        let mut token = sign(&key(), config.endpoint.as_str(), "ci", NOW.wall).into_bytes();
        let at = position.index(token.len());
        token[at] ^= 1 << bit;
        let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", token.as_slice()].concat()) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value);
        prop_assert!(identify(&config, &headers, address(), None, &key(), NOW.wall).is_err());
    }
}

#[test]
fn only_a_repository_that_was_public_need_not_wait_for_its_probe() {
    let record = |public| PublicRecord { public, checked: Wall(1) };
    assert_eq!(probe_wait(None), None);
    assert_eq!(probe_wait(Some(&record(false))), None);
    assert_eq!(probe_wait(Some(&record(true))), Some(crate::freshness::REVALIDATION_WAIT));
}
