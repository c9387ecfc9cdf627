//! The grants of the kernel on an interface, and what of them is out of order at present: the parts of a [`BackendInfo`] that
//! change while the engine runs.

use std::collections::BTreeMap;

use crate::rx::BackendInfo;

/// The modes of the sockets of an attachment, which they may have in common or not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SocketModes {
    /// Some sockets have zero-copy, as XDP_OPTIONS reports.
    zero_copy: bool,
    /// Some sockets have copy mode.
    copy: bool,
    /// Some sockets have their packet memory on ordinary pages.
    ordinary_pages: bool,
}

impl SocketModes {
    pub(super) fn add(&mut self, zero_copy: bool, huge_pages: bool) {
        self.zero_copy |= zero_copy;
        self.copy |= !zero_copy;
        self.ordinary_pages |= !huge_pages;
    }

    /// Completes the mode of `info` and adds where the packet memory is.
    pub(super) fn describe(self, info: &mut BackendInfo) {
        let copying = match (self.zero_copy, self.copy) {
            (true, true) => "copy and zero-copy",
            (true, false) => "zero-copy",
            _ => "copy",
        };
        info.mode = format!("{} {copying}", info.mode);
        let pages = if self.ordinary_pages { "ordinary pages" } else { "2 MiB pages" };
        info.granted.push(("packet memory".into(), pages.into()));
    }
}

/// The report on one attachment.
pub(super) struct InterfaceReport {
    /// The grants when the program was attached. Its mode is that of attaching alone.
    info: BackendInfo,
    sockets: SocketModes,
    /// The sentence that says that the link is down.
    link_down: Option<String>,
    /// The sentence that explains why new rx queues could not be given the program.
    program_missing: Option<String>,
    /// Rx queues without a socket, and the sentences that explain why.
    refused: BTreeMap<u32, String>,
}

impl InterfaceReport {
    pub(super) fn new(info: BackendInfo, sockets: SocketModes, link_down: Option<String>) -> Self {
        InterfaceReport { info, sockets, link_down, program_missing: None, refused: BTreeMap::new() }
    }

    /// Records a poll of the interface. Rx queues from `rx_queues` on do not exist, so none of them is refused.
    pub(super) fn record_rx_queues(
        &mut self,
        rx_queues: u32,
        link_down: Option<String>,
        program_missing: Option<String>,
    ) {
        self.link_down = link_down;
        self.program_missing = program_missing;
        self.refused.retain(|number, _| *number < rx_queues);
    }

    /// Records an rx queue whose socket is open. `zero_copy` is None when the kernel does not report it.
    pub(super) fn record_opened(&mut self, number: u32, zero_copy: Option<bool>, huge_pages: bool) {
        self.refused.remove(&number);
        if let Some(zero_copy) = zero_copy {
            self.sockets.add(zero_copy, huge_pages);
        }
    }

    /// Records an rx queue whose socket cannot be opened.
    pub(super) fn record_refused(&mut self, number: u32, reason: String) {
        self.refused.insert(number, reason);
    }

    /// Records that the interface was removed: what was wrong with it does not matter any more.
    pub(super) fn record_removed(&mut self) {
        (self.link_down, self.program_missing) = (None, None);
        self.refused.clear();
        self.sockets = SocketModes::default();
    }

    /// The report on the attachment that follows. The modes of sockets stay: those of its sockets are added to them.
    pub(super) fn replace(&mut self, info: BackendInfo, link_down: Option<String>) {
        *self = InterfaceReport::new(info, self.sockets, link_down);
    }

    /// Returns the grants that hold now, and the modes of the sockets, which [`SocketModes::describe`] adds to it at the end.
    pub(super) fn snapshot(&self) -> (BackendInfo, SocketModes) {
        let mut info = self.info.clone();
        let sentences = self.link_down.iter().chain(&self.program_missing).chain(self.refused.values());
        info.degraded.extend(sentences.cloned());
        (info, self.sockets)
    }
}
