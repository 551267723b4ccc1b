//! Maps addresses to the files that are mapped there. A signal handler may neither take a lock nor allocate, so the mappings are
//! in a table of fixed size that the handler only reads and marks; all other changes are made under a lock.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most mappings that can be watched at once: a model has a few for each of its files.
const SLOTS: usize = 1_024;

pub(super) static TABLE: Table = Table::new();

pub(super) struct Table {
    slots: [Slot; SLOTS],
    /// Whether any mapping has ever faulted.
    any: AtomicBool,
}

/// The place of one mapping in the table.
struct Slot {
    /// The id of the file that is mapped, or 0 while the slot is free.
    id: AtomicU64,
    begin: AtomicUsize,
    /// The end of the mapping, or 0 while there is none.
    end: AtomicUsize,
    faulted: AtomicBool,
}

impl Slot {
    const fn free() -> Self {
        Slot {
            id: AtomicU64::new(0),
            begin: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            faulted: AtomicBool::new(false),
        }
    }
}

impl Table {
    const fn new() -> Self {
        Table {
            slots: [const { Slot::free() }; SLOTS],
            any: AtomicBool::new(false),
        }
    }

    /// For the handler: marks the mapping that contains the address, if `replace` could replace its memory.
    pub(super) fn fault(&self, address: usize, replace: impl Fn(usize, usize) -> bool) -> bool {
        for slot in &self.slots {
            let begin = slot.begin.load(Ordering::Acquire);
            let end = slot.end.load(Ordering::Acquire);
            if (begin..end).contains(&address) && replace(begin, end) {
                slot.faulted.store(true, Ordering::Release);
                self.any.store(true, Ordering::Release);
                return true;
            }
        }
        false
    }

    pub(super) fn has_faulted(&self, id: u64) -> bool {
        let of_file = |slot: &&Slot| slot.id.load(Ordering::Acquire) == id;
        self.any.load(Ordering::Acquire)
            && self
                .slots
                .iter()
                .filter(of_file)
                .any(|slot| slot.faulted.load(Ordering::Acquire))
    }

    fn put(&self, id: u64, mapping: &Mapping<'_>) -> bool {
        let free = |slot: &&Slot| slot.id.load(Ordering::Relaxed) == 0;
        let Some(slot) = self.slots.iter().find(free) else {
            return false;
        };
        slot.id.store(id, Ordering::Relaxed);
        slot.begin.store(mapping.begin, Ordering::Release);
        slot.end.store(mapping.end, Ordering::Release);
        true
    }

    fn has(&self, mapping: &Mapping<'_>) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|slot| {
            let (begin, end) = (&slot.begin, &slot.end);
            end.load(Ordering::Relaxed) != 0 && begin.load(Ordering::Relaxed) == mapping.begin
        })
    }

    fn clear(&self, which: impl Fn(&Slot) -> bool) {
        for slot in self.slots.iter().filter(|slot| which(slot)) {
            slot.end.store(0, Ordering::Release);
            slot.begin.store(0, Ordering::Release);
            slot.faulted.store(false, Ordering::Release);
            slot.id.store(0, Ordering::Release);
        }
    }
}

/// The files that are watched, by device and inode. Ids in the table begin with 1.
#[derive(Default)]
struct Watched {
    files: BTreeMap<(u64, u64), File>,
    last: u64,
}

struct File {
    id: u64,
    watchers: usize,
}

static WATCHED: Mutex<Option<Watched>> = Mutex::new(None);

fn watched() -> MutexGuard<'static, Option<Watched>> {
    // Nothing in here can panic halfway through a change.
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts all mappings of a file into the table and returns the file's id there. A file is recognized by its device and inode.
pub(super) fn watch(path: &Path, identity: (u64, u64)) -> u64 {
    let mut watched = watched();
    let watched = watched.get_or_insert_default();
    let next = watched.last + 1;
    let file = watched.files.entry(identity).or_insert(File {
        id: next,
        watchers: 0,
    });
    file.watchers += 1;
    let id = file.id;
    watched.last = watched.last.max(id);
    let maps = maps();
    let mappings = maps.lines().filter_map(Mapping::parse);
    for mapping in mappings.filter(|mapping| mapping.is_of(path, identity.1)) {
        if !TABLE.has(&mapping) && !TABLE.put(id, &mapping) {
            tracing::warn!(
                "too many files are mapped: faults in {} end the process",
                path.display()
            );
        }
    }
    id
}

