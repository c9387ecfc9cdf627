//! Finds the UDP header of a socket buffer.

use super::super::kernel::HeaderFields;
use super::access::UDP_HEADER;
use super::compiler::Compiler;
use super::layout::{CTX, LENGTH, UDP, stack};
use crate::bpf::ebpf::{Alu, Cond, Reg, Size};
use crate::protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPPROTO_UDP};

/// Offset of `__sk_buff.protocol`, which is in network order.
const SKB_PROTOCOL: i16 = 16;
/// More-fragments flag and fragment offset of IPv4.
const FRAGMENT: u32 = 0x3fff;
const V6_HEADER: i32 = 40;

impl Compiler<'_, '_> {
    /// The beginning of a program with [`super::compiler::Access::Relative`]: `UDP` ← offset of the UDP header, `LENGTH` ←
    /// length of the payload; stores the addresses that the rules read.
    pub(super) fn find_datagram(&mut self, fields: HeaderFields) {
        let none = self.no_datagram;
        let [network, v4, v6, ready] = std::array::from_fn(|_| self.a.label());
        self.a.mov_imm(UDP, 0);
        self.a.load(Size::Word, Reg::R7, CTX, SKB_PROTOCOL).be16(Reg::R7);
        let tagged = self.a.label();
        self.a.jump_if(Reg::R7, Cond::Eq, ETH_P_8021Q.into(), tagged);
        self.a.jump_if(Reg::R7, Cond::Ne, ETH_P_8021AD.into(), network);
        // The kernel moves the outer VLAN tag to metadata; an inner one stands before the network header.
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
        for (used, slot, at) in [(fields.src, stack::SRC, 12), (fields.dst, stack::DST, 16)] {
            if used {
                self.header(at, 4);
                self.store_mapped(slot);
            }
        }
        self.header(0, 1);
        self.a.alu_imm(Alu::And, Reg::R0, 15).alu_imm(Alu::Shl, Reg::R0, 2).alu(Alu::Add, UDP, Reg::R0);
        self.header(4, 2);
        self.a.jump(ready);

        self.a.place(v6);
        self.header(6, 1);
        self.a.jump_if(Reg::R0, Cond::Ne, IPPROTO_UDP.into(), none);
        for (used, slot, at) in [(fields.src, stack::SRC, 8), (fields.dst, stack::DST, 24)] {
            if used {
                self.load_relative(at, 16, slot);
            }
        }
        self.a.add_imm(UDP, V6_HEADER);
        self.header(4, 2);
        self.a.jump_if_not_zero(Reg::R0, ready);
        // RFC 2675 §4: a UDP length of zero means "to the end of the packet".
        self.header(4 - V6_HEADER, 2);
        self.a.place(ready).jump_if(Reg::R0, Cond::Lt, UDP_HEADER as u32, none);
        self.a.mov(LENGTH, Reg::R0).add_imm(LENGTH, -UDP_HEADER);
    }

    /// Stores the IPv4 address in `R0`, which is in host order, as a mapped one.
    pub(super) fn store_mapped(&mut self, slot: i16) {
        self.a.be(Reg::R0, 32).store(Size::Word, Reg::R10, slot + 12, Reg::R0);
        self.a.mov_imm(Reg::R0, 0).store(Size::Double, Reg::R10, slot, Reg::R0);
        self.a.mov_imm(Reg::R0, 0xffff).be(Reg::R0, 32).store(Size::Word, Reg::R10, slot + 8, Reg::R0);
    }
}
