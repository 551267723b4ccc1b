use super::*;

fn kept(hold: i64, what: KeptWhat, completion: u64) -> Kept {
    Kept {
        hold,
        request: format!("{hold:032x}"),
        attempt: 1,
        counts: Counts {
            completion,
            ..Counts::try_from_fn(|class| u64::try_from(class.name().len())).unwrap()
        },
        at: Timestamp::from_second(1_700_000_000).unwrap(),
        what,
    }
}

const ENDED: KeptWhat = KeptWhat::Ended {
    outcome: Outcome::Disconnected,
    source: Source::Engine,
};

fn open(path: &Path, slots: usize) -> SlotFile {
    SlotFile::open(path, slots, "db1")
        .unwrap()
        .expect("nobody else has it")
}

fn sorted(file: &SlotFile) -> Vec<Kept> {
    let mut all = file.all();
    all.sort_by_key(|kept| kept.hold);
    all
}

#[test]
fn what_was_kept_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept");
    let mut file = open(&path, 3);
    for kept in [
        kept(1, KeptWhat::Delivered, 10),
        kept(2, KeptWhat::Delivered, 5),
        // An older checkpoint, which waited for the database meanwhile.
        kept(2, KeptWhat::Delivered, 4),
        kept(1, KeptWhat::Delivered, 20),
        kept(3, ENDED, 30),
        kept(1, ENDED, 25),
        // A checkpoint that comes too late.
        kept(1, KeptWhat::Delivered, 22),
    ] {
        file.put(&kept).unwrap();
    }
    let full = file.put(&kept(4, ENDED, 1)).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(sorted(&file)[1], kept(2, KeptWhat::Delivered, 5));
    file.free(2);
    file.put(&kept(4, ENDED, 1)).unwrap();
    let expected = [kept(1, ENDED, 25), kept(3, ENDED, 30), kept(4, ENDED, 1)];
    assert_eq!(sorted(&file), expected);
    assert!(
        SlotFile::open(&path, 3, "db1").unwrap().is_none(),
        "it is locked"
    );
    drop(file);

    let mut file = open(&path, 5);
    assert_eq!(sorted(&file), expected);
    file.put(&kept(5, ENDED, 1)).unwrap();
    file.put(&kept(6, ENDED, 1)).unwrap();
    file.put(&kept(7, ENDED, 1)).unwrap_err();
    (1..=6).for_each(|hold| file.free(hold));
    drop(file);
    assert_eq!(open(&path, 5).used(), 0);
}

/// Whatever bytes a power failure leaves in the place of a copy that was being written, the note before it is found.
#[test]
fn a_torn_write_leaves_what_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept");
    let mut file = open(&path, 1);
    for (round, next) in [1, 2, 3, 4].into_iter().zip([2, 3, 4, 5]) {
        file.put(&kept(1, KeptWhat::Delivered, round)).unwrap();
        file.sync().unwrap();
        let before = std::fs::read(&path).unwrap();
        file.put(&kept(1, KeptWhat::Delivered, next)).unwrap();
        let after = std::fs::read(&path).unwrap();
        for torn in 0..COPY_BYTES {
            let mut bytes = before.clone();
            let changed: Vec<_> = (0..bytes.len())
                .filter(|&at| before[at] != after[at])
                .collect();
            for &at in changed
                .iter()
                .take(torn.min(changed.len().saturating_sub(1)))
            {
                bytes[at] = after[at];
            }
            let copy = folder.path().join("torn");
            std::fs::write(&copy, &bytes).unwrap();
            let found = open(&copy, 1).all();
            assert_eq!(
                found,
                [kept(1, KeptWhat::Delivered, round)],
                "{round}, {torn}"
            );
        }
    }
}

#[test]
fn another_database_gets_nothing_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept");
    let mut file = open(&path, 2);
    file.put(&kept(1, ENDED, 10)).unwrap();
    drop(file);
    let other = SlotFile::open(&path, 2, "db2").unwrap().unwrap();
    assert_eq!(other.used(), 0);
    drop(other);
    let aside = open(&path.with_extension("other"), 2);
    assert_eq!(aside.all(), [kept(1, ENDED, 10)]);
}

#[test]
fn a_file_without_a_name_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept");
    let mut file = open(&path, 2);
    std::fs::remove_file(&path).unwrap();
    file.put(&kept(1, ENDED, 10)).unwrap_err();
    std::fs::write(&path, "another one").unwrap();
    file.put(&kept(1, ENDED, 10)).unwrap_err();
    assert_eq!(file.used(), 0);
}
