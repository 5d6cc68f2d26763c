use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

fn v4(n: u32) -> LimitKey {
    LimitKey::new(Bucket::Pulls, IpAddr::V4(Ipv4Addr::from(n)))
}

fn allowed(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Allowed { .. })
}

/// The reference: a token bucket in exact fractions, refilled continuously.
struct Model {
    count: u128,
    per: u128,
    /// Tokens times `per`.
    level: u128,
    full: u128,
    last: u64,
}

impl Model {
    fn new(count: u32, per_ms: u64, burst: u32) -> Model {
        let (per, full) = (u128::from(per_ms), u128::from(burst) * u128::from(per_ms));
        Model { count: count.into(), per, level: full, full, last: 0 }
    }

    fn take(&mut self, now: u64) -> bool {
        self.level = (self.level + u128::from(now - self.last) * self.count).min(self.full);
        self.last = now;
        let enough = self.level >= self.per;
        if enough {
            self.level -= self.per;
        }
        enough
    }
}

proptest! {
    /// T-RL1: exact, to the request, against an independent model; rates that no number of milliseconds divides included.
    #[test]
    fn t_rl1_agrees_with_a_token_bucket(
        count in 1u32..500,
        per in 1u64..100_000,
        burst in 1u32..50,
        gaps in proptest::collection::vec(0u64..3000, 1..300),
    ) {
        let gcra = Gcra::new(count, Duration::from_millis(per), burst);
        let mut model = Model::new(count, per, burst);
        let (mut tat, mut now) = (None, 0);
        for gap in gaps {
            now += gap;
            match gcra.check(tat, Mono(now), 1) {
                Verdict::Allowed { tat: after, standing } => {
                    prop_assert!(model.take(now));
                    prop_assert_eq!(u128::from(standing.remaining), model.level / model.per);
                    tat = Some(after);
                }
                Verdict::Passed => prop_assert!(false, "an exact limiter knows what is left"),
                Verdict::Refused { retry_after, .. } => {
                    prop_assert!(!model.take(now));
                    // True to the millisecond: then, and not one earlier.
                    let wait = u64::try_from(retry_after.as_millis()).unwrap();
                    prop_assert!(allowed(gcra.check(tat, Mono(now + wait), 1)));
                    prop_assert!(!allowed(gcra.check(tat, Mono(now + wait - 1), 1)));
                }
            }
        }
    }

    /// T-RL4: whatever comes, no key is forgotten while a calmer one is remembered.
    #[test]
    fn t_rl4_the_calmest_key_goes_first(asks in proptest::collection::vec((0u32..12, 0u64..400), 1..200)) {
        let gcra = Gcra::new(1, Duration::from_secs(1), 20);
        let mut buckets = Buckets::new(5);
        let mut now = 0;
        for (key, gap) in asks {
            now += gap;
            let before: std::collections::BTreeMap<LimitKey, Mono> =
                buckets.tats.iter().map(|(key, (full_at, _))| (*key, *full_at)).collect();
            buckets.charge(&gcra, v4(key), Mono(now), 1);
            prop_assert!(buckets.len() <= 5);
            prop_assert_eq!(buckets.tats.len(), buckets.order.len());
            for (gone, full_at) in before.iter().filter(|(key, _)| !buckets.tats.contains_key(key)) {
                for (kept, kept_full_at) in before.iter().filter(|(key, _)| buckets.tats.contains_key(key)) {
                    prop_assert!(
                        *kept == v4(key) || full_at <= kept_full_at,
                        "{gone} was full at {full_at:?}, {kept} only at {kept_full_at:?}"
                    );
                }
            }
        }
    }
}

/// T-RL1: burst at once, then the rate; exactly `burst + window` over a window.
#[test]
fn t_rl1_burst_then_rate() {
    let gcra = Gcra::new(100, Duration::from_secs(60), 50);
    let mut buckets = Buckets::default();
    let at_once = (0..200).filter(|_| allowed(buckets.charge(&gcra, v4(1), Mono(5), 1))).count();
    assert_eq!(at_once, 50);
    let next_minute =
        (1..=60_000).filter(|ms| allowed(buckets.charge(&gcra, v4(1), Mono(5 + ms), 1))).count();
    assert_eq!(next_minute, 100);
}

