use super::*;

fn opened() -> (Index, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Index::open(&dir.path().join("index.db")).unwrap(), dir)
}

fn digest(seed: u8) -> Digest {
    Digest::sha256(&[seed])
}

fn loaded(record: &Option<Record>) -> Option<&str> {
    record.as_ref().map(|record| std::str::from_utf8(record.bytes()).unwrap())
}

fn entry(size: u64, used: u64) -> Entry {
    let stamp = Stamp { size, mtime: 1, ctime: 2, inode: 3 };
    Entry { stamp, used }
}

#[test]
fn records_are_read_as_they_were_put_last() {
    let (index, _dir) = opened();
    for value in ["one", "two"] {
        index.put("key", Some(Record::new(value)), None);
        assert_eq!(loaded(&index.load("key", 0)), Some(value), "before it is committed");
    }
    index.flush();
    index.hot.clear();
    assert_eq!(loaded(&index.load("key", 0)), Some("two"), "and after");
    index.put("key", None, None);
    assert_eq!(loaded(&index.load("key", 0)), None);
    index.flush();
    index.hot.clear();
    assert_eq!(loaded(&index.load("key", 0)), None);
}

#[test]
fn records_end() {
    let (index, _dir) = opened();
    index.put("key", Some(Record::new("value")), Some(100));
    index.flush();
    index.hot.clear();
    assert_eq!(loaded(&index.load("key", 99)), Some("value"));
    index.hot.clear();
    assert_eq!(loaded(&index.load("key", 100)), None);
    index.purge(100);
    index.flush();
    index.hot.clear();
    assert_eq!(loaded(&index.load("key", 0)), None);
}

/// T-OL6, the index' part: whoever asks for ever new lists does not fill the disk with them.
#[test]
fn t_ol6_records_that_expire_are_bounded() {
    let (index, _dir) = opened();
    index.put("for ever", Some(Record::new("value")), None);
    for n in 0..writer::EXPIRING + 100 {
        index.put(&format!("list {n}"), Some(Record::new("value")), Some(1_000 + n));
    }
    index.purge(0);
    index.flush();
    index.hot.clear();
    assert_eq!(loaded(&index.load("for ever", 0)), Some("value"));
    assert_eq!(loaded(&index.load("list 99", 0)), None, "those that expire first make way");
    assert_eq!(loaded(&index.load("list 100", 0)), Some("value"));
}

#[test]
fn rows_are_counted_and_come_in_order() {
    let (index, _dir) = opened();
    let mut digests: Vec<_> = (0..10).map(digest).collect();
    digests.sort();
    for (at, digest) in digests.iter().enumerate() {
        index.set_object(*digest, Some(entry(10, 100 - (at as u64 / 5))));
    }
    assert_eq!(index.row(&digests[3]), Some(entry(10, 100)), "before it is committed");
    index.flush();
    assert_eq!(index.total(), Some(100));
    let expected: Vec<_> = digests[5..].iter().chain(&digests[..5]).copied().collect();
    let mut oldest = Vec::new();
    while let slice =
        index.oldest(oldest.last().map(|(digest, entry): &(Digest, Entry)| (entry.used, *digest)), 3)
        && !slice.is_empty()
    {
        oldest.extend(slice);
    }
    assert_eq!(oldest.iter().map(|(digest, _)| *digest).collect::<Vec<_>>(), expected);
    let after: Vec<_> = index.after(Some(&digests[6]), 2).into_iter().map(|(digest, _)| digest).collect();
    assert_eq!(after, digests[7..9]);

    index.touch(vec![(digests[0], 500), (digests[1], 1)]);
    index.set_object(digests[2], None);
    index.flush();
    index.objects.clear();
    assert_eq!(index.object(&digests[0]), Some(entry(10, 500)));
    assert_eq!(index.object(&digests[1]), Some(entry(10, 100)), "a use does not make it older");
    assert_eq!(index.object(&digests[2]), None);
}

/// T-CS4: a database that is replaced or removed while in use is started anew, and says that rows are missing.
#[test]
fn t_cs4_a_database_that_goes_bad_in_use() {
    let harms: [fn(&Path); 2] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| {
            std::fs::write(path.with_extension("new"), b"garbage")
                .and_then(|()| std::fs::rename(path.with_extension("new"), path))
                .unwrap()
        },
    ];
    for harm in harms {
        let (index, dir) = opened();
        index.set_object(digest(1), Some(entry(10, 1)));
        index.flush();
        harm(&dir.path().join("index.db"));
        for seed in 2..5 {
            index.objects.clear();
            let _ = index.row(&digest(1));
            index.set_object(digest(seed), Some(entry(10, 1)));
            index.flush();
        }
        assert!(index.healthy() && index.take_lossy());
        assert!(!index.take_lossy(), "said once");
        index.set_object(digest(5), Some(entry(10, 1)));
        index.flush();
        index.objects.clear();
        assert_eq!(index.row(&digest(5)), Some(entry(10, 1)));
    }
}

/// T-CS4, T-DF5: an index that cannot be opened is tried again; nothing waits for it.
#[test]
fn t_cs4_a_database_that_cannot_be_opened_yet() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("not/yet");
    let index = Index::open(&folder.join("index.db")).unwrap();
    assert!(!index.healthy());
    index.put("lost", Some(Record::new("value")), None);
    index.flush();
    assert_eq!((index.row(&digest(1)), index.total()), (None, None));
    std::fs::create_dir_all(&folder).unwrap();
    index.put("kept", Some(Record::new("value")), None);
    index.flush();
    assert!(index.healthy());
    index.hot.clear();
    assert_eq!(loaded(&index.load("kept", 0)), Some("value"));
}

/// T-CC1: however many read at once, few descriptors are open, and none stays behind.
#[cfg(target_os = "linux")]
#[test]
fn t_cc1_many_readers_share_few_connections() {
    let (index, dir) = opened();
    index.set_object(digest(1), Some(entry(10, 1)));
    index.flush();
    let start = std::sync::Barrier::new(64);
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..50 {
                    assert_eq!(index.row(&digest(1)), Some(entry(10, 1)));
                }
            });
        }
    });
    let path = dir.path().join("index.db");
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open = open.filter(|open| std::fs::read_link(open.path()).is_ok_and(|link| link == path)).count();
    assert!(open <= READERS + 1, "{open} descriptors of the database; the writer has one");
}
