use std::time::Duration;

use entrepot_oci::digest::Digest;
use entrepot_oci::media::{Accept, DOCKER_LIST, DOCKER_MANIFEST, MediaType, OCI_INDEX, OCI_MANIFEST};
use entrepot_oci::name::Reference;
use entrepot_oci::path::RawName;
use entrepot_oci::range::RangeRequest;
use proptest::prelude::*;

use super::*;
use crate::failure::{Failure, Reason, Side};
use crate::limit::{Gcra, Standing};
use crate::resolve::{Resolved, resolve, sample};

fn digest() -> Digest {
    Digest::sha256(b"manifest")
}

fn index() -> MediaType {
    OCI_INDEX.parse().unwrap()
}

fn facts(media_type: &MediaType) -> ManifestFacts<'_> {
    ManifestFacts { digest: digest(), size: 1234, media_type }
}

fn served<'a>(verdict: Verdict) -> Served<'a> {
    Served::new(Trace::new(verdict))
}

fn text<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

fn limited(wait: Duration) -> Failure {
    Failure::new(Reason::RateLimited, "slow down").retry_after(wait)
}

fn resolved(root: Option<&str>, ns: Option<&str>, name: &str) -> Resolved {
    resolve(&sample::config(), "", root, ns, &RawName::parse(name).unwrap()).unwrap()
}

/// The one table, whole: every reason has a status and a code of its own kind (T-UF1).
#[test]
fn t_uf1_every_reason_has_its_answer() {
    let config = sample::config_with_token();
    for &reason in Reason::ALL {
        let failure = Failure::new(reason, "what the client reads").internal("canary-internal");
        let (status, code) = status_and_code(reason);
        for head_only in [false, true] {
            let context = FailureContext { head_only, ..FailureContext::new(&config) };
            let answer = super::failure(&failure, &context);
            assert_eq!(answer.status, status);
            assert_eq!(text(&answer, "content-type"), Some("application/json"));
            assert_eq!(text(&answer, "cache-control"), Some("no-store"));
            assert!(!format!("{answer:?}").contains("canary-internal"));
            if head_only {
                assert!(answer.body.is_empty());
                continue;
            }
            assert_eq!(text(&answer, "content-length"), Some(answer.body.len().to_string().as_str()));
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["errors"][0]["code"], code.as_str());
            assert_eq!(body["errors"][0]["message"], "what the client reads");
            // The header and the status that need each other.
            assert_eq!(status.as_u16() == 401, answer.headers.contains_key("www-authenticate"), "{reason:?}");
            assert_eq!(status.as_u16() == 405, answer.headers.contains_key("allow"), "{reason:?}");
            let waits = matches!(status.as_u16(), 429 | 503);
            assert_eq!(waits, answer.headers.contains_key("retry-after"), "{reason:?}");
            let shut = matches!(status.as_u16(), 401 | 403);
            assert_eq!(!shut, answer.headers.contains_key("access-control-allow-origin"), "{reason:?}");
        }
        if reason.side() == Side::Upstream {
            assert_ne!(status.as_u16(), 404, "{reason:?}: no outage looks like an absence");
            assert!(status.as_u16() >= 500 || matches!(status.as_u16(), 401 | 403 | 429), "{reason:?}");
        }
        if reason.side() == Side::Mirror {
            assert!(status.is_server_error(), "{reason:?}");
        }
        assert_eq!(reason.is_absence() || reason == Reason::TagInvalid, status.as_u16() == 404, "{reason:?}");
        // Where the code has a status in the spec, ours is that, or upstream's fault.
        assert!(
            status.as_u16() == code.status() || status.is_server_error() || code.as_str() == "UNKNOWN",
            "{reason:?}: {status} {code}"
        );
    }
}

#[test]
fn upstreams_401_has_our_challenge_only_where_logging_in_helps() {
    let failure = Failure::new(Reason::UpstreamUnauthorized, "x");
    let (without, with) = (sample::config(), sample::config_with_token());
    let plain = super::failure(&failure, &FailureContext::new(&without));
    assert_eq!((plain.status.as_u16(), text(&plain, "www-authenticate")), (401, None));
    let context = FailureContext { scope: Some("a/b"), ..FailureContext::new(&with) };
    let challenged = super::failure(&failure, &context);
    let challenge = text(&challenged, "www-authenticate").unwrap();
    assert!(challenge.contains("scope=\"repository:a/b:pull\""), "{challenge}");
}