/// Removes one watcher of the file, and with the last one its mappings from the table.
pub(super) fn unwatch(id: u64) {
    let mut watched = watched();
    let Some(watched) = watched.as_mut() else {
        return;
    };
    watched.files.retain(|_, file| {
        file.watchers -= usize::from(file.id == id);
        let stays = file.watchers > 0;
        if !stays {
            TABLE.clear(|slot| slot.id.load(Ordering::Relaxed) == file.id);
        }
        stays
    });
}

/// Clears slots whose mappings are gone. Mappings that faulted were replaced by zeros, and stay marked.
pub(super) fn forget_unmapped() {
    let _watched = watched();
    let maps = maps();
    let begins: Vec<usize> = maps
        .lines()
        .filter_map(Mapping::parse)
        .map(|it| it.begin)
        .collect();
    TABLE.clear(|slot| {
        slot.id.load(Ordering::Relaxed) != 0
            && !slot.faulted.load(Ordering::Acquire)
            && !begins.contains(&slot.begin.load(Ordering::Relaxed))
    });
}

fn maps() -> String {
    fs::read_to_string("/proc/self/maps").unwrap_or_default()
}

/// A line of `/proc/self/maps`.
struct Mapping<'a> {
    begin: usize,
    end: usize,
    inode: u64,
    path: &'a str,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (begin, end) = fields.next()?.split_once('-')?;
        let inode = fields.nth(3)?.parse().ok()?;
        Some(Mapping {
            begin: usize::from_str_radix(begin, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
            inode,
            path: fields.next().unwrap_or_default().trim_start(),
        })
    }

    /// Whether this is a mapping of the file. On stacked file systems (overlayfs) the inode here may differ from the one that
    /// the file reports; then the path decides.
    fn is_of(&self, path: &Path, inode: u64) -> bool {
        self.inode != 0 && (self.inode == inode || Path::new(self.path) == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_found_by_inode_or_by_name() {
        let line = "7f2a4c000000-7f2a52000000 r--s 00000000 fe:00 131    /models/a b.gguf";
        let mapping = Mapping::parse(line).unwrap();
        let (begin, end) = (0x7f2a_4c00_0000, 0x7f2a_5200_0000);
        assert_eq!((mapping.begin, mapping.end), (begin, end));
        let check = |path: &str, inode, expected| {
            let found = mapping.is_of(Path::new(path), inode);
            assert_eq!(found, expected, "{path} {inode}");
        };
        check("/models/a b.gguf", 7, true);
        check("/models/b.gguf", 131, true);
        check("/models/b.gguf", 7, false);
        // Memory without a file has inode 0.
        let anonymous = "7f2a4c000000-7f2a52000000 rw-p 00000000 00:00 0 ";
        for line in [anonymous, "", "nonsense here"] {
            let mapping = Mapping::parse(line);
            let found = mapping.is_some_and(|it| it.is_of(Path::new(""), 0));
            assert!(!found, "{line}");
        }
    }

    #[test]
    fn a_fault_marks_the_file_whose_mapping_has_the_address() {
        let table = Table::new();
        let mapping = |begin, end| Mapping {
            begin,
            end,
            inode: 1,
            path: "",
        };
        assert!(table.put(1, &mapping(0x1000, 0x3000)));
        assert!(table.put(2, &mapping(0x3000, 0x4000)));
        let check = |address, replaced: bool, handled: bool, faulted: [bool; 2]| {
            assert_eq!(
                table.fault(address, |_, _| replaced),
                handled,
                "{address:x}"
            );
            let found = [table.has_faulted(1), table.has_faulted(2)];
            assert_eq!(found, faulted, "{address:x}");
        };
        check(0x0fff, true, false, [false, false]);
        check(0x4000, true, false, [false, false]);
        check(0x3000, false, false, [false, false]);
        check(0x3000, true, true, [false, true]);
        check(0x2fff, true, true, [true, true]);
        table.clear(|slot| slot.id.load(Ordering::Relaxed) == 2);
        check(0x3fff, true, false, [true, false]);
        assert!(table.has(&mapping(0x1000, 0x3000)) && !table.has(&mapping(0x3000, 0x4000)));
    }
}
