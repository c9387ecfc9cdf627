//! What all receivers of an interface share: the XSKMAP, the program and its place on the interface.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use crate::rx::early::EarlyRules;
use crate::{
    bpf::{
        Program, XskMap, action,
        link::{AttachMode, XdpLink},
        xdp_program::{self, Spec},
    },
    config::{Listen, XdpMode},
    error::{Code, Error, Result},
    net::Interface,
    rx::xdp::{
        LINK_HEADER, socket,
        umem::{FRAME_BYTES, KERNEL_HEADROOM},
    },
};

/// Owned by the receivers together; the last one gone, the link's descriptor closes and the kernel takes the program
/// off the interface. Field order: off the interface first.
pub(super) struct Attachment {
    link: XdpLink,
    loaded: Mutex<Loaded>,
    /// Of the program in force. Apart, because `loaded` is held while the kernel replaces programs.
    program_id: AtomicU32,
    pub(super) map: XskMap,
    /// What other programs in its place are made from.
    listen: Vec<Listen>,
    pub(super) mode: AttachMode,
    /// Longer frames pass, bytes from the Ethernet header on.
    pub(super) max_frame: u32,
    /// Frames may come in several descriptors.
    pub(super) segments: bool,
}

/// What the program in force is made from; the link keeps the program itself.
struct Loaded {
    /// What it drops early; it counts in their map.
    early: Option<Arc<EarlyRules>>,
    /// The kernel would not have them.
    refused: bool,
}

/// `prog_flags` of a program that understands frames in several buffers (Linux 5.18).
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
/// The program compares only the first buffer's length with the limit, and that is at most a page or so.
const ANY_FRAME: u32 = 0xffff;

impl Attachment {
    /// Loads the program and attaches it. Until sockets are in the map it passes everything; it drops nothing early. The
    /// sentences pushed to `degraded` say what was refused on the way.
    pub(super) fn new(
        interface: &Interface,
        listen: &[Listen],
        mode: XdpMode,
        degraded: &mut Vec<String>,
    ) -> Result<Self> {
        let attach = |mode| Self::attach(interface, listen, mode);
        match mode {
            XdpMode::Native => attach(AttachMode::Native),
            XdpMode::Generic => attach(AttachMode::Generic),
            XdpMode::Auto => match attach(AttachMode::Native) {
                // Whoever owns the interface, owns it in both modes; and what is forbidden is so in both.
                Err(e) if matches!(e.code, Code::Busy | Code::Permission | Code::Interface) => Err(e),
                Err(native) => {
                    let attached = attach(AttachMode::Generic).map_err(|generic| Error {
                        message: format!("{}; and before that, {}", generic.message, native.message),
                        ..generic
                    })?;
                    degraded.push(format!("native XDP was refused: {}", native.message));
                    Ok(attached)
                }
                attached => attached,
            },
        }
    }

    /// Natively, where frames can be longer than a UMEM frame, first with `segments`; a driver without them refuses with
    /// the error that then counts.
    fn attach(interface: &Interface, listen: &[Listen], mode: AttachMode) -> Result<Self> {
        let mtu = interface.link()?.mtu;
        // Without a socket nothing opens in any case, and opening one says why.
        if segments_first(mode, mtu, || socket::knows_segments().unwrap_or(false)) {
            match Self::attach_with(interface, listen, mode, mtu, true) {
                Err(e) if matches!(e.code, Code::Unsupported | Code::Kernel) => {}
                result => return result,
            }
        }
        Self::attach_with(interface, listen, mode, mtu, false)
    }