#[test]
fn t_rl6_a_refusal_says_when_to_come_back() {
    let config = sample::config();
    let standing = Standing {
        limit: 50,
        window: Duration::from_secs(30),
        remaining: 0,
        reset: Duration::from_millis(29_001),
    };
    let context = FailureContext { limit: Some(standing), ..FailureContext::new(&config) };
    for (wait_ms, seconds) in [(1, "1"), (600, "1"), (1000, "1"), (1001, "2"), (59_999, "60")] {
        let answer = super::failure(&limited(Duration::from_millis(wait_ms)), &context);
        assert_eq!(answer.status.as_u16(), 429);
        assert_eq!(text(&answer, "retry-after"), Some(seconds));
        assert_eq!(text(&answer, "ratelimit-limit"), Some("50;w=30"));
        assert_eq!(text(&answer, "ratelimit-remaining"), Some("0;w=30"));
        assert_eq!(text(&answer, "ratelimit-reset"), Some("30"));
        assert!(answer.body.starts_with(b"{\"errors\":[{\"code\":\"TOOMANYREQUESTS\""));
    }
}

/// T-RL6: `Retry-After` is true: whoever waits that long is let in.
#[test]
fn t_rl6_retry_after_is_true() {
    use crate::time::Mono;
    let config = sample::config();
    let gcra = Gcra::new(7, Duration::from_secs(60), 3);
    let (mut tat, mut now) = (None, 0);
    for _ in 0..100 {
        match gcra.check(tat, Mono(now), 1) {
            crate::limit::Verdict::Allowed { tat: next, .. } => tat = Some(next),
            crate::limit::Verdict::Passed => panic!("an exact limiter knows what is left"),
            crate::limit::Verdict::Refused { retry_after, .. } => {
                let context = FailureContext::new(&config);
                let answer = super::failure(&limited(retry_after), &context);
                let seconds: u64 = text(&answer, "retry-after").unwrap().parse().unwrap();
                assert!(seconds >= 1);
                now += seconds * 1000;
                assert!(matches!(gcra.check(tat, Mono(now), 1), crate::limit::Verdict::Allowed { .. }));
            }
        }
        now += 1;
    }
}

#[test]
fn a_manifest_by_tag_and_by_digest() {
    let media_type = index();
    let facts = facts(&media_type);
    let left = Believed::For(Duration::from_millis(59_999));
    let by_tag = manifest(&facts, left, &served(Verdict::Hit), None);
    assert_eq!(by_tag.status.as_u16(), 200);
    for (name, value) in [
        ("docker-content-digest", digest().to_string()),
        ("etag", format!("\"{}\"", digest())),
        ("content-type", OCI_INDEX.into()),
        ("content-length", "1234".into()),
        ("docker-distribution-api-version", "registry/2.0".into()),
        ("cache-control", "public, max-age=59, no-transform".into()),
        ("access-control-allow-origin", "*".into()),
        ("x-cache", "HIT".into()),
        ("cache-status", "entrepot; hit".into()),
    ] {
        assert_eq!(text(&by_tag, name), Some(value.as_str()), "{name}");
    }
    for absent in ["age", "warning", "vary", "content-encoding", "oci-namespace", "ratelimit-limit"] {
        assert_eq!(text(&by_tag, absent), None);
    }
    let by_digest = manifest(&facts, Believed::Forever, &served(Verdict::Miss), None);
    let forever = "public, max-age=31536000, immutable, no-transform";
    assert_eq!(text(&by_digest, "cache-control"), Some(forever));
    assert_eq!(text(&by_digest, "cache-status"), Some("entrepot; fwd=miss"));
}

