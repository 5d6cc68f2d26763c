//! T-BI5: what a manifest may cost. Sizes and counts at their limits, memory under 3 times the input, time under 50 ms per
//! MiB.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use entrepot_oci::manifest::{MAX_DEPTH, MAX_ITEMS, MAX_KEYS, MAX_MANIFEST, Manifest, ManifestError};
use serde_json::{Value, json};

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

thread_local! {
    /// Bytes that this thread holds, and the most it held.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

struct Counting;

// SAFETY: passes every call on to the system's allocator unchanged; the counters are plain cells without destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: isize) {
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    });
}

/// Parses, and says how many bytes that took at most and how many seconds.
fn measured(bytes: &[u8]) -> (Result<Manifest, ManifestError>, usize, f64) {
    let before = HELD.get().0;
    HELD.set((before, before));
    let (clock, cpu) = (Instant::now(), cpu_seconds());
    let result = Manifest::parse(bytes, None);
    let held = (HELD.get().1 - before).unsigned_abs();
    let seconds = match (cpu, cpu_seconds()) {
        (Some(start), Some(end)) => end - start,
        _ => clock.elapsed().as_secs_f64(),
    };
    (result, held, seconds)
}

/// What this thread has computed so far, where the system says so: a busy machine does not count.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(stat.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}

fn descriptor(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{HEX}"), "size": 7})
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
    })
}

fn with(mut value: Value, key: &str, member: Value) -> Value {
    value[key] = member;
    value
}

fn parse(value: &Value) -> Result<Manifest, ManifestError> {
    parse_text(&value.to_string())
}

fn parse_text(text: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(text.as_bytes(), None)
}

/// A well-formed image whose text holds `members` besides.
fn image_text(members: &str) -> String {
    let text = image().to_string();
    format!("{},{members}}}", &text[..text.len() - 1])
}

