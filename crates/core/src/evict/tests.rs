use proptest::prelude::*;

use super::*;

fn candidate(n: u8, size: u64, used: u64, busy: bool) -> Candidate {
    Candidate { digest: Digest::sha256(&[n]), size, used: Wall(used), busy }
}

#[test]
fn nothing_goes_while_everything_fits() {
    assert_eq!(goal(1000, 900, 100), 0);
    assert_eq!(goal(1000, 901, 100), 1);
    assert_eq!(goal(1000, 0, 5000), 0, "there is nothing to free");
    assert_eq!(goal(0, 10, 0), 10);
    assert_eq!(goal(u64::MAX, u64::MAX, u64::MAX), 0);
}

#[test]
fn the_least_recently_used_go_first_and_busy_ones_stay() {
    let listed = [
        candidate(2, 10, 100, true),
        candidate(3, 10, 200, false),
        candidate(1, 10, 300, false),
        candidate(4, 10, 400, false),
    ];
    let sizes = |goal| plan(goal, listed).iter().map(|c| c.used.0).collect::<Vec<_>>();
    assert_eq!(sizes(0), [0u64; 0]);
    assert_eq!(sizes(1), [200]);
    assert_eq!(sizes(11), [200, 300]);
    assert_eq!(sizes(1000), [200, 300, 400]);
}

#[test]
fn an_object_outlives_its_last_use_by_blob_ttl() {
    let day = Duration::from_secs(86_400);
    let used = Wall(1_000_000);
    assert!(!outlived(used, None, Wall(u64::MAX)));
    assert!(!outlived(used, Some(day), used.plus(day)));
    assert!(outlived(used, Some(day), Wall(used.plus(day).0 + 1)));
    assert!(!outlived(used, Some(day), Wall(0)), "a clock set back removes nothing");
}

fn room(max_size: u64, blob_ttl: Option<u64>, now: u64) -> Room {
    Room { max_size, blob_ttl: blob_ttl.map(Duration::from_millis), now: Wall(now) }
}

#[test]
fn a_slice_makes_room_and_takes_what_has_outlived_its_use() {
    let listed: Vec<Candidate> = (0..10).map(|n| candidate(n, 10, u64::from(n), false)).collect();
    let taken = |room: Room| slice(&room, 100, listed.clone()).len();
    assert_eq!(taken(room(100, None, 1000)), 0);
    assert_eq!(taken(room(99, None, 1000)), 1);
    assert_eq!(taken(room(75, None, 1000)), 3);
    assert_eq!(taken(room(100, Some(5), 9)), 4, "used at 0, 1, 2 and 3");
    assert_eq!(taken(room(75, Some(5), 6)), 3, "the cap asks for more");
    assert_eq!(taken(room(0, Some(0), 1000)), 10);
}

#[test]
fn a_slice_is_bounded_and_passes_over_what_is_busy() {
    let many = (0..3000u32).map(|n| Candidate { busy: n % 2 == 0, ..candidate(0, 1, u64::from(n), false) });
    let taken = slice(&room(0, None, 0), 3000, many);
    assert_eq!(taken.len(), SLICE);
    assert!(taken.iter().all(|candidate| !candidate.busy));
}

#[test]
fn what_the_store_has_not_verified_counts_when_nobody_can_be_at_it() {
    let hour = 3_600_000;
    assert!(counts(true, Wall(5), Wall(5)));
    assert!(!counts(false, Wall(5), Wall(5 + hour)));
    assert!(counts(false, Wall(5), Wall(6 + hour)));
    assert!(!counts(false, Wall(5), Wall(0)), "a clock set back makes nothing older");
}

proptest! {
    /// T-DF6, the plan's part: it frees enough if it can and no more, no busy object goes, and nothing used later goes
    /// before something used earlier.
    #[test]
    fn t_df6_plans_are_sufficient_and_ordered(
        objects in proptest::collection::vec((1u64..1000, 0u64..50, any::<bool>()), 0..60),
        goal in 0u64..20_000,
    ) {
        let mut candidates: Vec<Candidate> = objects
            .iter()
            .zip(0u8..)
            .map(|(&(size, used, busy), n)| candidate(n, size, used, busy))
            .collect();
        candidates.sort_unstable_by_key(|candidate| (candidate.used, candidate.digest));
        let chosen = plan(goal, candidates.clone());
        let freed: u64 = chosen.iter().map(|c| c.size).sum();
        let free: u64 = candidates.iter().filter(|c| !c.busy).map(|c| c.size).sum();
        prop_assert!(freed >= goal.min(free));
        if let Some(last) = chosen.last() {
            prop_assert!(freed - last.size < goal, "one too many");
        }
        prop_assert!(chosen.iter().all(|c| !c.busy));
        let newest = chosen.iter().map(|c| c.used).max();
        let kept = candidates.iter().filter(|c| !c.busy && !chosen.contains(c)).map(|c| c.used).min();
        if let (Some(newest), Some(kept)) = (newest, kept) {
            prop_assert!(newest <= kept);
        }
    }
}
