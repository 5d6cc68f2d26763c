use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::time::Duration;

use bytes::Buf as _;
use entrepot_core::failure::Reason;
use entrepot_core::upstream::Fault;
use entrepot_engine::ports::{Filled, Ticket as _};
use futures_util::{StreamExt as _, stream};

use super::fill::HELD_BACK;
use super::*;

const STALL: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits { max_size: 10_000_000, keep: None };

fn opened() -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Store::open(dir.path(), LIMITS).unwrap(), dir)
}

/// Bytes that differ everywhere, and their digest.
fn object(seed: u8, size: usize) -> (Bytes, Digest) {
    let bytes: Vec<u8> = (0..size).map(|at| (at / 251) as u8 ^ (at % 251) as u8 ^ seed).collect();
    let digest = Digest::sha256(&bytes);
    (bytes.into(), digest)
}

fn body(bytes: &Bytes) -> Incoming {
    let pieces: Vec<_> = bytes.chunks(50_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Incoming::of(stream::iter(pieces))
}

/// Everything that comes, and how it ends.
async fn all(body: Body) -> (Vec<u8>, Result<(), BodyBroken>) {
    let mut got = Vec::new();
    let mut pieces = body.over(None);
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => got.extend_from_slice(piece.chunk()),
            Err(broken) => return (got, Err(broken)),
        }
    }
    (got, Ok(()))
}

fn span(bytes: &Bytes) -> Range<u64> {
    0..bytes.len() as u64
}

fn whole(bytes: &Bytes) -> ByteSpan {
    ByteSpan { start: 0, end: bytes.len() as u64 }
}

async fn yours(store: &Store, digest: Digest) -> (FillTicket, Following) {
    match store.claim(digest, "test").await {
        Claim::Yours(ticket, follower) => (ticket, follower),
        other => panic!("{other:?}"),
    }
}

async fn filling(store: &Store, digest: Digest) -> Following {
    match store.claim(digest, "test").await {
        Claim::Filling { follower, .. } => follower,
        other => panic!("{other:?}"),
    }
}

/// How the store is filled, in short.
async fn put(store: &Store, bytes: &Bytes, digest: Digest) {
    let (mut ticket, _follower) = yours(store, digest).await;
    ticket.begin(Some(bytes.len() as u64)).await;
    assert_eq!(ticket.fill(span(bytes), 0, body(bytes), STALL).await, Filled::Whole);
    assert_eq!(ticket.seal().await.unwrap(), bytes.len() as u64);
    assert!(store.stored(digest).await.is_some());
}

#[tokio::test]
async fn a_fill_serves_all_who_ask_and_is_stored() {
    let (store, dir) = opened();
    let (bytes, digest) = object(1, 1_000_003);
    let (mut ticket, first) = yours(&store, digest).await;
    let mut second = filling(&store, digest).await;
    ticket.begin(Some(bytes.len() as u64)).await;
    assert_eq!(second.head().await.unwrap(), bytes.len() as u64);
    let reads = [first.body(whole(&bytes)), second.body(ByteSpan { start: 400_000, end: 400_010 })];
    let reads = reads.map(|body| tokio::spawn(all(body)));
    assert_eq!(ticket.fill(span(&bytes), 0, body(&bytes), STALL).await, Filled::Whole);
    ticket.seal().await.unwrap();
    let [first, second] = reads;
    assert_eq!(first.await.unwrap().0, bytes);
    assert_eq!(second.await.unwrap().0, bytes[400_000..400_010]);
    let Claim::Stored(stored) = store.claim(digest, "test").await else { panic!("not stored") };
    assert_eq!(stored.size(), bytes.len() as u64);
    assert_eq!(all(stored.body(whole(&bytes))).await.0, bytes);
    assert_eq!((store.used(), store.fills()), (bytes.len() as u64, 0));
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_end_waits_for_the_digest_and_a_wrong_one_stores_nothing() {
    let (store, _dir) = opened();
    let (bytes, digest) = object(1, 500_000);
    let mut wrong = bytes.to_vec();
    wrong[499_999] ^= 1;
    let wrong = Bytes::from(wrong);
    let (mut ticket, follower) = yours(&store, digest).await;
    ticket.begin(Some(500_000)).await;
    let read = tokio::spawn(all(follower.body(whole(&bytes))));
    assert_eq!(ticket.fill(0..500_000, 0, body(&wrong), STALL).await, Filled::Whole);
    assert_eq!(ticket.seal().await.unwrap_err().reason, Reason::DigestMismatch);
    let (got, ended) = read.await.unwrap();
    assert!(ended.is_err());
    assert!(got.len() as u64 <= 500_000 - HELD_BACK, "{} bytes are out", got.len());
    assert_eq!(store.used(), 0);
    put(&store, &bytes, digest).await;
}

#[tokio::test]
async fn a_broken_body_goes_on_where_it_broke() {
    let (store, _dir) = opened();
    let (bytes, digest) = object(1, 900_000);
    let (mut ticket, follower) = yours(&store, digest).await;
    ticket.begin(Some(900_000)).await;
    let read = tokio::spawn(all(follower.body(whole(&bytes))));
    let broken = [Ok(bytes.slice(..333_333)), Err(io::Error::other("cut"))];
    let Filled::Broken { received, .. } =
        ticket.fill(0..900_000, 0, Incoming::of(stream::iter(broken)), STALL).await
    else {
        panic!("it broke")
    };
    assert_eq!(received, 333_333);
    // Upstream begins earlier than asked: what is held is skipped.
    assert_eq!(
        ticket.fill(333_333..900_000, 300_000, body(&bytes.slice(300_000..)), STALL).await,
        Filled::Whole
    );
    ticket.seal().await.unwrap();
    assert_eq!(read.await.unwrap().0, bytes);
}

/// A body of several arrivals, each after a while.
fn slow(bytes: Bytes, pause: Duration) -> Incoming {
    let pieces: Vec<_> = bytes.chunks(20_000).map(Bytes::copy_from_slice).collect();
    Incoming::of(stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok(piece)
    }))
}

