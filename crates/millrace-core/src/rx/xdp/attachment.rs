//! The attachment, which all receivers of an interface share: the XSKMAP, the XDP program, and the bpf_link that attaches it.

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
        socket,
        umem::{FRAME_BYTES, KERNEL_HEADROOM},
    },
};

/// Bytes of an Ethernet header and two VLAN tags, which an MTU does not count.
pub(super) const LINK_HEADER: u32 = 14 + 2 * 4;

/// A program attached to an interface. The receivers own it together. When the last one is dropped, the link's descriptor
/// closes and the kernel detaches the program. Field order: the program is detached before its map goes.
pub(super) struct Attachment {
    link: XdpLink,
    loaded: Mutex<Loaded>,
    /// Id of the program in force. It is outside of `loaded`, whose lock is held while the kernel replaces programs.
    program_id: AtomicU32,
    pub(super) map: XskMap,
    /// Addresses and ports, from which each replacement of the program is generated.
    listen: Vec<Listen>,
    pub(super) mode: AttachMode,
    /// Bytes from the Ethernet header on; longer packets go up the stack.
    pub(super) max_frame: u32,
    /// Packets may come in several descriptors.
    pub(super) multi_buffer: bool,
}

/// The early drops of the program in force; the link keeps the program itself.
struct Loaded {
    /// The rules that are to drop early. The program counts in their map.
    early: Option<Arc<EarlyRules>>,
    /// The kernel refused the program with them, so that the one in force drops nothing early.
    refused: bool,
}

/// `prog_flags` of a program that understands packets in several buffers (linux/bpf.h, Linux 5.18).
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
/// A limit that no packet exceeds: the program compares the length of the first buffer alone, which is about a page at most.
const ANY_FRAME: u32 = 0xffff;

impl Attachment {
    /// Loads the program and attaches it. As long as no socket is in the map, all packets go up the stack; nothing is dropped
    /// early. The sentences pushed to `degraded` say what was refused on the way.
    ///
    /// # Errors
    /// Those of [`XskMap::new`], [`Program::load`] and [`XdpLink::attach`].
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
                // A foreign program has the interface in both modes, and what is forbidden is forbidden in both.
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

    /// Attaches in one mode. In native mode, where packets can be longer than a UMEM frame, a program for several buffers is
    /// tried first; a driver that does not know them refuses it, and the result without them counts.
    fn attach(interface: &Interface, listen: &[Listen], mode: AttachMode) -> Result<Self> {
        let mtu = interface.link()?.mtu;
        // Where no socket can be made, opening the first rx queue fails and explains why.
        if prefers_multi_buffer(mode, mtu, || socket::supports_multi_buffer().unwrap_or(false)) {
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
        multi_buffer: bool,
    ) -> Result<Self> {
        let max_frame = if multi_buffer { ANY_FRAME } else { max_frame(mode, mtu) };
        let map = XskMap::new(interface.max_rx_queues())?;
        let program = load(listen, &map, max_frame, multi_buffer, None)?;
        let link = XdpLink::attach(&program, interface, mode)?;
        let program_id = AtomicU32::new(program.id());
        let loaded = Mutex::new(Loaded { early: None, refused: false });
        Ok(Attachment {
            link,
            loaded,
            program_id,
            map,
            listen: listen.to_vec(),
            mode,
            max_frame,
            multi_buffer,
        })
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other early drops in force by BPF_LINK_UPDATE, in one step: every packet meets either the old program or the new
    /// one. Where the kernel refuses the program with them, none are in force, and [`Attachment::early_drops`] says so.
    ///
    /// # Errors
    /// Those of [`XdpLink::update`]; the old program stays in force.
    pub(super) fn replace(&self, early: Option<Arc<EarlyRules>>) -> Result<()> {
        self.install(&mut self.loaded(), early)
    }

    /// Gives the driver the program again, for rx queues that were added without it. It loads a copy, because the kernel
    /// does nothing when a program is to be replaced by itself.
    ///
    /// # Errors
    /// Those of [`XdpLink::update`].
    pub(super) fn reinstall(&self) -> Result<()> {
        let mut loaded = self.loaded();
        let early = loaded.early.clone();
        self.install(&mut loaded, early)
    }

    fn install(&self, loaded: &mut Loaded, early: Option<Arc<EarlyRules>>) -> Result<()> {
        let load = |early| load(&self.listen, &self.map, self.max_frame, self.multi_buffer, early);
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

    /// True when the kernel refused the program with the early drops.
    pub(super) fn early_refused(&self) -> bool {
        self.loaded().refused
    }

    /// Which early drops are in force, as text for the user.
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

/// True in native mode, where packets can be longer than a UMEM frame and sockets take them in several descriptors. With a
/// program for several buffers, on a kernel whose sockets do not take them (Linux 5.18 to 6.5), no socket could be bound.
fn prefers_multi_buffer(mode: AttachMode, mtu: u32, sockets_do: impl FnOnce() -> bool) -> bool {
    let long = mtu.saturating_add(LINK_HEADER) > FRAME_BYTES - KERNEL_HEADROOM;
    mode == AttachMode::Native && long && sockets_do()
}

fn load(
    listen: &[Listen],
    map: &XskMap,
    max_frame: u32,
    multi_buffer: bool,
    early: Option<&EarlyRules>,
) -> Result<Program> {
    let spec = Spec { listen, map_fd: map.raw_fd(), empty_slot: action::PASS, max_frame };
    let flags = if multi_buffer { BPF_F_XDP_HAS_FRAGS } else { 0 };
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

/// Bytes of the longest packet that one UMEM frame takes, and in generic mode not more than the wire can carry. A longer one
/// is a UDP GSO super-packet of a sender on this host: the stack splits it for the guard socket, while read as one packet its
/// datagrams would look like one. (In native mode the kernel splits it before the program runs.)
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
    fn multi_buffer_where_packets_are_long_and_sockets_take_them() {
        let never = || panic!("probed for nothing");
        assert!(
            !prefers_multi_buffer(AttachMode::Native, 1500, never)
                && !prefers_multi_buffer(AttachMode::Native, 1770, never)
        );
        assert!(!prefers_multi_buffer(AttachMode::Generic, 9000, never));
        for known in [true, false] {
            assert_eq!(prefers_multi_buffer(AttachMode::Native, 1771, || known), known);
            assert_eq!(prefers_multi_buffer(AttachMode::Native, 9000, || known), known);
        }
    }
}