/// T-RL1: a limit runs on the monotonic clock only, so the clock on the wall may jump: its type does not fit here. A
/// monotonic clock that stands still, or reads low for once, gives nothing away.
#[test]
fn t_rl1_a_clock_that_does_not_advance_refills_nothing() {
    let gcra = Gcra::new(1, Duration::from_secs(60), 1);
    let mut buckets = Buckets::default();
    assert!(allowed(buckets.charge(&gcra, v4(1), Mono(1000), 1)));
    for now in [1000, 999, 0, 1000] {
        assert!(!allowed(buckets.charge(&gcra, v4(1), Mono(now), 1)));
    }
}

#[test]
fn t_rl2_sixty_four_threads_get_no_more_than_the_limit() {
    let gcra = Gcra::new(100, Duration::from_secs(60), 50);
    let buckets = Mutex::new(Buckets::default());
    let total: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    (0..100)
                        .filter(|_| allowed(buckets.lock().unwrap().charge(&gcra, v4(7), Mono(9), 1)))
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(total, 50);
}

#[test]
fn t_rl4_ipv4_counts_by_address_and_ipv6_by_64() {
    let key = |text: &str| LimitKey::new(Bucket::Pulls, text.parse().unwrap());
    assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
    assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
    assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    assert_eq!(key("2001:db8:1:2::1").to_string(), "pulls:2001:0db8:0001:0002::/64");
    assert_eq!(key("192.0.2.1").to_string(), "pulls:192.0.2.1");
}

/// T-RL4, with fewer addresses than the 10^7 of the full run: memory is bounded by the capacity, not by how many come.
#[test]
fn t_rl4_a_flood_of_addresses_neither_grows_memory_nor_frees_a_hot_key() {
    let gcra = Gcra::new(100, Duration::from_secs(60), 50);
    let mut buckets = Buckets::new(1000);
    let hot = v4(1);
    let mut now = 0;
    let mut hot_allowed = 0;
    for n in 0..300_000u128 {
        // A thousand strangers for each millisecond: faster than buckets refill.
        now = u64::try_from(n / 1000).unwrap();
        let stranger = Ipv6Addr::from((0x2001_0db8_u128 << 96) | (n << 64));
        assert!(allowed(buckets.charge(&gcra, LimitKey::new(Bucket::Pulls, stranger.into()), Mono(now), 1)));
        if n % 100 == 0 && allowed(buckets.charge(&gcra, hot, Mono(now), 1)) {
            hot_allowed += 1;
        }
    }
    assert!(buckets.len() <= 1000);
    assert!(now < 600);
    assert_eq!(hot_allowed, 50, "never reset in the meantime");
}

#[test]
fn full_buckets_are_forgotten() {
    let gcra = Gcra::new(100, Duration::from_secs(60), 50);
    let mut buckets = Buckets::default();
    for n in 0..10 {
        buckets.charge(&gcra, v4(n), Mono(0), 1);
    }
    for step in 0..4 {
        buckets.charge(&gcra, v4(100), Mono(1000 + step), 1);
    }
    assert_eq!(buckets.len(), 1);
}

#[test]
fn all_requests_have_ten_times_the_limit_of_pulls() {
    let limit = RateLimit { count: 100, per: Duration::from_secs(60), burst: 50 };
    assert_eq!(Gcra::pulls(&limit), Gcra::new(100, Duration::from_secs(60), 50));
    assert_eq!(Gcra::requests(&limit), Gcra::new(1000, Duration::from_secs(60), 500));
}

/// T-RL9: a limiter that answers only yes or no. What it does not know is not told.
#[test]
fn t_rl9_a_limiter_that_answers_yes_or_no() {
    let limit = RateLimit { count: 100, per: Duration::from_secs(60), burst: 100 };
    assert_eq!(yes_or_no(Some(&limit), Bucket::Pulls, true), Verdict::Passed);
    for (bucket, count) in [(Bucket::Pulls, 100), (Bucket::Requests, 1000)] {
        let Verdict::Refused { retry_after, standing } = yes_or_no(Some(&limit), bucket, false) else {
            panic!("it said no")
        };
        assert_eq!((retry_after, standing.limit, standing.remaining), (limit.per, count, 0));
    }
}
