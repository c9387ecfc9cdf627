//! The early drops in force, and the attachment that runs them: what a reload changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{attachment::Attachment, early::EarlyRules};
use crate::{
    error::{Code, Result},
    rx::steering::{Steer, Steering},
};

/// Shared by the engine and whoever attaches. It does not keep an attachment alive: that is the receivers' affair, and
/// the program goes with the last of them.
#[derive(Default)]
pub(super) struct LiveProgram {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    early: Option<Arc<EarlyRules>>,
    attached: Weak<Attachment>,
    /// Which early drops are, or were last, in force.
    says: String,
}

impl LiveProgram {
    /// Nothing attached yet.
    pub(super) fn new(early: Option<Arc<EarlyRules>>) -> Arc<Self> {
        Arc::new(LiveProgram { state: Mutex::new(State { early, ..State::default() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which early drops are in force, for people.
    pub(super) fn says(&self) -> String {
        self.state().says.clone()
    }

    /// Attaches with the early drops in force, while no reload can change them.
    pub(super) fn attach(
        &self,
        attach: impl FnOnce(Option<Arc<EarlyRules>>) -> Result<Attachment>,
    ) -> Result<Arc<Attachment>> {
        let mut state = self.state();
        let attachment = Arc::new(attach(state.early.clone())?);
        state.attached = Arc::downgrade(&attachment);
        state.says = attachment.early_drops();
        Ok(attachment)
    }
}

/// The key in [`crate::rx::BackendInfo::granted`].
pub(super) const GRANTED: &str = "early drops";

/// The engine's handle.
pub(super) struct Handle(pub(super) Arc<LiveProgram>);

impl Steer for Handle {
    fn steer(&self, steering: &Steering) -> Result<(&'static str, String)> {
        let mut state = self.0.state();
        // While the interface is away there is nothing to replace: the next program has them.
        if let Some(attachment) = state.attached.upgrade() {
            match attachment.replace(steering.early.clone()) {
                // Removed, and the receive threads have not noticed yet.
                Err(e) if e.code == Code::Interface => {}
                replaced => replaced?,
            }
            state.says = attachment.early_drops();
        }
        state.early.clone_from(&steering.early);
        Ok((GRANTED, state.says.clone()))
    }
}
