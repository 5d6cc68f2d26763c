use entrepot_testkit::script::{Body, Image, Pattern, media};

use crate::common::{Bench, EMPTY_HEADERS_ARRIVE};

const SIZE: u64 = 100_000;

/// What RFC 9110 has to say of a `Range` on an object of [`SIZE`] bytes.
#[derive(Clone, Copy, Debug)]
enum Due {
    Part(u64, u64),
    Whole,
    Nothing,
    /// Ignoring it and refusing it are both right.
    WholeOrNothing,
}

fn corpus() -> Vec<(String, Due)> {
    use Due::{Nothing, Part, Whole, WholeOrNothing};
    let many = (0..1000).map(|i| format!("{}-{}", i * 2, i * 2)).collect::<Vec<_>>().join(",");
    let same = vec!["0-"; 1000].join(",");
    let table = [
        ("bytes=0-", Part(0, SIZE)),
        ("bytes=0-0", Part(0, 1)),
        ("bytes=99999-", Part(99_999, SIZE)),
        ("bytes=50000-59999", Part(50_000, 60_000)),
        ("bytes=50000-200000", Part(50_000, SIZE)),
        ("bytes=-1", Part(99_999, SIZE)),
        ("bytes=-200000", Part(0, SIZE)),
        ("bytes=-18446744073709551615", Part(0, SIZE)),
        ("bytes=-9223372036854775808", Part(0, SIZE)),
        ("bytes=0-9223372036854775808", Part(0, SIZE)),
        ("Bytes=0-9", Part(0, 10)),
        ("bytes=100000-", Nothing),
        ("bytes=100000-100001", Nothing),
        ("bytes=-0", Nothing),
        ("bytes=9223372036854775808-", Nothing),
        ("bytes=18446744073709551615-", Nothing),
        ("bytes=18446744073709551616-", WholeOrNothing),
        ("bytes=99999999999999999999999999-", WholeOrNothing),
        ("bytes=5-2", Whole),
        ("bytes=", Whole),
        ("bytes", Whole),
        ("bytes=-", Whole),
        ("bytes=a-b", Whole),
        ("bytes=0x0-0x9", Whole),
        ("bytes=--5", Whole),
        ("bytes=+0-9", Whole),
        ("bytes=0-9-", Whole),
        ("items=0-9", Whole),
        ("0-9", Whole),
        ("bytes=0-0,-1", WholeOrNothing),
        ("bytes=0-50000,25000-75000", WholeOrNothing),
        (many.as_str(), Whole),
    ];
    let mut cases: Vec<_> = table.iter().map(|(value, due)| ((*value).to_owned(), *due)).collect();
    cases.push((format!("bytes={many}"), WholeOrNothing));
    cases.push((format!("bytes={same}"), WholeOrNothing));
    cases
}

/// T-HC5
#[tokio::test(flavor = "multi_thread")]
async fn t_hc5_ranges_cold_and_warm() {
    let bench = Bench::new();
    for (index, (range, due)) in corpus().into_iter().enumerate() {
        let body = Body::from(Pattern::new(index as u64, SIZE));
        let whole = body.slice(0..SIZE);
        let digest = bench.upstream.serve_blob("team/app", body);
        let path = format!("/v2/team/app/blobs/{digest}");
        for state in ["cold", "after the range", "warm"] {
            if state == "warm" {
                assert_eq!(bench.get(&path).send().await.digest, digest);
            }
            let answer = bench.get(&path).range(&range).send().await;
            let shown = format!("{range:.80}, {due:?}, {state}: {answer:?}");
            assert!(answer.clean_end, "{shown}");
            match (answer.status, due) {
                (206, Due::Part(from, to)) => {
                    assert!(answer.body == whole[from as usize..to as usize], "{shown}");
                    let expected = format!("bytes {from}-{}/{SIZE}", to - 1);
                    assert_eq!(answer.header("content-range"), Some(expected.as_str()), "{shown}");
                }
                (200, Due::Whole | Due::WholeOrNothing) => {
                    assert!(answer.body == whole, "{shown}");
                    assert_eq!(answer.header("content-range"), None, "{shown}");
                }
                (416, Due::Nothing | Due::WholeOrNothing) => {
                    assert_eq!(
                        answer.header("content-range"),
                        Some(format!("bytes */{SIZE}").as_str()),
                        "{shown}"
                    );
                }
                _ => panic!("{shown}"),
            }
        }
    }
}

/// T-HC5
#[tokio::test(flavor = "multi_thread")]
async fn t_hc5_if_range() {
    let bench = Bench::new();
    let body = Body::from(Pattern::new(77, SIZE));
    let digest = bench.upstream.serve_blob("team/app", body.clone());
    let path = format!("/v2/team/app/blobs/{digest}");
    let etag = bench.get(&path).send().await.header("etag").expect("a blob has an ETag").to_owned();
    let part = bench.get(&path).range("bytes=10-19").header("if-range", &etag).send().await;
    assert_eq!((part.status, part.body), (206, body.slice(10..20)));
    for stale in
        ["\"other\"", "W/\"weak\"", &format!("W/{etag}"), "Wed, 21 Oct 2015 07:28:00 GMT", "nonsense", ""]
    {
        if stale.is_empty() && !EMPTY_HEADERS_ARRIVE {
            continue;
        }
        let answer = bench.get(&path).range("bytes=10-19").header("if-range", stale).send().await;
        assert_eq!((answer.status, &answer.digest), (200, &digest), "If-Range: {stale}");
    }
    // Of what does not exist there is no range, stale or not.
    let past = bench.get(&path).range("bytes=100000-").header("if-range", &etag).send().await;
    assert_eq!(past.status, 416);
}

/// T-HC5: Range means GET of a blob; elsewhere it is ignored.
#[tokio::test(flavor = "multi_thread")]
async fn t_hc5_ranges_where_there_are_none() {
    let bench = Bench::new();
    let image = Image::small(3);
    bench.upstream.serve_image("team/app", "1", &image);
    for _ in ["cold", "warm"] {
        for range in ["bytes=0-9", "bytes=999999-", "bytes=-0", "bytes=5-2"] {
            let manifest = bench.get("/v2/team/app/manifests/1").range(range).send().await;
            assert_eq!((manifest.status, &manifest.digest), (200, &image.digest), "{range}");
            assert_eq!(manifest.header("content-type"), Some(media::MANIFEST));
            let path = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
            let head = bench.head(&path).range(range).send().await;
            let size = image.layers[0].len().unwrap_or(0).to_string();
            assert_eq!((head.status, head.header("content-length")), (200, Some(size.as_str())), "{range}");
        }
    }
}
