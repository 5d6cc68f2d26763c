//! Large blobs over long lines: several conversations, one blob, each byte once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use entrepot_core::upstream::{Fault, Outbound};
use http::header::{CONTENT_RANGE, ETAG, RANGE};

use crate::memory::{Ask, Said, World, get};
use crate::samples::{descriptor, digest, image_with, public};

/// Enough for four connections with two pieces each.
const SIZE: usize = 17 << 20;
const PIECE: usize = 2_228_224;
/// Seconds to the head of each answer.
const FAR: f64 = 0.1;

/// A registry with one large layer, and what it was asked for.
struct Far {
    world: World,
    layer: Bytes,
    asked: Rc<RefCell<Vec<(usize, usize)>>>,
}

/// What a registry says of the bytes from the first to the last.
type Answer = dyn Fn(usize, usize, Said) -> Said;

impl Far {
    /// A registry that answers as `answer` has it; its manifest is known.
    fn new(answer: impl Fn(usize, usize, Said) -> Said + 'static) -> Far {
        Far::of(SIZE, Box::new(answer), true)
    }

    fn of(size: usize, answer: Box<Answer>, described: bool) -> Far {
        let world = public();
        let bytes: Vec<u8> = (0..size).map(|at| (at / 251) as u8 ^ (at % 251) as u8).collect();
        let layer = Bytes::from(bytes);
        let text = image_with("one", &descriptor("layer.v1.tar", &layer, size as u64));
        let asked = Rc::<RefCell<Vec<_>>>::default();
        let (whole, log) = (layer.clone(), asked.clone());
        world.upstream.follow(move |request| {
            if request.url.path().contains("/manifests/") {
                return get("any").manifest(&text).after(FAR);
            }
            let (first, last) = range(request).unwrap_or((0, size - 1));
            log.borrow_mut().push((first, last));
            let part = get("any").header(ETAG, "\"v1\"").bytes(whole.slice(first..=last)).after(FAR);
            let part = match request.headers.contains_key(RANGE) {
                true => part.status(206).header(CONTENT_RANGE, &format!("bytes {first}-{last}/{size}")),
                false => part,
            };
            answer(first, last, part)
        });
        let far = Far { world, layer, asked };
        if described {
            assert_eq!(far.world.get("a/manifests/v1").brief(), "200 MISS");
        }
        far
    }

    fn path(&self) -> String {
        format!("a/blobs/{}", digest(&self.layer))
    }

    /// The blob comes whole and is stored; the ranges asked for, in order.
    #[track_caller]
    fn arrives(&self) -> Vec<(usize, usize)> {
        let answered = self.world.get(&self.path());
        assert!(answered.whole && answered.body == self.layer, "{}", answered.brief());
        assert_eq!(self.world.get(&self.path()).brief(), "200 HIT");
        self.asked.take()
    }
}

/// First and last byte, where the request has both.
fn range(request: &Outbound) -> Option<(usize, usize)> {
    let text = request.headers.get(RANGE)?.to_str().unwrap().strip_prefix("bytes=")?;
    let (first, last) = text.split_once('-')?;
    Some((first.parse().unwrap(), if last.is_empty() { SIZE - 1 } else { last.parse().unwrap() }))
}

/// Where pieces begin and end that nobody keeps from being fetched.
fn pieces() -> Vec<(usize, usize)> {
    (0..SIZE).step_by(PIECE).map(|first| (first, (first + PIECE).min(SIZE) - 1)).collect()
}

#[test]
fn a_large_blob_from_afar_comes_in_pieces_and_each_byte_once() {
    let under_way = Rc::<Cell<usize>>::default();
    let most = Rc::<Cell<usize>>::default();
    let (now, peak) = (under_way.clone(), most.clone());
    let far = Far::new(move |_, _, said| {
        now.set(now.get() + 1);
        peak.set(peak.get().max(now.get()));
        said.pause(1000, 1.0)
    });
    let start = far.world.clock.millis();
    assert_eq!(far.arrives(), pieces());
    // Two turns of four, the first of which waits for the head of the very first piece.
    let took = far.world.clock.millis() - start;
    assert!((2300..2600).contains(&took), "{took} ms");
}

#[test]
fn a_blob_from_nearby_and_a_small_one_come_by_one_request() {
    let near = Far::of(SIZE, Box::new(|_, _, said| said.after(0.001)), false);
    near.world.advance(1.0);
    near.world.upstream.follow({
        let layer = near.layer.clone();
        let asked = near.asked.clone();
        let text = image_with("one", &descriptor("layer.v1.tar", &layer, SIZE as u64));
        move |request| {
            if request.url.path().contains("/manifests/") {
                return get("any").manifest(&text).after(0.001);
            }
            assert_eq!(range(request), None);
            asked.borrow_mut().push((0, SIZE - 1));
            get("any").blob(&layer)
        }
    });
    assert_eq!(near.world.get("a/manifests/v1").brief(), "200 MISS");
    assert_eq!(near.arrives(), [(0, SIZE - 1)]);
    let size = 5 << 20;
    assert_eq!(Far::of(size, Box::new(|_, _, said| said), true).arrives(), [(0, size - 1)]);
}

