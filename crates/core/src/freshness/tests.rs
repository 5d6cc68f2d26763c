use proptest::prelude::*;

use super::*;
use crate::config::TtlRule;
use crate::resolve::sample;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const START: Wall = Wall(1_795_358_179_000);

fn record(credentialed: bool) -> TagRecord {
    let media_type = entrepot_oci::media::OCI_INDEX.parse().unwrap();
    TagRecord::new(Digest::sha256(b"x"), 1, media_type, credentialed, START)
}

fn policy(on_gone: OnGone) -> TagPolicy {
    TagPolicy { ttl: HOUR, max_stale: 7 * DAY, on_gone }
}

fn keep() -> TagPolicy {
    policy(OnGone::Keep)
}

fn failed(reason: Reason) -> Failure {
    Failure::new(reason, "")
}

fn stale(after: AfterFailure) -> TagRecord {
    match after {
        AfterFailure::Stale { record, .. } => record,
        other => panic!("not stale: {other:?}"),
    }
}

fn name(text: &str) -> Repository {
    text.parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

#[test]
fn a_tag_is_fresh_then_revalidated_then_gone() {
    let record = record(false);
    let verdict = |after: Duration| tag_verdict(&record, &keep(), START.plus(after), false);
    let ms = Duration::from_millis(1);
    assert_eq!(verdict(Duration::ZERO), TagVerdict::Fresh { left: HOUR });
    assert_eq!(verdict(HOUR - ms), TagVerdict::Fresh { left: ms });
    let revalidate = TagVerdict::Revalidate { wait: Some(Duration::from_millis(500)) };
    assert_eq!(verdict(HOUR), revalidate);
    assert_eq!(verdict(HOUR + 7 * DAY), revalidate);
    assert_eq!(verdict(HOUR + 7 * DAY + ms), TagVerdict::Gone);
}

#[test]
fn a_clock_that_was_set_back_makes_no_tag_fresh_for_ever() {
    let record = record(false);
    let earlier = Wall(START.0 - 3_600_000);
    assert!(matches!(tag_verdict(&record, &keep(), earlier, false), TagVerdict::Revalidate { .. }));
    let skewed = Wall(START.0 - 5_000);
    assert!(matches!(tag_verdict(&record, &keep(), skewed, false), TagVerdict::Fresh { .. }));
    let after = after_failure(&record, &keep(), &failed(Reason::UpstreamTimeout), START.plus(30 * DAY));
    assert_eq!(after, AfterFailure::TooOld);
    let troubled =
        stale(after_failure(&record, &keep(), &failed(Reason::UpstreamTimeout), START.plus(2 * HOUR)));
    // `retry_at` now lies months ahead of the clock.
    let verdict = tag_verdict(&troubled, &keep(), Wall(START.0 - 90 * 86_400_000), false);
    assert!(matches!(verdict, TagVerdict::Revalidate { .. }));
}

/// T-RL7: a low budget is not spent on what is held, but on nothing else either way.
#[test]
fn a_low_budget_is_not_spent_on_what_is_held() {
    let record = record(false);
    let at = |after| tag_verdict(&record, &keep(), START.plus(after), true);
    assert!(matches!(at(Duration::ZERO), TagVerdict::Fresh { .. }));
    assert_eq!(at(2 * HOUR), TagVerdict::Stale { kind: Some(TroubleKind::Limited) });
    assert_eq!(at(8 * DAY), TagVerdict::Gone);
}

/// T-UF2, every reason: what upstream's failure makes of a tag that is held.
#[test]
fn t_uf2_after_every_failure() {
    let now = START.plus(2 * HOUR);
    for &reason in Reason::ALL {
        let refusal = reason.is_refusal();
        let public = after_failure(&record(false), &keep(), &failed(reason), now);
        assert!(matches!(public, AfterFailure::Stale { .. }), "public, {reason:?}: {public:?}");
        let private = after_failure(&record(true), &keep(), &failed(reason), now);
        assert_eq!(matches!(private, AfterFailure::Deny { .. }), refusal, "private, {reason:?}");
        let followed = after_failure(&record(false), &policy(OnGone::Follow), &failed(reason), now);
        assert_eq!(followed == AfterFailure::Follow, reason.is_absence(), "followed, {reason:?}");
        let late = after_failure(&record(false), &keep(), &failed(reason), now.plus(30 * DAY));
        assert_eq!(late == AfterFailure::TooOld, !reason.is_absence(), "late, {reason:?}");
    }
}

#[test]
fn a_dead_upstream_is_asked_less_and_less() {
    let mut held = record(false);
    let mut now = START.plus(2 * HOUR);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        held = stale(after_failure(&held, &keep(), &failed(Reason::UpstreamUnreachable), now));
        let retry_at = held.trouble.unwrap().retry_at;
        pauses.push(retry_at.since(now).as_secs());
        let just_before = Wall(retry_at.0 - 1);
        let kind = Some(TroubleKind::Failed);
        assert_eq!(tag_verdict(&held, &keep(), just_before, false), TagVerdict::Stale { kind });
        assert!(matches!(tag_verdict(&held, &keep(), retry_at, false), TagVerdict::Revalidate { .. }));
        now = retry_at;
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 300]);
    let well = held.confirmed(now);
    assert_eq!(tag_verdict(&well, &keep(), now, false), TagVerdict::Fresh { left: HOUR });
    let again = stale(after_failure(&well, &keep(), &failed(Reason::UpstreamTls), now.plus(HOUR)));
    assert_eq!(again.trouble.unwrap().failures, 1);
}