    fn attach_with(
        interface: &Interface,
        listen: &[Listen],
        mode: AttachMode,
        mtu: u32,
        segments: bool,
    ) -> Result<Self> {
        let max_frame = if segments { ANY_FRAME } else { max_frame(mode, mtu) };
        let map = XskMap::new(interface.max_rx_queues())?;
        let program = load(listen, &map, max_frame, segments, None)?;
        let link = XdpLink::attach(&program, interface, mode)?;
        let program_id = AtomicU32::new(program.id());
        let loaded = Mutex::new(Loaded { early: None, refused: false });
        Ok(Attachment { link, loaded, program_id, map, listen: listen.to_vec(), mode, max_frame, segments })
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other early drops in force, in one step: every frame meets either the old program or the new one. Where the
    /// kernel refuses a program with them, none are in force, and [`Attachment::early_drops`] says so.
    ///
    /// # Errors
    /// Those of [`XdpLink::update`]; the old ones stay in force.
    pub(super) fn replace(&self, early: Option<Arc<EarlyRules>>) -> Result<()> {
        self.install(&mut self.loaded(), early)
    }

    /// Gives the driver the program again, for rx queues that came without it. A fresh copy, because the kernel does
    /// nothing when asked to replace a program by itself.
    ///
    /// # Errors
    /// Those of [`XdpLink::update`].
    pub(super) fn reinstall(&self) -> Result<()> {
        let mut loaded = self.loaded();
        let early = loaded.early.clone();
        self.install(&mut loaded, early)
    }

    fn install(&self, loaded: &mut Loaded, early: Option<Arc<EarlyRules>>) -> Result<()> {
        let load = |early| load(&self.listen, &self.map, self.max_frame, self.segments, early);
        let (program, refused) = match load(early.as_deref()) {
            Ok(program) => (program, false),
            Err(_) if early.is_some() => (load(None)?, true),
            Err(e) => return Err(e),
        };
        self.link.update(&program)?;
        self.program_id.store(program.id(), Ordering::Relaxed);
        *loaded = Loaded { early, refused };
        Ok(())
    }

    /// The kernel refused the early drops it was to have.
    pub(super) fn early_refused(&self) -> bool {
        self.loaded().refused
    }

    /// Which early drops are in force, for people.
    pub(super) fn early_drops(&self) -> String {
        match &*self.loaded() {
            Loaded { early: None, .. } => "none: the rules begin with no drop".into(),
            Loaded { refused: true, .. } => "none: the kernel refuses the program with them".into(),
            Loaded { early: Some(early), .. } => {
                format!("{} leading rules run in the XDP program", early.count())
            }
        }
    }

    /// The kernel's id of the program in force.
    pub(super) fn program_id(&self) -> u32 {
        self.program_id.load(Ordering::Relaxed)
    }
}

/// Natively, where frames can be longer than a UMEM frame, and sockets take them in several descriptors: a program for
/// such frames on a kernel whose sockets do not would leave no queue that opens.
fn segments_first(mode: AttachMode, mtu: u32, sockets_know: impl FnOnce() -> bool) -> bool {
    let long = mtu.saturating_add(LINK_HEADER) > FRAME_BYTES - KERNEL_HEADROOM;
    mode == AttachMode::Native && long && sockets_know()
}

fn load(
    listen: &[Listen],
    map: &XskMap,
    max_frame: u32,
    segments: bool,
    early: Option<&EarlyRules>,
) -> Result<Program> {
    let spec = Spec { listen, map_fd: map.raw_fd(), empty_slot: action::PASS, max_frame };
    let flags = if segments { BPF_F_XDP_HAS_FRAGS } else { 0 };
    let early = early.and_then(EarlyRules::code);
    Program::load(
        "millrace",
        &xdp_program::generate_with(
            &spec,
            early.as_ref().map(|code| code as &dyn xdp_program::BeforeRedirect),
        )?,
        flags,
    )
}

/// A UMEM frame's room, and in generic mode not more than the wire could carry: what is longer is a UDP GSO
/// super-packet of a sender on this host. The stack splits those for the guard socket; read as one frame, several
/// datagrams would look like one. (In native mode the kernel splits them before the program runs.)
fn max_frame(mode: AttachMode, mtu: u32) -> u32 {
    let room = FRAME_BYTES - KERNEL_HEADROOM;
    match mode {
        AttachMode::Native => room,
        AttachMode::Generic => room.min(mtu.saturating_add(LINK_HEADER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_where_frames_are_long_and_sockets_know_them() {
        let never = || panic!("asked for nothing");
        assert!(
            !segments_first(AttachMode::Native, 1500, never)
                && !segments_first(AttachMode::Native, 1770, never)
        );
        assert!(!segments_first(AttachMode::Generic, 9000, never));
        for known in [true, false] {
            assert_eq!(segments_first(AttachMode::Native, 1771, || known), known);
            assert_eq!(segments_first(AttachMode::Native, 9000, || known), known);
        }
    }
}