#[tokio::test]
async fn pieces_that_come_at_once_are_followed_in_order() {
    let (store, _dir) = opened();
    let (bytes, digest) = object(1, 1_000_000);
    let (mut ticket, follower) = yours(&store, digest).await;
    ticket.begin(Some(1_000_000)).await;
    assert!(ticket.takes_pieces());
    let read = tokio::spawn(all(follower.body(whole(&bytes))));
    let fill = |from: u64, to: u64, millis| {
        let body = slow(bytes.slice(from as usize..to as usize), Duration::from_millis(millis));
        ticket.fill(from..to, from, body, STALL)
    };
    // The last comes first, and the second last.
    let (a, b, c, d) = tokio::join!(
        fill(0, 250_000, 3),
        fill(250_000, 500_000, 10),
        fill(500_000, 750_000, 5),
        fill(750_000, 1_000_000, 0)
    );
    assert!([a, b, c, d].iter().all(|filled| *filled == Filled::Whole));
    assert_eq!(ticket.in_order().await, 1_000_000);
    ticket.seal().await.unwrap();
    assert_eq!(read.await.unwrap().0, bytes);
    assert!(store.stored(digest).await.is_some());
}

#[tokio::test]
async fn what_came_before_its_turn_is_not_followed_and_not_lost() {
    let (store, _dir) = opened();
    let (bytes, digest) = object(1, 600_000);
    let (mut ticket, follower) = yours(&store, digest).await;
    ticket.begin(Some(600_000)).await;
    let late = ticket.fill(200_000..600_000, 200_000, body(&bytes.slice(200_000..)), STALL);
    assert_eq!(late.await, Filled::Whole);
    let broken = [Ok(bytes.slice(..100_000)), Err(io::Error::other("cut"))];
    let broken = ticket.fill(0..200_000, 0, Incoming::of(stream::iter(broken)), STALL).await;
    assert_eq!(broken, Filled::Broken { received: 100_000, fault: Fault::Reset });
    let rest = ticket.fill(100_000..200_000, 100_000, body(&bytes.slice(100_000..200_000)), STALL).await;
    assert_eq!((rest, ticket.in_order().await), (Filled::Whole, 600_000));
    let read = tokio::spawn(all(follower.body(whole(&bytes))));
    ticket.seal().await.unwrap();
    assert_eq!(read.await.unwrap().0, bytes);
}

#[tokio::test]
async fn a_piece_that_runs_into_its_neighbour_is_too_long() {
    let (store, _dir) = opened();
    let (bytes, digest) = object(1, 600_000);
    let (mut ticket, _follower) = yours(&store, digest).await;
    ticket.begin(Some(600_000)).await;
    assert_eq!(ticket.fill(0..200_000, 0, body(&bytes), STALL).await, Filled::TooLong);
}