#[test]
fn retry_after_is_honoured_within_reason() {
    let now = START.plus(2 * HOUR);
    let pause = |after: Duration| {
        let failure = failed(Reason::UpstreamRateLimited).retry_after(after);
        let trouble = stale(after_failure(&record(false), &keep(), &failure, now)).trouble.unwrap();
        assert_eq!(trouble.kind, TroubleKind::Limited);
        trouble.retry_at.since(now)
    };
    assert_eq!(pause(Duration::from_secs(1)), MIN_BACKOFF);
    assert_eq!(pause(Duration::from_secs(900)), Duration::from_secs(900));
    assert_eq!(pause(Duration::from_secs(u64::MAX)), Duration::from_secs(6 * 3600));
}

/// What rests on credentials and was refused is denied until upstream relents: neither a pause, nor a low budget, nor an
/// outage, nor a slow HEAD opens it.
#[test]
fn what_was_refused_stays_shut() {
    let now = START.plus(2 * HOUR);
    let AfterFailure::Deny { record: held } =
        after_failure(&record(true), &keep(), &failed(Reason::UpstreamDenied), now)
    else {
        panic!("not denied")
    };
    for budget_low in [false, true] {
        assert_eq!(tag_verdict(&held, &keep(), now, budget_low), TagVerdict::Denied);
        let later = tag_verdict(&held, &keep(), now.plus(HOUR), budget_low);
        assert_eq!(later, TagVerdict::Revalidate { wait: None });
    }
    for reason in [Reason::UpstreamTimeout, Reason::UpstreamRateLimited, Reason::Overloaded] {
        let after = after_failure(&held, &keep(), &failed(reason), now.plus(HOUR));
        assert!(matches!(after, AfterFailure::Deny { .. }), "{reason:?}");
    }
    let relented = held.confirmed(now.plus(HOUR));
    assert!(matches!(tag_verdict(&relented, &keep(), now.plus(HOUR), false), TagVerdict::Fresh { .. }));
}

#[test]
fn a_kept_tag_outlives_max_stale_unless_the_owner_changes_their_mind() {
    let mut held = record(false);
    for days in [1, 30, 300] {
        let now = START.plus(days * DAY);
        held = stale(after_failure(&held, &keep(), &failed(Reason::ManifestUnknown), now));
        let kind = Some(TroubleKind::Gone);
        assert_eq!(tag_verdict(&held, &keep(), now, false), TagVerdict::Stale { kind });
    }
    let now = START.plus(301 * DAY);
    // An outage after that does not take it away either.
    held = stale(after_failure(&held, &keep(), &failed(Reason::UpstreamUnreachable), now));
    assert_eq!(tag_verdict(&held, &policy(OnGone::Follow), now, false), TagVerdict::Gone);
}

