//! What all receivers of an interface share: the XSKMAP, the program and its place on the interface.

use crate::{
    bpf::{
        link::{AttachMode, XdpLink},
        sys::{Program, XskMap, action},
        xdp_program::{self, Spec},
    },
    config::{Listen, XdpMode},
    error::{Code, Error, Result},
    net::Interface,
    rx::xdp::umem::{FRAME_BYTES, KERNEL_HEADROOM},
};

/// Owned by the receivers together; the last one gone, the link's descriptor closes and the kernel takes the program
/// off the interface. Field order: off the interface first.
pub(super) struct Attachment {
    _link: XdpLink,
    pub(super) program: Program,
    pub(super) map: XskMap,
    pub(super) mode: AttachMode,
}

impl Attachment {
    /// Loads the program and attaches it. Until sockets are in the map it passes everything. The sentences pushed to
    /// `degraded` say what was refused on the way.
    pub(super) fn new(
        interface: &Interface,
        listen: &[Listen],
        mode: XdpMode,
        degraded: &mut Vec<String>,
    ) -> Result<Self> {
        let map = XskMap::new(interface.max_rx_queues())?;
        let code = xdp_program::generate(&Spec {
            listen,
            map_fd: map.raw_fd(),
            empty_slot: action::PASS,
            max_frame: FRAME_BYTES - KERNEL_HEADROOM,
        })?;
        let program = Program::load("millrace", &code, 0)?;
        let attach = |mode| XdpLink::attach(&program, interface, mode);
        let (link, mode) = match mode {
            XdpMode::Native => (attach(AttachMode::Native)?, AttachMode::Native),
            XdpMode::Generic => (attach(AttachMode::Generic)?, AttachMode::Generic),
            XdpMode::Auto => match attach(AttachMode::Native) {
                Ok(link) => (link, AttachMode::Native),
                // Whoever owns the interface, owns it in both modes; and what is forbidden is so in both.
                Err(e) if matches!(e.code, Code::Busy | Code::Permission | Code::Interface) => return Err(e),
                Err(native) => {
                    let link = attach(AttachMode::Generic).map_err(|generic| Error {
                        message: format!("{}; and before that, {}", generic.message, native.message),
                        ..generic
                    })?;
                    degraded.push(format!("native XDP was refused: {}", native.message));
                    (link, AttachMode::Generic)
                }
            },
        };
        Ok(Attachment { _link: link, program, map, mode })
    }
}