#[tokio::test]
async fn pieces_of_another_object_are_found_out() {
    let (store, _dir) = opened();
    let ((bytes, digest), (other, _)) = (object(1, 600_000), object(2, 600_000));
    let (mut ticket, follower) = yours(&store, digest).await;
    ticket.begin(Some(600_000)).await;
    let read = tokio::spawn(all(follower.body(whole(&bytes))));
    let second = ticket.fill(300_000..600_000, 300_000, body(&other.slice(300_000..)), STALL);
    assert_eq!(second.await, Filled::Whole);
    let first = ticket.fill(0..300_000, 0, body(&bytes.slice(..300_000)), STALL);
    assert_eq!(first.await, Filled::Whole);
    assert_eq!(ticket.seal().await.unwrap_err().reason, Reason::DigestMismatch);
    let (got, ended) = read.await.unwrap();
    assert!(ended.is_err() && got.len() as u64 <= 600_000 - HELD_BACK);
    assert_eq!(store.used(), 0);
}

/// What was hashed is what is stored, whoever brings the same bytes a second time.
#[tokio::test]
async fn what_is_given_up_does_not_count() {
    let (store, _dir) = opened();
    let ((bytes, digest), (other, _)) = (object(1, 600_000), object(2, 600_000));
    let (mut ticket, _follower) = yours(&store, digest).await;
    ticket.begin(Some(600_000)).await;
    let ahead = ticket.fill(300_000..600_000, 300_000, body(&bytes.slice(300_000..)), STALL);
    assert_eq!(ahead.await, Filled::Whole);
    assert_eq!(ticket.in_order().await, 0);
    let rest: Bytes = [&bytes[..300_000], &other[300_000..]].concat().into();
    assert_eq!(ticket.fill(0..600_000, 0, body(&rest), STALL).await, Filled::Whole);
    assert_eq!(ticket.seal().await.unwrap_err().reason, Reason::DigestMismatch);
    assert!(store.stored(digest).await.is_none());
}

/// T-DF1: without a disk there is one stream only.
#[tokio::test]
async fn t_df1_without_a_disk_there_are_no_pieces() {
    let (store, dir) = opened();
    fs::remove_dir(dir.path().join("tmp")).unwrap();
    let (bytes, digest) = object(1, 600_000);
    let (mut ticket, follower) = yours(&store, digest).await;
    ticket.begin(Some(600_000)).await;
    assert!(!ticket.takes_pieces());
    let read = tokio::spawn(all(follower.body(whole(&bytes))));
    let ahead = ticket.fill(300_000..600_000, 300_000, body(&bytes.slice(300_000..)), STALL);
    assert_eq!(ahead.await, Filled::InOrder);
    assert_eq!(ticket.fill(0..200_000, 0, body(&bytes.slice(..200_000)), STALL).await, Filled::Whole);
    let rest = ticket.fill(200_000..600_000, 200_000, body(&bytes.slice(200_000..)), STALL);
    assert_eq!(rest.await, Filled::Whole);
    ticket.seal().await.unwrap();
    assert_eq!(read.await.unwrap().0, bytes);
}

#[tokio::test]
async fn a_dropped_ticket_fails_who_follows_and_frees_the_slot() {
    let (store, _dir) = opened();
    let (bytes, digest) = object(1, 500_000);
    let (mut ticket, follower) = yours(&store, digest).await;
    let mut waiting = filling(&store, digest).await;
    ticket.begin(Some(500_000)).await;
    drop(ticket);
    assert!(all(follower.body(whole(&bytes))).await.1.is_err());
    assert!(waiting.head().await.is_err());
    assert_eq!((store.fills(), store.0.space.lock().reserved), (0, 0));
    put(&store, &bytes, digest).await;
}

#[tokio::test]
async fn more_than_announced_is_too_long() {
    let (store, _dir) = opened();
    let (bytes, digest) = object(1, 500_000);
    let (mut ticket, _follower) = yours(&store, digest).await;
    ticket.begin(Some(499_999)).await;
    assert_eq!(ticket.fill(0..499_999, 0, body(&bytes), STALL).await, Filled::TooLong);
}

/// T-DF1: without a disk the bytes go through memory to who follows from the start; who comes later starts anew.
#[tokio::test]
async fn t_df1_without_a_disk() {
    let (store, dir) = opened();
    fs::remove_dir(dir.path().join("tmp")).unwrap();
    let (bytes, digest) = object(1, 4_000_000);
    let (mut ticket, follower) = yours(&store, digest).await;
    ticket.begin(Some(4_000_000)).await;
    assert!(!store.healthy());
    let early = filling(&store, digest).await;
    let reads = [follower, early].map(|follower| tokio::spawn(all(follower.body(whole(&bytes)))));
    assert_eq!(ticket.fill(span(&bytes), 0, body(&bytes), STALL).await, Filled::Whole);
    assert!(matches!(store.claim(digest, "test").await, Claim::Yours(..)), "the beginning is gone");
    ticket.seal().await.unwrap();
    for read in reads {
        assert_eq!(read.await.unwrap().0, bytes);
    }
    assert!(store.stored(digest).await.is_none());
    store.0.probe();
    assert!(store.healthy());
    put(&store, &bytes, digest).await;
}

