//! What the worst of manifests cost.

use std::time::Duration;

use entrepot_testkit::http;
use entrepot_testkit::script::{Method, Reply, media, sha256};

use crate::common::{Bench, Peak};

const MIB: usize = 1024 * 1024;
const MOST: usize = 4 * MIB;
/// 50 ms for each MiB, and ten times that for a build without optimisation on a busy machine.
const CPU: Duration = Duration::from_millis(4 * 50 * 10);
/// Three times the input, and what buffers and the allocator keep.
const KB: u64 = (3 * MOST as u64) / 1024 + 16 * 1024;

fn filled(start: &str, unit: &str, end: &str, size: usize) -> Vec<u8> {
    let n = (size - start.len() - end.len()) / unit.len();
    let mut text = String::with_capacity(size);
    text.push_str(start);
    (0..n).for_each(|_| text.push_str(unit));
    text.push_str(end);
    text.into_bytes()
}

/// A member for each of very many keys.
fn keys(size: usize, member: impl Fn(usize) -> String) -> Vec<u8> {
    let mut text = String::from("{\"schemaVersion\":2");
    let mut n = 0;
    while text.len() + 64 < size {
        text.push(',');
        text.push_str(&member(n));
        n += 1;
    }
    text.push('}');
    text.into_bytes()
}

fn worst() -> Vec<(&'static str, Vec<u8>)> {
    let head = format!("{{\"schemaVersion\":2,\"mediaType\":\"{}\",", media::MANIFEST);
    let descriptor =
        format!("{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":1}},", media::LAYER, sha256(b""));
    let layers = format!("{head}\"layers\":[");
    let mut no_text = filled(&format!("{head}\"x\":\""), "x", "\"}", MOST);
    no_text[MOST - 10] = 0xff;
    vec![
        ("deep lists", filled("", "[", "", MOST)),
        ("deep lists that close", [filled("", "[", "", MOST / 2), filled("", "]", "", MOST / 2)].concat()),
        ("deep objects", filled("", "{\"a\":", "", MOST)),
        ("deep below a layer", filled(&layers, "[{\"x\":", "", MOST)),
        ("very many keys", keys(MOST, |n| format!("\"{n}\":0"))),
        ("one key very often", keys(MOST, |_| "\"\":0".to_owned())),
        (
            "very many annotations",
            filled(&format!("{head}\"annotations\":{{"), "\"a\":\"\",", "\"b\":\"\"}}", MOST),
        ),
        ("very many layers", filled(&layers, &descriptor, "0]}", MOST)),
        ("very many empty layers", filled(&layers, "{},", "{}]}", MOST)),
        ("a large number", filled(&format!("{head}\"x\":"), "9", "}", MOST)),
        ("a large exponent", filled(&format!("{head}\"x\":1e"), "9", "}", MOST)),
        ("a large size", filled(&format!("{layers}{{\"size\":"), "9", "}]}", MOST)),
        ("numbers", filled(&format!("{head}\"x\":["), "1e308,", "1e309]}", MOST)),
        ("escapes", filled(&format!("{head}\"mediaType\":\""), "\\u0041", "\"}", MOST)),
        ("a long media type", filled("{\"mediaType\":\"", "a", "\"}", MOST)),
        ("a long digest", filled(&format!("{layers}{{\"digest\":\"sha256:"), "0", "\"}]}", MOST)),
        ("no UTF-8 at the end", no_text),
        ("blanks", filled("", " ", "", MOST)),
        ("one byte too many", filled(&format!("{head}\"x\":\""), "x", "\"}", MOST + 1)),
    ]
}

/// T-BI5
#[tokio::test(flavor = "multi_thread")]
async fn t_bi5_the_worst_manifests_cost_little() {
    let bench = Bench::new();
    for (n, (name, bytes)) in worst().into_iter().enumerate() {
        let path = format!("/v2/team/app/manifests/worst{n}");
        bench
            .upstream
            .on(Method::Read, &path)
            .reply(Reply::ok(bytes).header("content-type", media::MANIFEST));
        let (cpu, kb) = (bench.mirror.cpu_time(), bench.mirror.rss_anon_kb());
        let watch = Peak::of(&bench);
        let answer = http::get(bench.url(&path)).send().await;
        let most = watch.most_kb();
        let spent = bench.mirror.cpu_time().saturating_sub(cpu);
        assert_eq!(answer.status, 502, "{name}: {answer:?}");
        let code = if name == "one byte too many" { "UNKNOWN" } else { "MANIFEST_INVALID" };
        assert_eq!(answer.error_code(), code, "{name}: {answer:?}");
        assert!(spent <= CPU, "{name}: {spent:?} of processor time");
        assert!(most <= kb + KB, "{name}: {kb} kB before, {most} kB at most");
        bench.upstream.clear_rules();
    }
    bench.assert_nothing_stored();
}

/// T-BI5: the largest that is legal passes, at a like cost: as long as it may be, and with as many layers.
#[tokio::test(flavor = "multi_thread")]
async fn t_bi5_the_largest_legal_manifests_pass() {
    let config =
        format!("{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":2}}", media::CONFIG, sha256(b"{}"));
    let head = format!("{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"config\":{config},", media::MANIFEST);
    let mut long = filled(&format!("{head}\"layers\":[],\"x\":\""), "x", "\"}", MOST);
    assert_eq!(long.len(), MOST);
    let layers: Vec<String> = (0..16_000)
        .map(|n: u32| {
            format!(
                "{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":{n}}}",
                media::LAYER,
                sha256(&n.to_le_bytes())
            )
        })
        .collect();
    let many = format!("{head}\"layers\":[{}]}}", layers.join(","));
    assert!(many.len() < MOST);
    let bench = Bench::new();
    for (name, bytes) in [("long", std::mem::take(&mut long)), ("many layers", many.into_bytes())] {
        let digest = bench.upstream.serve_manifest(
            "team/app",
            name.split(' ').next().unwrap_or_default(),
            &bytes,
            media::MANIFEST,
        );
        let (cpu, kb) = (bench.mirror.cpu_time(), bench.mirror.rss_anon_kb());
        let watch = Peak::of(&bench);
        let answer = bench.get(format!("/v2/team/app/manifests/{digest}")).send().await;
        let most = watch.most_kb();
        let spent = bench.mirror.cpu_time().saturating_sub(cpu);
        assert_eq!((answer.status, &answer.digest), (200, &digest), "{name}");
        assert!(spent <= CPU, "{name}: {spent:?} of processor time");
        assert!(most <= kb + KB, "{name}: {kb} kB before, {most} kB at most");
    }
}
