//! A file of slots. Each slot has room for two copies of a request's note, which are written alternately: if the power
//! fails during a write, the other copy is intact. A copy is smaller than a disk's sector.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::ledger::settlement::{Outcome, Source};
use crate::spill::{Kept, KeptWhat};
use crate::tokens::{CLASSES, Counts, TokenClass};

const COPY_BYTES: usize = 128;
const SLOT_BYTES: u64 = 256;
const HEAD_BYTES: u64 = 4096;
const MAGIC: &str = "weir unsettled requests, version 1, of the database ";
const SUM_BYTES: usize = 8;
/// The counts have 8 bytes each, and after them comes the time. Another class of tokens moves what follows: the version in
/// [`MAGIC`] then changes with it.
const COUNTS_AT: usize = 32;
const REQUEST_AT: usize = COUNTS_AT + 8 * CLASSES + 8;

#[derive(Debug)]
pub(super) struct SlotFile {
    path: PathBuf,
    file: File,
    slots: u64,
    /// The used slots, by the id of their hold.
    used: HashMap<i64, Slot>,
    /// Free slots: their number, and how often they were written.
    free: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    written: u64,
    kept: Kept,
}

impl SlotFile {
    /// Locks and reads the file, or creates it. `None` if another process has it. A file with notes about another
    /// database's requests is renamed, and a new one created.
    pub(super) fn open(path: &Path, slots: usize, database: &str) -> io::Result<Option<Self>> {
        let Some(file) = lock(path)? else {
            return Ok(None);
        };
        let head = format!("{MAGIC}{database}\n");
        let mut found = vec![0; head.len()];
        let known = match file.read_exact_at(&mut found, 0) {
            Ok(()) => found == head.as_bytes(),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        let mut slot_file = SlotFile {
            path: path.to_owned(),
            file,
            slots: 0,
            used: HashMap::new(),
            free: Vec::new(),
        };
        slot_file.read()?;
        if !known && !slot_file.used.is_empty() {
            let aside = path.with_extension("other");
            tracing::error!(
                file = %aside.display(),
                requests = slot_file.used.len(),
                "requests of another database were never settled; they are set aside"
            );
            std::fs::rename(path, aside)?;
            return SlotFile::open(path, slots, database);
        }
        slot_file.make_room(u64::try_from(slots).unwrap_or(u64::MAX), &head)?;
        Ok(Some(slot_file))
    }

    /// Writes zeros to all new slots, so that their disk space is allocated.
    fn make_room(&mut self, slots: u64, head: &str) -> io::Result<()> {
        let mut first = vec![0; COPY_BYTES.saturating_mul(32)];
        let head = head.as_bytes();
        first
            .get_mut(..head.len())
            .ok_or(ErrorKind::InvalidInput)?
            .copy_from_slice(head);
        self.file.write_all_at(&first, 0)?;
        let empty = [0; COPY_BYTES + COPY_BYTES];
        for number in self.slots..slots {
            self.file.write_all_at(&empty, place(number, 0))?;
            self.free.push((number, 0));
        }
        self.slots = self.slots.max(slots);
        self.file.sync_all()?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }

    fn read(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        (&self.file).read_to_end(&mut bytes)?;
        let head = usize::try_from(HEAD_BYTES).unwrap_or(usize::MAX);
        let slots = bytes.get(head..).unwrap_or_default();
        for (number, slot) in (0..).zip(slots.chunks_exact(COPY_BYTES + COPY_BYTES)) {
            let copies = slot.chunks_exact(COPY_BYTES).filter_map(decode);
            let newest = copies.max_by_key(|(written, _)| *written);
            self.slots = self.slots.saturating_add(1);
            match newest {
                Some((written, Some(kept))) => {
                    let slot = Slot {
                        number,
                        written,
                        kept,
                    };
                    self.used.insert(slot.kept.hold, slot);
                }
                Some((written, None)) => self.free.push((number, written)),
                None => self.free.push((number, 0)),
            }
        }
        Ok(())
    }

    pub(super) fn all(&self) -> Vec<Kept> {
        self.used.values().map(|slot| slot.kept.clone()).collect()
    }

    pub(super) fn used(&self) -> usize {
        self.used.len()
    }

    /// Writes a note, which is durable after [`sync`](SlotFile::sync). Once a request's end is noted, later checkpoints
    /// are ignored.
    ///
    /// A file that was moved away is written as well, in case it comes back, but the result is an error.
    pub(super) fn put(&mut self, kept: &Kept) -> io::Result<()> {
        let place = self.check_place();
        if place.is_ok() || self.file.metadata()?.nlink() > 0 {
            self.write_kept(kept)?;
        }
        place
    }

    fn write_kept(&mut self, kept: &Kept) -> io::Result<()> {
        let (number, written) = match self.used.get(&kept.hold) {
            Some(slot) if slot.kept.covers(kept) => return Ok(()),
            Some(slot) => (slot.number, slot.written),
            None => self.free.pop().ok_or_else(|| {
                io::Error::new(
                    ErrorKind::StorageFull,
                    "as many are kept as there is room for",
                )
            })?,
        };
        let written = written.saturating_add(1);
        let result = self.write(number, written, Some(kept));
        match &result {
            Ok(()) => {
                let kept = kept.clone();
                let slot = Slot {
                    number,
                    written,
                    kept,
                };
                self.used.insert(slot.kept.hold, slot);
            }
            Err(_) if !self.used.contains_key(&kept.hold) => self.free.push((number, written)),
            Err(_) => {}
        }
        result
    }

    pub(super) fn free(&mut self, hold: i64) {
        if let Some(Slot {
            number, written, ..
        }) = self.used.remove(&hold)
        {
            let written = written.saturating_add(1);
            // If this fails, the next start finds that the request has ended.
            if let Err(error) = self.write(number, written, None) {
                tracing::debug!(%error, "a slot can't be freed");
            }
            self.free.push((number, written));
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Moves all notes of another file into this one, and deletes that file.
    pub(super) fn take_over(&mut self, other: SlotFile) -> io::Result<()> {
        for slot in other.used.values() {
            self.put(&slot.kept)?;
        }
        self.sync()?;
        std::fs::remove_file(&other.path)
    }

    fn write(&self, number: u64, written: u64, kept: Option<&Kept>) -> io::Result<()> {
        let copy = encode(written, kept)?;
        self.file.write_all_at(&copy, place(number, written % 2))
    }

    /// An error if the file was removed or replaced: what is written to a file without a name is lost.
    fn check_place(&self) -> io::Result<()> {
        let (named, own) = (std::fs::metadata(&self.path)?, self.file.metadata()?);
        if (named.dev(), named.ino()) == (own.dev(), own.ino()) {
            return Ok(());
        }
        Err(io::Error::new(
            ErrorKind::NotFound,
            "the file was replaced by another one",
        ))
    }
}

fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The offset of a copy of a slot, in bytes.
fn place(number: u64, copy: u64) -> u64 {
    let slot = number.saturating_mul(SLOT_BYTES);
    let copy = copy.saturating_mul(SLOT_BYTES / 2);
    HEAD_BYTES.saturating_add(slot).saturating_add(copy)
}

fn checksum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    let hash = Sha256::digest(bytes);
    let mut sum = [0; SUM_BYTES];
    sum.iter_mut().zip(hash).for_each(|(sum, byte)| *sum = byte);
    sum
}

fn encode(written: u64, kept: Option<&Kept>) -> io::Result<[u8; COPY_BYTES]> {
    let mut body = Vec::with_capacity(COPY_BYTES);
    body.extend(written.to_le_bytes());
    if let Some(kept) = kept {
        let (kind, outcome, source) = match kept.what {
            KeptWhat::Delivered => (1, 0, 0),
            KeptWhat::Ended { outcome, source } => (
                2,
                position(&Outcome::ALL, outcome),
                position(&Source::ALL, source),
            ),
        };
        let length = u8::try_from(kept.request.len()).map_err(io::Error::other)?;
        body.extend(kept.hold.to_le_bytes());
        body.extend(kept.attempt.to_le_bytes());
        body.extend([kind, outcome, source, length]);
        for class in TokenClass::ALL {
            body.extend(kept.counts.get(class).to_le_bytes());
        }
        body.extend(kept.at.as_millisecond().to_le_bytes());
        body.extend(kept.request.as_bytes());
    }
    let room = COPY_BYTES.saturating_sub(SUM_BYTES);
    if body.len() > room {
        return Err(io::Error::other("the request's id is too long"));
    }
    body.resize(room, 0);
    let mut copy = [0; COPY_BYTES];
    let sum = checksum(&body);
    copy.iter_mut()
        .zip(sum.iter().chain(&body))
        .for_each(|(to, from)| *to = *from);
    Ok(copy)
}

fn position<T: PartialEq>(all: &[T], one: T) -> u8 {
    let found = all.iter().position(|other| *other == one);
    u8::try_from(found.unwrap_or(0)).unwrap_or(0)
}

/// How often the slot had been written, and its note, which a free slot doesn't have. `None` for a copy that was never
/// written, or not to its end.
fn decode(copy: &[u8]) -> Option<(u64, Option<Kept>)> {
    let (sum, body) = copy.split_at_checked(SUM_BYTES)?;
    if sum != checksum(body) {
        return None;
    }
    let number = |at: usize| -> Option<u64> {
        let bytes = copy.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let written = number(8)?;
    let [kind, outcome, source, length] = *copy.get(28..32)? else {
        return None;
    };
    let what = match kind {
        0 => return Some((written, None)),
        1 => KeptWhat::Delivered,
        _ => KeptWhat::Ended {
            outcome: *Outcome::ALL.get(usize::from(outcome))?,
            source: *Source::ALL.get(usize::from(source))?,
        },
    };
    let end = REQUEST_AT.checked_add(usize::from(length))?;
    let request = std::str::from_utf8(copy.get(REQUEST_AT..end)?).ok()?;
    let mut numbers = (COUNTS_AT..REQUEST_AT).step_by(8).map_while(number);
    let kept = Kept {
        hold: number(16)?.cast_signed(),
        attempt: u32::from_le_bytes(copy.get(24..28)?.try_into().ok()?),
        request: request.to_owned(),
        counts: Counts::try_from_fn(|_| numbers.next().ok_or(())).ok()?,
        at: Timestamp::from_millisecond(numbers.next()?.cast_signed()).ok()?,
        what,
    };
    Some((written, Some(kept)))
}

#[cfg(test)]
mod tests;