/// T-DF1: one follower that does not read does not hold up the others.
#[tokio::test]
async fn t_df1_the_slow_are_left_behind_in_memory() {
    let (store, dir) = opened();
    fs::remove_dir(dir.path().join("tmp")).unwrap();
    let (bytes, digest) = object(1, 5_000_000);
    let (mut ticket, fast) = yours(&store, digest).await;
    ticket.begin(Some(5_000_000)).await;
    let slow = filling(&store, digest).await.body(whole(&bytes));
    let fast = tokio::spawn(all(fast.body(whole(&bytes))));
    assert_eq!(ticket.fill(span(&bytes), 0, body(&bytes), Duration::from_millis(100)).await, Filled::Whole);
    ticket.seal().await.unwrap();
    assert_eq!(fast.await.unwrap().0, bytes);
    assert!(all(slow).await.1.is_err());
}

#[tokio::test]
async fn a_fill_that_nobody_wants_and_no_disk_takes_is_abandoned() {
    let (store, dir) = opened();
    fs::remove_dir(dir.path().join("tmp")).unwrap();
    let (bytes, digest) = object(1, 2_000_000);
    let (mut ticket, follower) = yours(&store, digest).await;
    ticket.begin(Some(2_000_000)).await;
    drop(follower);
    assert_eq!(ticket.fill(span(&bytes), 0, body(&bytes), STALL).await, Filled::Abandoned);
}

/// T-DF6: the oldest go first, the lowest digest among equals; what is served stays.
#[tokio::test]
async fn t_df6_the_order_of_eviction() {
    let (store, _dir) = opened();
    let mut objects: Vec<_> = (0..8).map(|seed| object(seed, 1_000_000)).collect();
    for (bytes, digest) in &objects {
        put(&store, bytes, *digest).await;
    }
    let shared = &store.0;
    objects.sort_by_key(|(_, digest)| *digest);
    shared.touched.lock().clear();
    for (_, digest) in &objects {
        let entry = shared.index.object(digest).unwrap();
        shared.index.set_object(*digest, Some(Entry { used: 1000, ..entry }));
    }
    let last = objects[0].1;
    shared.index.set_object(last, shared.index.object(&last).map(|entry| Entry { used: 1001, ..entry }));
    let served = Pin::new(shared, objects[1].1);
    shared.make_room(6_000_000);
    let left: Vec<bool> = objects.iter().map(|(_, digest)| shared.index.row(digest).is_some()).collect();
    assert_eq!(left, [true, true, false, false, false, false, true, true]);
    assert_eq!(store.used(), 4_000_000);
    shared.make_room(10_000_000);
    assert_eq!(store.used(), 1_000_000, "all but what is served");
    drop(served);
    shared.make_room(10_000_000);
    assert_eq!(store.used(), 0);
}

/// T-DF6: fills under way count, and at most one object stands out.
#[tokio::test]
async fn t_df6_room_is_reserved() {
    let (store, _dir) = opened();
    let shared = &store.0;
    let rooms: Vec<_> = (0..3).map(|_| shared.reserve(4_000_000)).collect();
    assert!(rooms.iter().all(Option::is_some), "the third stands out");
    assert!(shared.reserve(1).is_none(), "the fourth would come on top");
    drop(rooms);
    assert_eq!(shared.space.lock().reserved, 0);
    let (bytes, digest) = object(1, 3_000_000);
    put(&store, &bytes, digest).await;
    assert!(shared.reserve(7_000_001).is_some());
    assert_eq!(store.used(), 0, "the old one made room");
}

/// T-DF1: an index that takes no writes does not keep eviction from ending.
#[tokio::test]
async fn t_df1_eviction_ends_without_an_index() {
    let (store, dir) = opened();
    let (bytes, digest) = object(1, 6_000_000);
    put(&store, &bytes, digest).await;
    store.flush();
    fs::remove_file(dir.path().join("index.db")).unwrap();
    fs::create_dir_all(dir.path().join("index.db/inside")).unwrap();
    store.0.make_room(9_000_000);
    assert!(store.0.reserve(9_000_000).is_some());
}

