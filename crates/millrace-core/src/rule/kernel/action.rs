//! Which actions a program in the kernel can carry out.

use super::super::load::Load;
use super::super::program::{Action, Spread};
use super::super::queues::Queues;
use super::unsupported::Reason;

/// What a program that steers decides. It only chooses the receive thread; that thread runs the rules again.
pub(crate) enum KernelAction<'p> {
    Queue(u16),
    Spread(&'p Spread, Queues),
    /// Any member of the group: the receive thread that gets the datagram drops it.
    AnyMember,
}

impl<'p> KernelAction<'p> {
    /// The action, if it is a function of the datagram alone. `spill` is ignored: the receive thread that owns the chosen queue
    /// applies it later.
    pub(crate) fn of(action: &'p Action) -> Result<Self, Reason> {
        match action {
            Action::Queue { queue, .. } => Ok(KernelAction::Queue(*queue)),
            Action::Drop => Ok(KernelAction::AnyMember),
            Action::Sample { .. } => Err("`sample` counts datagrams, for each receive thread".into()),
            Action::Spread { by, over, .. } => match by {
                Spread::RoundRobin { .. } => Err("`round_robin` takes turns, for each receive thread".into()),
                Spread::Random => Err("`random` is a draw of the receive thread".into()),
                Spread::Cpu => Err(unknown_in_kernel(Load::Cpu)),
                Spread::RxQueue => Err(unknown_in_kernel(Load::RxQueue)),
                Spread::Mod(_) | Spread::HashFlow | Spread::HashLoad(_) | Spread::Hash(_) => {
                    Ok(KernelAction::Spread(by, *over))
                }
            },
        }
    }
}

/// Why `cpu` or `rxq` cannot be read: the program runs before the receive thread is chosen.
pub(crate) fn unknown_in_kernel(load: Load) -> Reason {
    match load {
        Load::Cpu => "`cpu` is that of the receive thread, which is chosen later",
        _ => "`rxq` is that of the receive thread, which is chosen later",
    }
    .into()
}
