//! Reads from the packet: payload, length, ports and addresses.

use super::super::load::Load;
use super::super::program::{AddressField, NodeId};
use super::compiler::Compiler;
use super::layout::SCRATCH_WORDS;
use super::target::CbpfTarget;
use crate::bpf::classic::{Label, NEXT, code};

const UDP_HEADER: u32 = 8;

impl Compiler<'_> {
    /// A ← payload length.
    pub(super) fn length(&mut self) {
        match self.layout.target {
            CbpfTarget::Fanout => self.a.op(code::LD_MEM, self.layout.length),
            CbpfTarget::Reuseport { .. } => self.a.op(code::LD_LEN, 0),
        }
    }

    /// A ← a port; `which` is 0 for the source's, 1 for the destination's.
    pub(super) fn port(&mut self, which: u32) {
        match self.layout.ports {
            Some(ports) => self.a.op(code::LD_MEM, ports + which),
            None => {
                self.load_udp_offset();
                self.a.op(code::LD_H_IND, 2 * which);
            }
        }
    }

    /// A ← one, two or four bytes of the payload.
    pub(super) fn payload(&mut self, at: u32, width: usize) {
        // `BPF_IND` counts from X, `BPF_ABS` from the packet's offset 0.
        let (mode, at) = if self.layout.fanout() {
            self.load_udp_offset();
            (0x40, at + UDP_HEADER)
        } else {
            (0x20, at)
        };
        let size = match width {
            1 => 0x10,
            2 => 0x08,
            _ => 0x00,
        };
        self.a.op(mode | size, at);
    }

    /// X ← offset of the UDP header, unless it is there already.
    fn load_udp_offset(&mut self) {
        if !self.x_is_udp_offset {
            self.a.op(code::LDX_MEM, self.layout.udp_offset);
            self.x_is_udp_offset = true;
        }
    }

    /// Continues at `fail` when the payload has fewer than `at + width` bytes, unless every path has checked that. Changes A.
    pub(super) fn check_bounds(&mut self, at: u16, width: usize, fail: NodeId) {
        let end = u32::from(at) + width as u32;
        if self.min_len >= end {
            return;
        }
        let short: Label = self.label_for(fail);
        self.length();
        self.a.branch(code::JGE, end, NEXT, short);
        self.min_len = end;
    }

    /// A ← the upper (0) or lower (1) word of a 64-bit field that is known to be there.
    pub(super) fn wide_word(&mut self, load: Load, word: u32) {
        match load {
            Load::U64Le(at) => {
                self.payload(u32::from(at) + 4 * (1 - word), 4);
                self.swap32(self.scratch_used.min(SCRATCH_WORDS - 1));
            }
            Load::U64(at) => self.payload(u32::from(at) + 4 * word, 4),
            _ => {}
        }
    }

    /// A ← a word of an address, 0 the most significant.
    pub(super) fn address_word(&mut self, which: AddressField, word: usize) {
        let slot = match which {
            AddressField::Src => self.layout.src,
            AddressField::Dst => self.layout.dst,
        };
        self.a.op(code::LD_MEM, slot.unwrap_or(0) + word as u32);
    }

    /// A ← A with its two lower bytes exchanged.
    pub(super) fn swap16(&mut self, scratch: u32) {
        self.tax();
        self.a.op(code::RSH, 8);
        self.a.op(code::ST, scratch);
        self.a.op(code::TXA, 0);
        self.a.op(code::AND, 0xff);
        self.a.op(code::LSH, 8);
        self.a.op(code::LDX_MEM, scratch);
        self.a.op(code::OR | code::X, 0);
    }

    /// A ← A with its four bytes in reverse order.
    pub(super) fn swap32(&mut self, scratch: u32) {
        // Bytes within halves, then the halves.
        self.tax();
        self.a.op(code::RSH, 8);
        self.a.op(code::AND, 0x00ff_00ff);
        self.a.op(code::ST, scratch);
        self.a.op(code::TXA, 0);
        self.a.op(code::AND, 0x00ff_00ff);
        self.a.op(code::LSH, 8);
        self.a.op(code::LDX_MEM, scratch);
        self.a.op(code::OR | code::X, 0);
        self.a.op(code::TAX, 0);
        self.a.op(code::LSH, 16);
        self.a.op(code::ST, scratch);
        self.a.op(code::TXA, 0);
        self.a.op(code::RSH, 16);
        self.a.op(code::LDX_MEM, scratch);
        self.a.op(code::OR | code::X, 0);
    }
}
