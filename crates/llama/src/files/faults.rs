//! Survives faults in mapped files. A read behind the end of a file that became shorter, or from a part that its disk can't
//! read, raises SIGBUS, which by default ends the process without a message. This handler replaces the mapping by zeros, lets the
//! read continue, and records that the results are worthless. libwayland does the same for the buffers of its clients
//! (`wayland-shm.c`).
//!
//! Any other SIGBUS is passed on to the handler that was there before, Rust's own, after a line that names the usual cause.

mod table;

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

use self::table::TABLE;

/// Keeps faults in one file's mappings from ending the process.
#[derive(Debug)]
pub(super) struct Guard {
    id: u64,
}

impl Guard {
    /// Finds where the file is mapped: it must have been mapped already.
    pub(super) fn new(path: &Path, file: &File) -> Self {
        install();
        let path = path.canonicalize().unwrap_or_else(|_| PathBuf::from(path));
        let identity = file.metadata().map_or((0, 0), |it| (it.dev(), it.ino()));
        let id = table::watch(&path, identity);
        Guard { id }
    }

    pub(super) fn has_faulted(&self) -> bool {
        TABLE.has_faulted(self.id)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        table::unwatch(self.id);
    }
}

/// Forgets mappings that are gone: their addresses may be reused by others.
pub(super) fn forget_unmapped() {
    table::forget_unmapped();
}

/// The handler that the signal had before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

fn install() {
    BEFORE.get_or_init(|| {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: zeros are a valid action: the default one, with nothing blocked.
        let action = unsafe { action.assume_init_mut() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        // SA_ONSTACK: the handler runs on the alternative signal stack that Rust gives its threads, if there is one.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut before = MaybeUninit::zeroed();
        // SAFETY: both are actions, and the handler does only what a signal handler may.
        let installed =
            unsafe { libc::sigaction(libc::SIGBUS, &raw const *action, before.as_mut_ptr()) };
        if installed != 0 {
            tracing::warn!("a model file that is cut while it is served will end the process");
        }
        // SAFETY: zeroed, and written by the kernel if it succeeded.
        unsafe { before.assume_init() }
    });
}

/// Runs on the thread that read, in the middle of any code.
extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a pointer to the signal's information.
    let about = unsafe { &*info };
    // SAFETY: the information of a SIGBUS has an address.
    let address = unsafe { about.si_addr() } as usize;
    if TABLE.fault(address, replace_by_zeros) {
        return;
    }
    say(b"weir: SIGBUS: a file that is mapped into memory became shorter, or its disk fails\n");
    pass_on(signal, info, context);
}

/// Maps zeros over the addresses. The kernel uses no memory for such pages as long as they are only read.
fn replace_by_zeros(begin: usize, end: usize) -> bool {
    let place = ptr::with_exposed_provenance_mut(begin);
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a system call, which a handler may make. The addresses are a mapping of ours that is only read, and it stays
    // readable.
    let mapped = unsafe { libc::mmap(place, end - begin, libc::PROT_READ, flags, -1, 0) };
    mapped == place
}

fn say(text: &[u8]) {
    // SAFETY: a system call, which a handler may make; the text is as long as said.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// Does what would have happened without this handler.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let default = (libc::SIG_DFL, 0);
    let before = BEFORE.get();
    let (handler, flags) = before.map_or(default, |it| (it.sa_sigaction, it.sa_flags));
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN || flags & libc::SA_SIGINFO == 0 {
        // SAFETY: a system call, which a handler may make. The read faults again when this returns, and that ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    // SAFETY: the action said that it is a handler with these parameters.
    let handler: Handler = unsafe { std::mem::transmute(handler) };
    handler(signal, info, context);
}