/// Texts that are as expensive as they can be made for their size.
fn expensive() -> Vec<(&'static str, String)> {
    let fill =
        |unit: &str| image_text(&format!("\"x\":[{}0]", unit.repeat((MAX_MANIFEST - 1000) / unit.len())));
    let layers = |layer: &str, count: usize| {
        with(image(), "layers", json!(["HERE"]))
            .to_string()
            .replace("\"HERE\"", &vec![layer; count].join(","))
    };
    let least = format!(r#"{{"mediaType":"a/b","digest":"sha256:{HEX}","size":1}}"#);
    let annotated =
        format!(r#"{{"mediaType":"a/b","digest":"sha256:{HEX}","size":1,"annotations":{{"a":""}}}}"#);
    let varied =
        |n: usize| format!(r#"{{"mediaType":"a/{n}","digest":"sha256:{HEX}","size":1,"platform":{{}}}}"#);
    let varied = (0..MAX_ITEMS).map(varied).collect::<Vec<_>>().join(",");
    let many_annotations = (0..MAX_ITEMS).map(|n| format!("\"{n}\":\"\"")).collect::<Vec<_>>().join(",");
    vec![
        ("numbers", fill("1,")),
        ("objects", fill("{},")),
        ("texts", fill("\"\",")),
        ("escapes", image_text(&format!("\"x\":\"{}\"", "\\u00e9".repeat((MAX_MANIFEST - 1000) / 6)))),
        (
            "escaped annotation",
            image_text(&format!("\"annotations\":{{\"a\":\"{}\"}}", "\\n".repeat((MAX_MANIFEST - 1000) / 2))),
        ),
        ("a long text", image_text(&format!("\"artifactType\":\"{}\"", "a".repeat(MAX_MANIFEST - 1000)))),
        ("many keys", image_text(&vec!["\"k\":0"; MAX_KEYS / 2].join(","))),
        ("too many keys", image_text(&vec!["\"k\":0"; 600_000].join(","))),
        ("spaces", image_text(&format!("\"x\":{}0", " ".repeat(MAX_MANIFEST - 1000)))),
        ("depth", "[".repeat(MAX_MANIFEST)),
        ("quotes", "\"".repeat(MAX_MANIFEST)),
        ("not UTF-8 but at the end", format!("{}\u{FFFD}", " ".repeat(MAX_MANIFEST - 3))),
        ("layers", layers(&least, MAX_ITEMS)),
        ("annotated layers", layers(&annotated, MAX_ITEMS / 2)),
        ("varied layers", with(image(), "layers", json!(["HERE"])).to_string().replace("\"HERE\"", &varied)),
        ("annotations", image_text(&format!("\"annotations\":{{{many_annotations}}}"))),
    ]
}

#[test]
fn t_bi5_memory_and_time_are_bounded() {
    // What the most expensive members may take where the input is short: the items are counted, not weighed.
    const FLOOR: usize = 8 << 20;
    for (name, text) in expensive() {
        assert!(text.len() <= MAX_MANIFEST, "{name}: {}", text.len());
        let (_, held, seconds) = measured(text.as_bytes());
        let per_mib = seconds * 1000.0 / (text.len() as f64 / f64::from(1 << 20));
        println!("{name}: {} KiB, held {} KiB, {per_mib:.1} ms per MiB", text.len() >> 10, held >> 10);
        assert!(held < (3 * text.len()).max(FLOOR), "{name}: held {held} for {}", text.len());
        // Without optimisation everything takes many times as long.
        let limit = if cfg!(debug_assertions) { 500.0 } else { 50.0 };
        assert!(per_mib < limit, "{name}: {per_mib} ms per MiB");
    }
}

#[test]
fn t_bi5_structure_is_bounded() {
    let deep = |levels: usize| image_text(&format!("\"x\":{}{}", "[".repeat(levels), "]".repeat(levels)));
    assert!(parse_text(&deep(MAX_DEPTH - 1)).is_ok());
    assert_eq!(parse_text(&deep(MAX_DEPTH)), Err(ManifestError::TooDeep));
    assert_eq!(parse_text(&deep(100_000)), Err(ManifestError::TooDeep));
    assert_eq!(parse_text(&"{\"a\":".repeat(100_000)), Err(ManifestError::TooDeep));
    // Brackets in strings are none.
    assert!(parse_text(&image_text(&format!("\"x\":\"\\\"{}\"", "[{:".repeat(100_000)))).is_ok());

    let keys = |count: usize| image_text(&vec!["\"k\":0"; count].join(","));
    assert!(parse_text(&keys(MAX_KEYS / 2)).is_ok());
    assert_eq!(parse_text(&keys(MAX_KEYS)), Err(ManifestError::TooManyKeys));
    assert_eq!(Manifest::parse(keys(600_000).as_bytes(), None), Err(ManifestError::TooManyKeys));
    let too_large = ManifestError::TooLarge { found: keys(1_000_000).len() };
    assert_eq!(parse_text(&keys(1_000_000)), Err(too_large));

    let layers = |count: usize| with(image(), "layers", json!(vec![descriptor("a/b"); count]));
    assert_eq!(parse(&layers(MAX_ITEMS)).unwrap().layers.len(), MAX_ITEMS);
    assert_eq!(parse(&layers(MAX_ITEMS + 1)), Err(ManifestError::TooManyItems));
    let urls = with(descriptor("a/b"), "urls", json!(vec![""; MAX_ITEMS + 1]));
    assert_eq!(parse(&with(image(), "layers", json!([urls]))), Err(ManifestError::TooManyItems));
    let annotations: Value =
        (0..=MAX_ITEMS).map(|n| (n.to_string(), json!(""))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(parse(&with(image(), "annotations", annotations)), Err(ManifestError::TooManyItems));
}

#[test]
fn t_bi5_size_is_bounded() {
    let padded = |length: usize| {
        let text = image().to_string();
        let padding = " ".repeat(length - text.len());
        text + &padding
    };
    assert!(parse_text(&padded(MAX_MANIFEST - 1)).is_ok());
    assert!(parse_text(&padded(MAX_MANIFEST)).is_ok());
    let found = MAX_MANIFEST + 1;
    assert_eq!(parse_text(&padded(found)), Err(ManifestError::TooLarge { found }));
}

#[test]
fn t_bi5_numbers_and_texts_are_bounded() {
    let huge = "9".repeat(1 << 20);
    assert!(parse_text(&image_text(&format!("\"x\":{huge}"))).is_ok());
    assert!(parse_text(&image_text(&format!("\"x\":1e{huge}"))).is_ok());
    let value = with(image(), "schemaVersion", json!("HERE")).to_string().replace("\"HERE\"", &huge);
    assert!(parse_text(&value).is_err());
    let error = parse(&with(image(), "mediaType", json!("a/".to_owned() + &huge))).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
    let error = parse(&with(image(), "schemaVersion", json!(huge))).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
    for bytes in [b"\xFF".as_slice(), b"\xC0\x80", b"\xED\xA0\x80", b"\xF5\x80\x80\x80", b"\xE2\x82"] {
        let (head, tail) = ("\"x\":\"", "\"");
        let mut text = image_text(&format!("{head}HERE{tail}")).into_bytes();
        let at = text.windows(4).position(|window| window == b"HERE").unwrap();
        text.splice(at..at + 4, bytes.iter().copied());
        assert_eq!(Manifest::parse(&text, None), Err(ManifestError::Encoding), "{bytes:?}");
    }
}
