//! Finds the UDP header of a socket buffer, and reads from it and from the payload.

use super::super::target::Uses;
use super::{Access, At, CTX, Compiler, LENGTH, UDP, stack};
use crate::bpf::ebpf::{Alu, Cond, Label, Reg, Size};
use crate::protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPPROTO_UDP};

/// `bpf_skb_load_bytes_relative` in `enum bpf_func_id`, and its `BPF_HDR_START_NET`.
pub(in crate::rule) const HELPER_LOAD_RELATIVE: i32 = 68;
const FROM_NETWORK_HEADER: i32 = 1;
/// `__sk_buff.protocol`, network order.
const SKB_PROTOCOL: i16 = 16;
/// `xdp_md.data_end`.
const MD_DATA_END: i16 = 4;
/// More-fragments flag and fragment offset of IPv4.
const FRAGMENT: u32 = 0x3fff;
const UDP_HEADER: i32 = 8;
const V6_HEADER: i32 = 40;

impl Compiler<'_, '_> {
    /// The beginning of a program with [`Access::Relative`]: `UDP` ← offset of the UDP header, `LENGTH` ← that of the
    /// payload, the addresses onto the stack.
    pub(super) fn find_datagram(&mut self, uses: Uses) {
        let none = self.none;
        let [network, v4, v6, ready] = std::array::from_fn(|_| self.a.label());
        self.a.mov_imm(UDP, 0);
        self.a.load(Size::Word, Reg::R7, CTX, SKB_PROTOCOL).be16(Reg::R7);
        let tagged = self.a.label();
        self.a.jump_if(Reg::R7, Cond::Eq, ETH_P_8021Q.into(), tagged);
        self.a.jump_if(Reg::R7, Cond::Ne, ETH_P_8021AD.into(), network);
        // The kernel moves the outer tag to metadata; an inner one stands before the network header.
        self.a.place(tagged);
        self.header(2, 2);
        self.a.mov(Reg::R7, Reg::R0).mov_imm(UDP, 4);
        self.a.place(network);
        self.a.jump_if(Reg::R7, Cond::Eq, ETH_P_IP.into(), v4);
        self.a.jump_if(Reg::R7, Cond::Eq, ETH_P_IPV6.into(), v6).jump(none);

        self.a.place(v4);
        self.header(9, 1);
        self.a.jump_if(Reg::R0, Cond::Ne, IPPROTO_UDP.into(), none);
        self.header(6, 2);
        self.a.jump_if(Reg::R0, Cond::Set, FRAGMENT, none);
        for (used, slot, at) in [(uses.src, stack::SRC, 12), (uses.dst, stack::DST, 16)] {
            if used {
                self.header(at, 4);
                self.mapped(slot);
            }
        }
        self.header(0, 1);
        self.a.alu_imm(Alu::And, Reg::R0, 15).alu_imm(Alu::Shl, Reg::R0, 2).alu(Alu::Add, UDP, Reg::R0);
        self.header(4, 2);
        self.a.jump(ready);

        self.a.place(v6);
        self.header(6, 1);
        self.a.jump_if(Reg::R0, Cond::Ne, IPPROTO_UDP.into(), none);
        for (used, slot, at) in [(uses.src, stack::SRC, 8), (uses.dst, stack::DST, 24)] {
            if used {
                self.relative(at, 16, slot);
            }
        }
        self.a.add_imm(UDP, V6_HEADER);
        self.header(4, 2);
        self.a.jump_if_not_zero(Reg::R0, ready);
        // RFC 2675 §4: a length of zero means "to the end of the packet".
        self.header(4 - V6_HEADER, 2);
        self.a.place(ready).jump_if(Reg::R0, Cond::Lt, UDP_HEADER as u32, none);
        self.a.mov(LENGTH, Reg::R0).add_imm(LENGTH, -UDP_HEADER);
    }

    /// The IPv4 address in `R0`, in host order, onto the stack as a mapped one.
    pub(super) fn mapped(&mut self, slot: i16) {
        self.a.be(Reg::R0, 32).store(Size::Word, Reg::R10, slot + 12, Reg::R0);
        self.a.mov_imm(Reg::R0, 0).store(Size::Double, Reg::R10, slot, Reg::R0);
        self.a.mov_imm(Reg::R0, 0xffff).be(Reg::R0, 32).store(Size::Word, Reg::R10, slot + 8, Reg::R0);
    }

    /// Continues at `fail` when the payload has fewer than `at + width` bytes.
    pub(super) fn need(&mut self, at: u16, width: usize, fail: At) {
        let end = u32::from(at) + width as u32;
        if self.known < end {
            let short: Label = self.way(fail);
            self.a.jump_if(LENGTH, Cond::Lt, end, short);
            self.known = end;
        }
    }

    /// `R0` ← 1, 2, 4 or 8 bytes of the payload, in network order or little-endian.
    pub(super) fn payload(&mut self, at: u32, width: usize, network: bool) {
        // At most 65,535 + 8.
        self.read(at as i32 + UDP_HEADER, width, network);
    }

    /// `R0` ← a number at an offset from `UDP`, in network order.
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
                self.relative(at, width, stack::BUFFER);
                self.a.load(size, Reg::R0, Reg::R10, stack::BUFFER);
            }
            Access::Direct => {
                self.a.mov(Reg::R1, UDP).add_imm(Reg::R1, at);
                self.a.mov(Reg::R2, Reg::R1).add_imm(Reg::R2, width as i32);
                self.a.load(Size::Word, Reg::R3, CTX, MD_DATA_END);
                self.a.jump_if_reg(Reg::R2, Cond::Gt, Reg::R3, self.none);
                self.a.load(size, Reg::R0, Reg::R1, 0);
            }
        }
        if network && width > 1 {
            self.a.be(Reg::R0, 8 * width as u8);
        }
    }

    /// Copies bytes onto the stack.
    fn relative(&mut self, at: i32, bytes: usize, slot: i16) {
        self.a.mov(Reg::R1, CTX).mov(Reg::R2, UDP).add_imm(Reg::R2, at);
        self.a.mov(Reg::R3, Reg::R10).add_imm(Reg::R3, slot.into()).mov_imm(Reg::R4, bytes as i32);
        self.a.mov_imm(Reg::R5, FROM_NETWORK_HEADER).call(HELPER_LOAD_RELATIVE);
        self.a.jump_if_not_zero(Reg::R0, self.none);
    }
}
