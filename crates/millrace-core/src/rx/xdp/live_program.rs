//! The early drops in force, and the attachment that runs them: what a reload changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::attachment::Attachment;
use crate::{
    error::{Code, Result},
    rx::early::EarlyRules,
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

    /// Which early drops are in force, for people. Waits while they are being replaced, tens of milliseconds.
    pub(super) fn says(&self) -> String {
        self.state().says.clone()
    }

    /// Attaches, and then puts the early drops in force. Attaching may take seconds, for which no reload and no reader of
    /// [`LiveProgram::says`] waits; they wait for the early drops. It is done without early drops: those of its beginning may not be those of its end.
    ///
    /// # Errors
    /// Those of attaching. What the kernel refuses of early drops is none: `degraded` says it.
    pub(super) fn attach(
        &self,
        degraded: &mut Vec<String>,
        attach: impl FnOnce(&mut Vec<String>) -> Result<Attachment>,
    ) -> Result<Arc<Attachment>> {
        let attachment = Arc::new(attach(degraded)?);
        let mut state = self.state();
        if state.early.is_some() {
            attachment.replace(state.early.clone())?;
        }
        if attachment.early_refused() {
            let why = "the kernel refuses the XDP program with the leading drop rules in it: they run in user space";
            degraded.push(why.into());
        }
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{
        config::{Listen, XdpMode},
        net::Interface,
        rule::RuleSet,
    };

    fn drops(rules: &str) -> Option<Arc<EarlyRules>> {
        let rules = Arc::new(RuleSet::compile(rules, 1).unwrap());
        EarlyRules::new(&rules).unwrap().map(Arc::new)
    }

    /// In a network namespace of its own, which has a loopback interface and nothing else.
    #[test]
    fn a_reload_while_the_program_is_attached_waits_for_nothing_and_is_not_forgotten() {
        let own_namespace = || {
            // SAFETY: moves this thread alone, which ends with the test.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return false;
            }
            let lo = Interface::by_name("lo").unwrap();
            let listen = [Listen { address: None, scope: None, port: 9000 }];
            let live = LiveProgram::new(drops("u8[0] == 1 => drop\nelse => queue(0)"));
            let reload = |rules: &str| {
                let steering = Steering { early: drops(rules), ..Steering::default() };
                Handle(Arc::clone(&live)).steer(&steering).unwrap().1
            };
            let mut at_first = 0;
            let attach = |degraded: &mut Vec<String>| {
                let made = Attachment::new(&lo, &listen, XdpMode::Generic, degraded)?;
                at_first = made.program_id();
                assert_eq!(
                    made.early_drops(),
                    "none: the rules begin with no drop",
                    "not the old ones for a moment"
                );
                reload("u8[0] == 1 => drop\nu8[0] == 2 => drop\nelse => queue(0)");
                Ok(made)
            };
            let attached = live.attach(&mut Vec::new(), attach).unwrap();
            assert_ne!(attached.program_id(), at_first);
            assert_eq!(live.says(), "2 leading rules run in the XDP program");
            assert_eq!(reload("queue(0)"), "none: the rules begin with no drop");
            true
        };
        if !thread::spawn(own_namespace).join().unwrap() {
            crate::testing::skip("needs CAP_SYS_ADMIN to make a network namespace");
        }
    }
}