/// T-CP4: only "not found" is remembered, and for less than its time.
#[test]
fn t_cp4_only_absence_is_remembered_and_not_for_long() {
    let ttl = Duration::from_secs(10);
    for &reason in Reason::ALL {
        let record = NegativeRecord::of(&failed(reason), START);
        assert_eq!(record.is_some(), reason.is_absence(), "{reason:?}");
        let Some(record) = record else { continue };
        assert_eq!(record.stands(ttl, START).unwrap().reason, reason);
        assert!(record.stands(ttl, START.plus(Duration::from_millis(9_999))).is_some());
        assert!(record.stands(ttl, START.plus(ttl)).is_none());
        assert!(record.stands(ttl, Wall(START.0 - 1)).is_none(), "a clock set back");
        assert!(record.stands(Duration::ZERO, START).is_none());
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut cache = sample::config().cache;
    let rule = |images: &[&str], tags: &[&str], seconds| TtlRule {
        images: sample::patterns(images),
        tags: sample::patterns(tags),
        manifest_ttl: Duration::from_secs(seconds),
    };
    cache.rules = vec![rule(&["library/*"], &["latest", "nightly*"], 600), rule(&["*"], &["latest"], 1200)];
    for (image, label, seconds) in [
        ("library/busybox", "latest", 600),
        ("library/busybox", "nightly-2026", 600),
        ("library/busybox", "1.36", 3600),
        ("a/b/c", "latest", 1200),
        ("a/b", "v1", 3600),
    ] {
        let ttl = ttl_for(&cache, &name(image), &tag(label));
        assert_eq!(ttl.as_secs(), seconds, "{image}:{label}");
    }
}

/// Signatures and lists of referrers appear after their image.
#[test]
fn signatures_are_believed_for_a_minute_at_most() {
    let cache = sample::config().cache;
    let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (label, signature) in [
        (format!("sha256-{hex}"), true),
        (format!("sha256-{hex}.sig"), true),
        (format!("sha256-{hex}.att"), true),
        (format!("sha256-{hex}.sbom"), true),
        (format!("sha512-{}", hex.repeat(2)[..120].to_owned()), true),
        ("sha256-latest".to_owned(), false),
        (format!("md5-{hex}"), false),
        (hex.to_owned(), false),
        ("latest".to_owned(), false),
    ] {
        let label = tag(&label);
        assert_eq!(is_signature(&label), signature, "{label}");
        let expected = if signature { SIGNATURE_TTL } else { HOUR };
        assert_eq!(ttl_for(&cache, &name("a/b"), &label), expected);
    }
    assert_eq!(list_ttl(&cache), SIGNATURE_TTL);
}

#[test]
fn records_survive_the_store() {
    let now = START.plus(2 * HOUR);
    let troubled = stale(after_failure(&record(true), &keep(), &failed(Reason::UpstreamTimeout), now));
    for record in [record(false), troubled] {
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<TagRecord>(&text).unwrap(), record);
    }
}

proptest! {
    /// A step machine of failures and recoveries: upstream is never asked within a pause, the pauses stay in bounds, and
    /// nothing credentialed is stale after a refusal.
    #[test]
    fn the_state_table_holds_on_every_walk(
        credentialed: bool,
        follow: bool,
        steps in proptest::collection::vec((0u64..200_000_000, 0usize..40), 1..40),
    ) {
        let policy = policy(if follow { OnGone::Follow } else { OnGone::Keep });
        let mut held = record(credentialed);
        let mut now = START;
        let mut refused = false;
        for (gap, what) in steps {
            now = now.plus(Duration::from_millis(gap));
            let verdict = tag_verdict(&held, &policy, now, false);
            match verdict {
                TagVerdict::Fresh { left } => prop_assert!(left <= policy.ttl && held.trouble.is_none()),
                TagVerdict::Stale { .. } => prop_assert!(!(refused && credentialed)),
                TagVerdict::Denied => prop_assert!(refused && credentialed),
                TagVerdict::Revalidate { wait } => prop_assert_eq!(wait.is_none(), refused && credentialed),
                TagVerdict::Gone => {}
            }
            let asks = matches!(verdict, TagVerdict::Revalidate { .. } | TagVerdict::Gone);
            if let Some(trouble) = held.trouble {
                prop_assert!(!asks || now >= trouble.retry_at || verdict == TagVerdict::Gone);
            }
            if !asks {
                continue;
            }
            let Some(&reason) = Reason::ALL.get(what) else {
                (held, refused) = (held.confirmed(now), false);
                continue;
            };
            match after_failure(&held, &policy, &failed(reason), now) {
                AfterFailure::Stale { record, .. } | AfterFailure::Deny { record } => {
                    let pause = record.trouble.unwrap().retry_at.since(now);
                    prop_assert!((MIN_BACKOFF..=MAX_BACKOFF).contains(&pause));
                    refused = record.trouble.unwrap().kind == TroubleKind::Refused;
                    held = record;
                }
                AfterFailure::Follow | AfterFailure::TooOld => {
                    (held, refused) = (TagRecord { checked: now, ..record(credentialed) }, false);
                }
            }
        }
    }
}
