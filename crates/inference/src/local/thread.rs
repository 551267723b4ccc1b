//! The engine's thread: it takes new requests, steps, and waits when there is nothing to step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use weir_engine::EngineError;
use weir_engine::event::Event;

use crate::constraint::Admission;
use crate::local::Options;
use crate::local::core::{Core, Progress};
use crate::local::inbox::{Inbox, Poll, WaitMode};
use crate::local::masks::MaskWorkers;
use crate::model::Model;

/// How often blocked generations are looked at: readers and raised allowances don't wake the thread, only token masks
/// and new requests do.
const BLOCKED_WAIT: Duration = Duration::from_millis(3);

pub(crate) fn spawn<M: Model>(
    model: M,
    options: &Options,
    inbox: Arc<Inbox>,
    admission: Arc<Admission>,
) -> std::io::Result<JoinHandle<()>> {
    let masks = {
        let inbox = Arc::clone(&inbox);
        MaskWorkers::start(options.mask_threads, admission, move || inbox.wake())?
    };
    let mut core = Core::new(model, options, Box::new(masks), Box::new(monotonic()));
    let span = tracing::Span::current();
    std::thread::Builder::new()
        .name("weir-engine".to_owned())
        .spawn(move || {
            let _span = span.entered();
            // After a panic the core isn't stepped again; it only sends last events, which asks nothing of the model.
            let end = match catch_unwind(AssertUnwindSafe(|| run(&mut core, &inbox))) {
                Ok(End::Stopped) => EngineError::Unavailable("the engine has stopped".to_owned()),
                Ok(End::Damaged(why)) => {
                    tracing::error!("the model is not available until it is loaded again: {why}");
                    EngineError::Unavailable(why)
                }
                Err(panic) => EngineError::Fault(format!(
                    "the engine's thread panicked: {}",
                    message(&*panic)
                )),
            };
            if let EngineError::Fault(why) = &end {
                tracing::error!("{why}");
            }
            let unseen = inbox.close(end.to_string());
            core.fail_all(&end);
            for start in unseen {
                start.sender.send(Event::Failed(end.clone()));
            }
            if catch_unwind(AssertUnwindSafe(|| drop(core))).is_err() {
                tracing::error!("the model panicked while it was unloaded");
            }
        })
}

/// Why there are no more steps.
enum End {
    Stopped,
    Damaged(String),
}

fn run<M: Model>(core: &mut Core<M>, inbox: &Inbox) -> End {
    let mut wait_mode = WaitMode::Endless;
    loop {
        match inbox.take(core.load(), wait_mode) {
            Poll::Stop => return End::Stopped,
            Poll::Starts(starts) => {
                for start in starts {
                    core.start(start.prepared, start.sender);
                }
            }
        }
        wait_mode = match core.step() {
            Progress::Stepped => WaitMode::None,
            Progress::Blocked => WaitMode::Short(BLOCKED_WAIT),
            Progress::Idle => WaitMode::Endless,
            Progress::Damaged => {
                return End::Damaged(core.damage().unwrap_or_default().to_owned());
            }
        };
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[expect(
    clippy::disallowed_types,
    reason = "steps are measured on a thread of their own, outside tokio"
)]
fn monotonic() -> impl FnMut() -> Duration + Send {
    let start = std::time::Instant::now();
    move || start.elapsed()
}
