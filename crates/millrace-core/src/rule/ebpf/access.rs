//! Reads from headers and payload.

use super::super::program::NodeId;
use super::compiler::{Access, Compiler};
use super::helpers;
use super::layout::{CTX, LENGTH, UDP, stack};
use crate::bpf::ebpf::{Cond, Label, Reg, Size};

/// Offset of `xdp_md.data_end`.
pub(super) const MD_DATA_END: i16 = 4;
/// Length of the UDP header, in bytes.
pub(super) const UDP_HEADER: i32 = 8;

impl Compiler<'_, '_> {
    /// Continues at `fail` when the payload has fewer than `at + width` bytes, unless every path has checked that.
    pub(super) fn check_bounds(&mut self, at: u16, width: usize, fail: NodeId) {
        let end = u32::from(at) + width as u32;
        if self.min_len < end {
            let short: Label = self.label_for(fail);
            self.a.jump_if(LENGTH, Cond::Lt, end, short);
            self.min_len = end;
        }
    }

    /// `R0` ← 1, 2, 4 or 8 bytes of the payload, in network order or little-endian.
    pub(super) fn payload(&mut self, at: u32, width: usize, network: bool) {
        // An offset is at most 65,535, so the sum fits.
        self.read(at as i32 + UDP_HEADER, width, network);
    }

    /// `R0` ← a number in network order, at an offset from the UDP header; the IP header is at negative ones.
    pub(super) fn header(&mut self, at: i32, width: usize) {
        self.read(at, width, true);
    }

    fn read(&mut self, at: i32, width: usize, network: bool) {
        let size = match width {
            1 => Size::Byte,
            2 => Size::Half,
            4 => Size::Word,
            _ => Size::Double,
        };
        match self.access {
            Access::Relative => {
                self.load_relative(at, width, stack::BUFFER);
                self.a.load(size, Reg::R0, Reg::R10, stack::BUFFER);
            }
            Access::Direct => {
                self.a.mov(Reg::R1, UDP).add_imm(Reg::R1, at);
                self.a.mov(Reg::R2, Reg::R1).add_imm(Reg::R2, width as i32);
                self.a.load(Size::Word, Reg::R3, CTX, MD_DATA_END);
                self.a.jump_if_reg(Reg::R2, Cond::Gt, Reg::R3, self.no_datagram);
                self.a.load(size, Reg::R0, Reg::R1, 0);
            }
        }
        if network && width > 1 {
            self.a.be(Reg::R0, 8 * width as u8);
        }
    }

    /// Copies bytes, at an offset from the UDP header, to a stack slot.
    pub(super) fn load_relative(&mut self, at: i32, bytes: usize, slot: i16) {
        self.a.mov(Reg::R1, CTX).mov(Reg::R2, UDP).add_imm(Reg::R2, at);
        self.a.mov(Reg::R3, Reg::R10).add_imm(Reg::R3, slot.into()).mov_imm(Reg::R4, bytes as i32);
        self.a.mov_imm(Reg::R5, helpers::HDR_START_NET).call(helpers::SKB_LOAD_BYTES_RELATIVE);
        self.a.jump_if_not_zero(Reg::R0, self.no_datagram);
    }
}
