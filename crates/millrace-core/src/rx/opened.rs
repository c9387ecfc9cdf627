//! The result of opening a backend.

use super::{BackendInfo, Receiver, ReplacePrograms};

/// An open backend: everything is bound and attached, and nothing was read yet.
pub struct Opened<R: Receiver> {
    /// One per receive thread, in index order.
    pub receivers: Vec<R>,
    /// The receiver of the guard's sockets (`xdp` and `packet`), which needs a thread of its own.
    pub guard: Option<R::Guard>,
    /// Replaces the programs made from the rules; `None` where there are none.
    pub programs: Option<Box<dyn ReplacePrograms>>,
    /// The options and limits that the kernel granted.
    pub info: BackendInfo,
}