#[tokio::test]
async fn files_that_the_index_does_not_name_are_hashed_and_adopted_or_removed() {
    let (store, dir) = opened();
    let ((good, good_digest), (bad, bad_digest)) = (object(1, 300_000), object(2, 300_000));
    put(&store, &good, good_digest).await;
    put(&store, &bad, bad_digest).await;
    store.flush();
    drop(store);
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(dir.path().join(name));
    }
    let file = fs::File::options()
        .write(true)
        .open(Layout::create(dir.path()).unwrap().object(&bad_digest))
        .unwrap();
    file.write_all_at(b"x", 299_999).unwrap();
    let store = reopened(dir.path());
    store.0.sweep();
    assert_eq!(store.used(), 300_000);
    assert!(store.stored(good_digest).await.is_some());
    assert!(store.stored(bad_digest).await.is_none());
    assert_eq!(store.counts().quarantined.load(Ordering::Relaxed), 1);
}

/// The index' thread ends a moment after its store, and with it the lock.
fn reopened(dir: &Path) -> Store {
    let start = std::time::Instant::now();
    loop {
        match Store::open(dir, LIMITS) {
            Ok(store) => return store,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn rows_without_a_file_go() {
    let (store, _dir) = opened();
    let (bytes, digest) = object(1, 300_000);
    put(&store, &bytes, digest).await;
    fs::remove_file(store.0.layout.object(&digest)).unwrap();
    store.0.sweep();
    assert_eq!((store.used(), store.0.index.row(&digest)), (0, None));
}

/// T-DF4: bits that rot under an unchanged stamp are found by the scrubber.
#[tokio::test]
async fn t_df4_the_scrubber_finds_rot() {
    let (store, _dir) = opened();
    let objects: Vec<_> = (0..4).map(|seed| object(seed, 200_000)).collect();
    for (bytes, digest) in &objects {
        put(&store, bytes, *digest).await;
    }
    let rotten = objects[2].1;
    let path = store.0.layout.object(&rotten);
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"rot", 77).unwrap();
    // The change time cannot be forged: the row is made to agree instead.
    let stamp = store.0.layout.stamp(&rotten).unwrap();
    store.0.index.set_object(rotten, Some(Entry { stamp, used: seconds() }));
    store.flush();
    assert!(store.stored(rotten).await.is_some(), "nothing shows it");
    let (mut last, mut scrubbed) = (None, 0);
    loop {
        let (next, bytes) = store.0.scrub_after(last);
        if next.is_none() {
            break;
        }
        (last, scrubbed) = (next, scrubbed + bytes);
    }
    assert_eq!(scrubbed, 800_000);
    assert_eq!(store.counts().quarantined.load(Ordering::Relaxed), 1);
    assert!(store.stored(rotten).await.is_none());
    assert_eq!(store.used(), 600_000);
}

#[tokio::test]
async fn what_was_stored_anew_is_not_removed_for_its_damaged_predecessor() {
    let (store, _dir) = opened();
    let (bytes, digest) = object(1, 200_000);
    put(&store, &bytes, digest).await;
    let old = store.0.layout.open(&digest).unwrap();
    store.0.discard(&digest);
    put(&store, &bytes, digest).await;
    store.0.quarantine(&digest, old.1, "found late");
    assert!(store.stored(digest).await.is_some());
    assert_eq!(store.counts().quarantined.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_manifest_is_kept_once() {
    let (store, _dir) = opened();
    let (bytes, digest) = object(1, 3_000);
    for _ in 0..3 {
        store.keep(digest, bytes.clone()).await;
    }
    assert_eq!(store.used(), 3_000);
    store.0.recent.forget(&digest);
    assert_eq!(store.read(digest, 3_000).await, Some(bytes));
    store.0.recent.forget(&digest);
    assert_eq!(store.read(digest, 2_999).await, None, "larger than asked for");
}

/// T-DF7
#[test]
fn t_df7_a_second_process_is_refused() {
    let (_store, dir) = opened();
    let refused = Store::open(dir.path(), LIMITS).unwrap_err().to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
}

#[test]
fn the_key_outlives_the_process_and_is_for_nobody_else() {
    let (store, dir) = opened();
    let key = store.signing_key().unwrap();
    assert_eq!(store.signing_key().unwrap(), key);
    let path = dir.path().join("key");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&path, b"short").unwrap();
    assert_ne!(store.signing_key().unwrap(), key);
    assert_eq!(fs::read(&path).unwrap().len(), 32);
}

#[test]
fn what_an_interrupted_run_left_is_swept() {
    let (store, dir) = opened();
    drop(store);
    fs::write(dir.path().join("tmp/fill-left"), b"x").unwrap();
    let _store = reopened(dir.path());
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}
