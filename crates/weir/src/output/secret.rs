//! Secrets that are shown once. A secret that can't be shown, or that wasn't read, must not become valid.

use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Stat};

/// The reason why a secret wasn't seen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotShown {
    #[error("stdout is closed or /dev/null, and the secret would be lost")]
    Nowhere,
    #[error("nothing read it from stdout")]
    Unread,
    #[error("stdout can't be written: {0}")]
    Failed(#[from] io::Error),
}

/// How often a pipe is checked for whether its reader has taken the secret. A reader that is still there afterwards will take it.
const LOOKS_MAX: u32 = 200;
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

/// The kind of stream that stdout is, as far as it matters for a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdout {
    /// `/dev/null`, which a process also has if it was started without a stdout.
    Nowhere,
    /// The system's journal, which other users may read, and which stores the secret.
    Journal,
    Pipe,
    /// A terminal, a file, or another stream.
    Other,
}

impl Stdout {
    /// `journal_stream` is the variable `JOURNAL_STREAM`, in which systemd names the journal's device and inode.
    pub(crate) fn now(journal_stream: Option<&str>) -> io::Result<Self> {
        let stdout = rustix::fs::fstat(io::stdout())?;
        let null = rustix::fs::stat("/dev/null").ok();
        Ok(Stdout::of(&stdout, null.as_ref(), journal_stream))
    }

    fn of(stdout: &Stat, null: Option<&Stat>, journal_stream: Option<&str>) -> Self {
        let kind = FileType::from_raw_mode(stdout.st_mode);
        let name = format!("{}:{}", stdout.st_dev, stdout.st_ino);
        if kind == FileType::CharacterDevice
            && null.is_some_and(|null| null.st_rdev == stdout.st_rdev)
        {
            Stdout::Nowhere
        } else if journal_stream == Some(&name) {
            Stdout::Journal
        } else if kind == FileType::Fifo {
            Stdout::Pipe
        } else {
            Stdout::Other
        }
    }
}

/// Prints the text, and fails if it was lost. May wait for a reader, so it blocks.
pub(crate) fn show(text: &str) -> Result<(), NotShown> {
    let to = Stdout::now(None)?;
    if to == Stdout::Nowhere {
        return Err(NotShown::Nowhere);
    }
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()?;
    match to {
        Stdout::Pipe => taken(&stdout),
        Stdout::Nowhere | Stdout::Journal | Stdout::Other => Ok(()),
    }
}

/// Waits until the pipe is empty. Fails if the pipe isn't empty and its last reader is gone.
fn taken(pipe: impl AsFd) -> Result<(), NotShown> {
    for _ in 0..LOOKS_MAX {
        if rustix::io::ioctl_fionread(&pipe).map_err(io::Error::from)? == 0 {
            return Ok(());
        }
        // Without flags, poll only waits for an error: that the last reader is gone.
        let mut streams = [PollFd::new(&pipe, PollFlags::empty())];
        let _ = poll(&mut streams, Some(&LOOK));
        if streams[0].revents().contains(PollFlags::ERR) {
            let left = rustix::io::ioctl_fionread(&pipe).map_err(io::Error::from)?;
            return if left == 0 {
                Ok(())
            } else {
                Err(NotShown::Unread)
            };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::*;

    #[test]
    fn a_secret_in_a_pipe_is_seen_only_if_it_was_read() {
        let pipe = || {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            rustix::io::write(&writer, b"secret\n").unwrap();
            (std::fs::File::from(reader), writer)
        };
        let (reader, writer) = pipe();
        drop(reader);
        assert!(matches!(taken(&writer), Err(NotShown::Unread)));

        // A reader like `head -1`, which reads a line and ends.
        let (mut reader, writer) = pipe();
        reader.read_exact(&mut [0; 7]).unwrap();
        drop(reader);
        taken(&writer).unwrap();

        let (mut reader, writer) = pipe();
        let reading = thread::spawn(move || reader.read_exact(&mut [0; 7]));
        taken(&writer).unwrap();
        reading.join().unwrap().unwrap();

        let (mut reader, writer) = pipe();
        let reading = thread::spawn(move || reader.read_exact(&mut [0; 3]));
        assert!(matches!(taken(&writer), Err(NotShown::Unread)));
        reading.join().unwrap().unwrap();
    }

    #[test]
    fn the_journal_and_nowhere_are_told_from_other_streams() {
        let stat = |path: &str| rustix::fs::stat(path).unwrap();
        let null = stat("/dev/null");
        let folder = tempfile::tempdir().unwrap();
        let file = stat(folder.path().to_str().unwrap());
        let name = format!("{}:{}", file.st_dev, file.st_ino);
        let rows = [
            (&null, None, Stdout::Nowhere),
            (&null, Some("8:1"), Stdout::Nowhere),
            (&file, None, Stdout::Other),
            (&file, Some("8:1"), Stdout::Other),
            (&file, Some(&*name), Stdout::Journal),
            (&file, Some(""), Stdout::Other),
        ];
        for (stdout, journal_stream, to) in rows {
            let found = Stdout::of(stdout, Some(&null), journal_stream);
            assert_eq!(found, to, "{journal_stream:?}");
        }
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        let pipe = rustix::fs::fstat(&writer).unwrap();
        assert_eq!(Stdout::of(&pipe, Some(&null), None), Stdout::Pipe);
    }
}