/// What rests on credentials is for the one who asked, and no script reads it.
#[test]
fn t_az5_credentialed_answers_are_private() {
    let media_type = index();
    let served = Served { credentialed: true, ..served(Verdict::Hit) };
    let whole = manifest(&facts(&media_type), Believed::Forever, &served, None);
    let blob = blob(&digest(), Some(10), None, None, None, &served).head;
    let tags = tags(&resolved(None, None, "a/b"), &["x"], None, Duration::ZERO, &served, false);
    let referrers = referrers(Bytes::new(), false, None, Duration::ZERO, &served, false);
    for answer in [whole, blob, tags, referrers] {
        assert_eq!(text(&answer, "cache-control"), Some("private, no-store"));
        assert_eq!(text(&answer, "access-control-allow-origin"), None);
        assert_eq!(text(&answer, "access-control-expose-headers"), None);
    }
}

#[test]
fn a_stale_answer_says_so() {
    let media_type = index();
    let trace = Trace {
        forwarded: true,
        upstream_status: Some(503),
        reason: Some(Reason::UpstreamServerError),
        ..Trace::new(Verdict::Stale)
    };
    let long = "x\"\\\r\né".repeat(5000);
    let served = Served {
        age: Some(Duration::from_millis(7_200_900)),
        warning: Some(&long),
        ns: Some("docker.io"),
        ..Served::new(trace)
    };
    let answer = manifest(&facts(&media_type), Believed::For(Duration::ZERO), &served, None);
    assert_eq!(text(&answer, "x-cache"), Some("STALE"));
    let status = "entrepot; fwd=stale; fwd-status=503; detail=upstream_server_error";
    assert_eq!(text(&answer, "cache-status"), Some(status));
    assert_eq!(text(&answer, "age"), Some("7200"));
    assert_eq!(text(&answer, "cache-control"), Some("public, max-age=0, no-transform"));
    assert_eq!(text(&answer, "oci-namespace"), Some("docker.io"));
    let warning = text(&answer, "warning").unwrap();
    assert!(warning.len() <= 4096 && warning.starts_with("299 - \"x") && warning.ends_with("x\""));
    assert_eq!(warning.matches('"').count(), 2);
}

#[test]
fn cache_status_tells_each_verdict() {
    for (verdict, x_cache, status) in [
        (Verdict::Hit, "HIT", "entrepot; hit"),
        (Verdict::Miss, "MISS", "entrepot; fwd=miss"),
        (Verdict::Stale, "STALE", "entrepot; hit; detail=stale"),
        (Verdict::Revalidated, "REVALIDATED", "entrepot; fwd=stale"),
        (Verdict::Bypass, "BYPASS", "entrepot; fwd=bypass"),
    ] {
        let head = blob(&digest(), Some(1), None, None, None, &served(verdict)).head;
        assert_eq!((text(&head, "x-cache"), text(&head, "cache-status")), (Some(x_cache), Some(status)));
    }
    let trace = Trace { stored: true, collapsed: true, ..Trace::new(Verdict::Miss) };
    let head = blob(&digest(), Some(1), None, None, None, &Served::new(trace)).head;
    assert_eq!(text(&head, "cache-status"), Some("entrepot; fwd=miss; stored; collapsed"));
}

#[test]
fn if_none_match_in_every_spelling() {
    let (own, other) = (digest(), Digest::sha256(b"other"));
    let media_type = index();
    for (lines, unchanged) in [
        (vec![format!("\"{own}\"")], true),
        (vec![format!("W/\"{own}\"")], true),
        (vec![own.to_string()], true),
        (vec!["*".into()], true),
        (vec![format!("\"{other}\", W/\"{own}\"")], true),
        (vec![format!("\"{other}\""), format!("\"{own}\"")], true),
        (vec![format!("\"{other}\"")], false),
        (vec![String::new()], false),
        (vec![format!("\"{own}")], false),
        (vec![], false),
    ] {
        let tags = EntityTags::parse(lines.iter().map(String::as_str));
        let answer = manifest(&facts(&media_type), Believed::Forever, &served(Verdict::Hit), tags.as_ref());
        assert_eq!(answer.status.as_u16(), if unchanged { 304 } else { 200 }, "{lines:?}");
        assert_eq!(text(&answer, "etag"), Some(format!("\"{own}\"").as_str()));
        assert_eq!(text(&answer, "content-length").is_some(), !unchanged);
        let blob = blob(&own, Some(5), None, None, tags.as_ref(), &served(Verdict::Hit));
        assert_eq!(blob.span.is_none(), unchanged);
    }
}

