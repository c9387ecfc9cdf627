//! An attachment together with the interface it is on: what a receiver keeps, and what the shared state remembers.

use std::sync::{Arc, Weak};

use super::{attachment::Attachment, numa};
use crate::{
    config::{Listen, ListenSet},
    net::Interface,
};

/// The program on an interface; it stays attached as long as one of these exists.
#[derive(Clone)]
pub(super) struct AttachedInterface {
    pub(super) attachment: Arc<Attachment>,
    pub(super) interface: Interface,
    pub(super) listen: Arc<ListenSet>,
    /// NUMA node for packet memory.
    pub(super) node: Option<u32>,
    /// 1 for the first attachment, one more for each that follows a removed interface.
    pub(super) generation: u32,
}

impl AttachedInterface {
    pub(super) fn new(
        attachment: Arc<Attachment>,
        interface: Interface,
        listen: &[Listen],
        generation: u32,
    ) -> Self {
        let node = numa::node_of(&interface);
        AttachedInterface {
            attachment,
            interface,
            listen: Arc::new(ListenSet::new(listen)),
            node,
            generation,
        }
    }

    pub(super) fn downgrade(&self) -> WeakAttachedInterface {
        WeakAttachedInterface {
            attachment: Arc::downgrade(&self.attachment),
            interface: self.interface.clone(),
            listen: Arc::clone(&self.listen),
            node: self.node,
            generation: self.generation,
        }
    }
}

/// An [`AttachedInterface`] that does not keep the program attached.
pub(super) struct WeakAttachedInterface {
    attachment: Weak<Attachment>,
    interface: Interface,
    listen: Arc<ListenSet>,
    node: Option<u32>,
    generation: u32,
}

impl WeakAttachedInterface {
    /// Returns None when the last owner of the attachment is gone.
    pub(super) fn upgrade(&self) -> Option<AttachedInterface> {
        Some(AttachedInterface {
            attachment: self.attachment.upgrade()?,
            interface: self.interface.clone(),
            listen: Arc::clone(&self.listen),
            node: self.node,
            generation: self.generation,
        })
    }
}
