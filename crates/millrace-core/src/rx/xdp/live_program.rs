//! The early drops in force, and the attachment whose program runs them. A reload of the rules replaces them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::attachment::Attachment;
use crate::{
    error::{Code, Result},
    rx::early::EarlyRules,
    rx::rule_programs::{ReplacePrograms, RulePrograms},
};

/// Shared by the engine, which replaces the early drops, and the threads that attach. It does not keep an attachment: the
/// receivers do, and the program is detached with the last of them.
#[derive(Default)]
pub(super) struct LiveProgram {
    in_force: Mutex<InForce>,
}

#[derive(Default)]
struct InForce {
    early: Option<Arc<EarlyRules>>,
    attachment: Weak<Attachment>,
    /// Which early drops are, or were last, in force, as text for the user.
    status: String,
}

impl LiveProgram {
    /// The early drops for the first attachment.
    pub(super) fn new(early: Option<Arc<EarlyRules>>) -> Arc<Self> {
        Arc::new(LiveProgram { in_force: Mutex::new(InForce { early, ..InForce::default() }) })
    }

    fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which early drops are in force, as text for the user. It waits while they are being replaced, tens of milliseconds.
    pub(super) fn status(&self) -> String {
        self.in_force().status.clone()
    }

    /// Attaches by `attach`, and then puts the early drops in force. Attaching may take seconds, for which no reload and no
    /// reader of [`LiveProgram::status`] waits: the lock is held for the second step only. A program with early drops from
    /// the first step on could have those of rules that a reload has replaced meanwhile.
    ///
    /// # Errors
    /// Those of attaching. A program with early drops that the kernel refuses is not an error; `degraded` then says so.
    pub(super) fn attach(
        &self,
        degraded: &mut Vec<String>,
        attach: impl FnOnce(&mut Vec<String>) -> Result<Attachment>,
    ) -> Result<Arc<Attachment>> {
        let attachment = Arc::new(attach(degraded)?);
        let mut in_force = self.in_force();
        if in_force.early.is_some() {
            attachment.replace(in_force.early.clone())?;
        }
        if attachment.early_refused() {
            let why = "the kernel refuses the XDP program with the leading drop rules in it: they run in user space";
            degraded.push(why.into());
        }
        in_force.attachment = Arc::downgrade(&attachment);
        in_force.status = attachment.early_drops();
        Ok(attachment)
    }
}

/// The key of the status in [`crate::rx::BackendInfo::granted`].
pub(super) const GRANTED_KEY: &str = "early drops";

/// The engine's handle: replaces the early drops.
pub(super) struct EarlyDropsHandle(pub(super) Arc<LiveProgram>);

impl ReplacePrograms for EarlyDropsHandle {
    fn replace(&self, programs: &RulePrograms) -> Result<(&'static str, String)> {
        let mut in_force = self.0.in_force();
        // While the interface is away there is nothing to replace: the next attachment gets the new ones.
        if let Some(attachment) = in_force.attachment.upgrade() {
            match attachment.replace(programs.early.clone()) {
                // The interface was removed, and the receive threads have not noticed yet.
                Err(e) if e.code == Code::Interface => {}
                replaced => replaced?,
            }
            in_force.status = attachment.early_drops();
        }
        in_force.early.clone_from(&programs.early);
        Ok((GRANTED_KEY, in_force.status.clone()))
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

    /// The test runs in a network namespace of its own, which has a loopback interface and nothing else.
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
                let programs = RulePrograms { early: drops(rules), ..RulePrograms::default() };
                EarlyDropsHandle(Arc::clone(&live)).replace(&programs).unwrap().1
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
            assert_eq!(live.status(), "2 leading rules run in the XDP program");
            assert_eq!(reload("queue(0)"), "none: the rules begin with no drop");
            true
        };
        if !thread::spawn(own_namespace).join().unwrap() {
            crate::testing::skip("needs CAP_SYS_ADMIN to make a network namespace");
        }
    }
}