#[test]
fn t_hc5_parts_of_a_blob() {
    let etag = etag(&digest());
    let weak = format!("W/{etag}");
    let answered = |range: &str, if_range: Option<&str>, size: Option<u64>| {
        let range = RangeRequest::parse(range).ok();
        let answer = blob(&digest(), size, range, if_range, None, &served(Verdict::Hit));
        let span = answer.span.map(|span| (span.start, span.end));
        let content_range = text(&answer.head, "content-range").map(str::to_owned);
        (
            answer.head.status.as_u16(),
            span,
            content_range,
            text(&answer.head, "content-length").map(str::to_owned),
        )
    };
    let all = (200, Some((0, 10)), None, Some("10".to_owned()));
    let tail = (206, Some((4, 10)), Some("bytes 4-9/10".to_owned()), Some("6".to_owned()));
    let unsatisfied = (416, None, Some("bytes */10".to_owned()), Some("0".to_owned()));
    for (range, if_range, expected) in [
        ("bytes=4-", None, &tail),
        ("bytes=4-99", None, &tail),
        ("bytes=-6", None, &tail),
        ("bytes=4-", Some(etag.as_str()), &tail),
        ("bytes=4-", Some(weak.as_str()), &all),
        ("bytes=4-", Some("\"other\""), &all),
        ("bytes=4-", Some("Sun, 22 Nov 2026 14:36:19 GMT"), &all),
        ("bytes=10-", None, &unsatisfied),
        ("bytes=-0", None, &unsatisfied),
        ("bytes=18446744073709551616-", None, &unsatisfied),
        ("bytes=5-2", None, &all),
        ("bytes=0-1,4-5", None, &all),
        ("bytes=", None, &all),
    ] {
        assert_eq!(&answered(range, if_range, Some(10)), expected, "{range} {if_range:?}");
    }
    let unknown = (200, Some((0, u64::MAX)), None, None);
    assert_eq!(answered("bytes=4-", None, None), unknown);
    let head = blob(&digest(), Some(10), None, None, None, &served(Verdict::Hit)).head;
    assert_eq!(text(&head, "accept-ranges"), Some("bytes"));
    assert_eq!(text(&head, "content-type"), Some("application/octet-stream"));
    assert_eq!(text(&head, "docker-content-digest"), Some(digest().to_string().as_str()));
}

/// T-CP3: by tag, each client gets a type it accepts or is told; by digest, what the digest says.
#[test]
fn t_cp3_no_client_is_handed_what_it_does_not_accept() {
    let tag: Reference = "latest".parse().unwrap();
    let by_digest = Reference::Digest(digest());
    let many: Vec<String> = (0..200).map(|n| format!("application/x-{n}")).collect();
    let many = format!("{}, {OCI_INDEX}", many.join(", "));
    for (accept, index_fits, image_fits) in [
        (vec![], true, true),
        (vec![""], true, true),
        (vec!["*/*"], true, true),
        (vec!["application/*"], true, true),
        (vec![DOCKER_MANIFEST], false, false),
        (vec![OCI_MANIFEST], false, true),
        (vec![OCI_INDEX, OCI_MANIFEST], true, true),
        (vec!["application/vnd.oci.image.index.v1+json;q=0, */*"], false, true),
        (vec!["application/vnd.oci.image.index.v1+json;q=0.1"], true, false),
        (vec!["text/html"], false, false),
        (vec![many.as_str()], true, false),
    ] {
        let accepted = Accept::parse(accept.iter().copied());
        for (media_type, fits) in [(OCI_INDEX, index_fits), (OCI_MANIFEST, image_fits)] {
            let media_type: MediaType = media_type.parse().unwrap();
            let verdict = negotiate(&accepted, &tag, &media_type);
            assert_eq!(verdict.is_ok(), fits, "{accept:?} {media_type}");
            if let Err(failure) = verdict {
                assert_eq!(failure.reason, Reason::ManifestUnknown);
                assert!(failure.public.contains(media_type.as_str()));
            }
            assert!(negotiate(&accepted, &by_digest, &media_type).is_ok());
        }
    }
    let list: MediaType = DOCKER_LIST.parse().unwrap();
    assert!(negotiate(&Accept::parse([DOCKER_LIST]), &tag, &list).is_ok());
}