/// T-UF4: each piece is resumed on its own.
#[test]
fn t_uf4_pieces_that_break_go_on_where_they_broke() {
    let broken = Rc::<RefCell<Vec<usize>>>::default();
    let log = broken.clone();
    let far = Far::new(move |first, _, said| {
        if first % PIECE == 0 && first != PIECE {
            log.borrow_mut().push(first);
            return said.pause(1000, 1.0).cut(1_000_000);
        }
        said.pause(1000, 1.0)
    });
    let mut asked = far.arrives();
    asked.sort_unstable();
    let mut expected = pieces();
    expected.extend(broken.borrow().iter().map(|first| (first + 1_000_000, (first + PIECE).min(SIZE) - 1)));
    expected.sort_unstable();
    assert_eq!(asked, expected, "nothing is asked for twice");
    assert_eq!(far.world.events("Resumed"), broken.borrow().len());
}

/// T-UF4: who serves a first part and then everything, or another object, is read by one request from there on.
#[test]
fn t_uf4_further_pieces_that_do_not_fit_are_given_up() {
    type Wrong = fn(Said) -> Said;
    let wrong: [(&str, Wrong); 4] = [
        ("everything", |said| said.status(200).header(ETAG, "\"v1\"").without(CONTENT_RANGE)),
        ("another object", |said| said.header(ETAG, "\"v2\"")),
        ("another size", |said| {
            said.header(CONTENT_RANGE, &format!("bytes {PIECE}-{}/{}", 2 * PIECE - 1, SIZE + 1))
        }),
        ("nothing", |said| said.status(416)),
    ];
    for (name, wrong) in wrong {
        let far = Far::new(
            move |first, last, said| {
                if first > 0 && last < SIZE - 1 { wrong(said) } else { said.pause(1000, 2.0) }
            },
        );
        let asked = far.arrives();
        assert_eq!(asked.first(), Some(&(0, PIECE - 1)), "{name}");
        let (from, to) = *asked.last().unwrap();
        assert_eq!(to, SIZE - 1, "{name}");
        assert!(from <= PIECE, "{name}: {asked:?}");
    }
}

/// What a host that is asked too often refuses, others bring.
#[test]
fn t_uf4_further_connections_that_are_refused_are_done_without() {
    let far = Far::new(|first, _, said| {
        if (1..4).contains(&(first / PIECE)) && first % PIECE == 0 {
            return said.fails(Fault::Tls);
        }
        said.pause(1000, 1.0)
    });
    let answered = far.world.get(&far.path());
    assert!(!answered.whole, "bytes that nobody has");
    // Refused beside others, and had alone.
    type Refusal = fn(Said) -> Said;
    let refusals: [Refusal; 3] =
        [|said| said.fails(Fault::Connect), |said| said.status(503), |said| said.status(429)];
    for refusal in refusals {
        let far = Far::new(move |first, last, said| match first > 0 && last - first < PIECE {
            true => refusal(said),
            false => said.pause(1000, 1.0),
        });
        let asked = far.arrives();
        assert!(asked.len() <= 6, "{asked:?}");
        assert_eq!(
            far.world.get("a/manifests/other").brief(),
            "200 MISS",
            "upstream is not left alone for it"
        );
    }
}

#[test]
fn pieces_end_where_the_disk_does() {
    let far = Far::new(|_, _, said| said.pause(1000, 1.0));
    far.world.store.disk_ends(SIZE as u64 / 2);
    let asked = far.arrives();
    let (from, to) = *asked.last().unwrap();
    assert!(from > 0 && to == SIZE - 1, "{asked:?}");
}

#[test]
fn fills_at_the_same_time_share_their_further_connections() {
    let far = Far::new(|_, _, said| said.pause(1000, 10.0));
    let layers: Vec<Bytes> = (0..10u8).map(|seed| vec![seed; SIZE].into()).collect();
    let described: Vec<_> =
        layers.iter().map(|layer| descriptor("layer.v1.tar", layer, SIZE as u64)).collect();
    let text = image_with("many", &described.join(","));
    let count = Rc::<Cell<usize>>::default();
    let asked = count.clone();
    far.world.upstream.follow({
        let layers = layers.clone();
        move |request| {
            let path = request.url.path();
            if path.contains("/manifests/") {
                return get("any").manifest(&text).after(FAR);
            }
            asked.set(asked.get() + 1);
            let layer = layers.iter().find(|layer| path.ends_with(&digest(layer).to_string())).unwrap();
            let (first, last) = range(request).unwrap();
            let said = get("any").bytes(layer.slice(first..=last)).after(FAR).pause(1000, 10.0);
            said.status(206).header(CONTENT_RANGE, &format!("bytes {first}-{last}/{SIZE}"))
        }
    });
    assert_eq!(far.world.get("a/manifests/many").brief(), "200 MISS");
    let clients: Vec<_> =
        layers.iter().map(|layer| far.world.ask(Ask::get(&format!("a/blobs/{}", digest(layer))))).collect();
    far.world.advance(1.0);
    assert_eq!(count.get(), 10 + 24);
    far.world.advance(1000.0);
    assert!(clients.iter().all(|client| client.take().unwrap().whole));
    assert_eq!(count.get(), 10 * pieces().len());
}

/// Where nothing says the size before upstream does, a long answer is left for pieces as soon as it has begun.
#[test]
fn a_size_that_shows_late_costs_one_request() {
    let size = 40 << 20;
    let far = Far::of(size, Box::new(|_, _, said| said.pause(1000, 1.0)), false);
    let asked = far.arrives();
    assert_eq!(asked[0], (0, size - 1));
    let mut parts = asked[1..].to_vec();
    parts.sort_unstable();
    assert!(parts.len() > 8 && parts[0].0 == 0 && parts.last().unwrap().1 == size - 1);
    assert!(parts.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{parts:?}");
}
