//! The step: plan → decode → sample → commit → send, without thread, channel waiting or clock.

use std::time::Duration;

use crate::event::{Event, EventSender};
use crate::local::Options;
use crate::local::inbox::Load;
use crate::model::Model;
use crate::{EngineError, Prepared};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Stepped,
    Blocked,
    Idle,
}

pub struct Core<M> {
    _model: M,
}

impl<M: Model> Core<M> {
    pub fn new(model: M, _options: &Options, _clock: Box<dyn FnMut() -> Duration + Send>) -> Self {
        Core { _model: model }
    }
    pub fn start(&mut self, _prepared: Prepared, sender: EventSender) {
        sender.send(Event::Failed(EngineError::Unavailable("not yet".to_owned())));
    }
    pub fn load(&self) -> Load {
        Load::default()
    }
    pub fn step(&mut self) -> Progress {
        Progress::Idle
    }
    pub(crate) fn fail_all(&mut self, _error: &EngineError) {}
}