#[test]
fn lists_carry_the_clients_name_and_our_links() {
    let rooted = resolved(Some("ghcr"), None, "a/b");
    let next =
        next_link(&rooted, "tags/list", "https://ghcr.io/v2/a/b/tags/list?n=2&last=x&ns=evil#f").unwrap();
    assert_eq!(next, "/ghcr/v2/a/b/tags/list?n=2&last=x");
    let answer =
        tags(&rooted, &["w", "x"], Some(&next), Duration::from_secs(60), &served(Verdict::Miss), false);
    assert_eq!(&answer.body[..], br#"{"name":"a/b","tags":["w","x"]}"#);
    assert_eq!(text(&answer, "link"), Some("</ghcr/v2/a/b/tags/list?n=2&last=x>; rel=\"next\""));
    assert_eq!(text(&answer, "cache-control"), Some("public, max-age=60, no-transform"));
    let by_ns = resolved(None, Some("quay.io"), "a/b");
    let link = next_link(&by_ns, "tags/list", "/v2/a/b/tags/list?next_page=gAAA%3D%3D").unwrap();
    assert_eq!(link, "/v2/a/b/tags/list?next_page=gAAA%3D%3D&ns=quay.io");
    let shown = resolved(None, None, "docker.io/busybox");
    let none: [&str; 0] = [];
    let empty = tags(&shown, &none, None, Duration::ZERO, &served(Verdict::Hit), false);
    assert_eq!(&empty.body[..], br#"{"name":"docker.io/busybox","tags":[]}"#);
    assert_eq!(text(&empty, "link"), None);
    for target in ["", "/v2/a/b/tags/list", "/x?", &format!("/x?{}", "y".repeat(3000))] {
        assert_eq!(next_link(&shown, "tags/list", target), None, "{target}");
    }
}

#[test]
fn referrers_are_an_index() {
    let body = Bytes::from_static(b"{}");
    let left = Duration::from_secs(60);
    let answer = referrers(body.clone(), true, None, left, &served(Verdict::Hit), false);
    assert_eq!(text(&answer, "content-type"), Some(OCI_INDEX));
    assert_eq!(text(&answer, "oci-filters-applied"), Some("artifactType"));
    assert_eq!(answer.body, body);
    let head = referrers(body, false, None, left, &served(Verdict::Hit), true);
    assert_eq!((text(&head, "content-length"), head.body.len()), (Some("2"), 0));
    assert_eq!(text(&head, "oci-filters-applied"), None);
}

proptest! {
    /// T-HU6's last line of defence: whatever upstream's link says, ours stays on our path and in one header line.
    #[test]
    fn no_upstream_link_leads_away(target in "\\PC{0,200}") {
        let rooted = resolved(None, None, "a/b");
        if let Some(link) = next_link(&rooted, "tags/list", &target) {
            prop_assert!(link.starts_with("/v2/a/b/tags/list?"));
            prop_assert!(link.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"')));
        }
    }

    #[test]
    fn a_part_is_always_inside_the_blob(start: u64, len: u64, size in 0u64..1 << 50, kind in 0u8..3) {
        let range = match kind {
            0 => RangeRequest::From { start: start % (1 << 51) },
            1 => RangeRequest::FromTo { start: start % (1 << 51), end: (start % (1 << 51)).saturating_add(len) },
            _ => RangeRequest::Suffix { len },
        };
        let answer = blob(&digest(), Some(size), Some(range), None, None, &served(Verdict::Hit));
        match answer.span {
            Some(span) => {
                prop_assert_eq!(answer.head.status.as_u16(), 206);
                prop_assert!(span.start < span.end && span.end <= size);
                let length = span.len().to_string();
                prop_assert_eq!(text(&answer.head, "content-length"), Some(length.as_str()));
            }
            None => prop_assert_eq!(answer.head.status.as_u16(), 416),
        }
    }
}
