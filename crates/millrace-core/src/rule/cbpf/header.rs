//! The beginning of a program: finds the UDP header, and puts what the rules read into scratch memory. And its end.

use super::compiler::Compiler;
use super::layout::Layout;
use super::target::{CbpfTarget, NO_MEMBER};
use crate::bpf::classic::{AD_PROTOCOL, NET, NEXT, code};
use crate::protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPPROTO_UDP};

/// More-fragments flag and fragment offset of IPv4.
const FRAGMENT: u32 = 0x3fff;
/// Bytes of a VLAN tag in the packet.
const TAG: u32 = 4;
const V6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;

impl Compiler<'_> {
    /// The end of every program: what it returns for packets without a queue. It stands here and not in the prologue because
    /// of the kernel's check of scratch memory (`check_load_and_stores()` in net/core/filter.c), which assumes that an
    /// instruction behind a return is reached through it, with no more words stored than there.
    pub(super) fn epilogue(&mut self) {
        if let Some((label, result)) = self.no_datagram {
            self.place(label);
            self.a.ret(result);
        }
    }

    /// The beginning of every program.
    pub(super) fn prologue(&mut self) {
        match self.layout.target {
            CbpfTarget::Fanout => self.fanout_prologue(),
            CbpfTarget::Reuseport { .. } => self.reuseport_prologue(),
        }
    }

    /// Offset 0 is the network header. Stores the offset of the UDP header, the payload length and the addresses.
    fn fanout_prologue(&mut self) {
        let [v4, v6, tag, v4_tagged, v6_tagged, none, ready] = std::array::from_fn(|_| self.a.label());
        self.a.load_word(AD_PROTOCOL);
        self.a.if_eq(ETH_P_IP.into(), v4, NEXT);
        self.a.if_eq(ETH_P_IPV6.into(), v6, NEXT);
        self.a.if_eq(ETH_P_8021Q.into(), tag, NEXT);
        self.a.if_eq(ETH_P_8021AD.into(), tag, none);
        // The kernel moves the outer VLAN tag to metadata; an inner one stands before the network header.
        self.a.place(tag);
        self.a.load_half(2);
        self.a.if_eq(ETH_P_IP.into(), v4_tagged, NEXT);
        self.a.if_eq(ETH_P_IPV6.into(), v6_tagged, none);
        for (v4, v6, at) in [(v4_tagged, v6_tagged, TAG), (v4, v6, 0)] {
            self.a.place(v4);
            self.a.load_byte(at + 9);
            self.a.if_eq(IPPROTO_UDP.into(), NEXT, none);
            self.a.load_half(at + 6);
            self.a.if_set(FRAGMENT, none, NEXT);
            self.v4_addresses(at);
            self.a.load_x_ihl(at);
            self.a.op(code::TXA, 0);
            self.a.op(code::ADD, at);
            self.a.op(code::ST, self.layout.udp_offset);
            self.tax();
            self.a.op(code::LD_H_IND, 4);
            self.a.goto(ready);

            self.a.place(v6);
            self.a.load_byte(at + 6);
            self.a.if_eq(IPPROTO_UDP.into(), NEXT, none);
            self.v6_addresses(at);
            self.a.op(code::LD_IMM, at + V6_HEADER);
            self.a.op(code::ST, self.layout.udp_offset);
            self.a.load_half(at + V6_HEADER + 4);
            // RFC 2675 §4: a UDP length of zero means "to the end of the packet".
            let jumbo = self.a.label();
            self.a.if_eq(0, jumbo, ready);
            self.a.place(jumbo);
            self.a.load_half(at + 4);
            self.a.goto(ready);
        }
        self.no_datagram = Some((none, 0));
        self.place(ready);
        self.a.op(code::SUB, UDP_HEADER);
        self.a.op(code::ST, self.layout.length);
    }

    /// Offset 0 is the payload, and the headers are read relative to the network header. Stores addresses and ports.
    fn reuseport_prologue(&mut self) {
        let Layout { src, dst, ports, .. } = self.layout;
        if src.is_none() && dst.is_none() && ports.is_none() {
            return;
        }
        let [v4, v6, none, ready] = std::array::from_fn(|_| self.a.label());
        self.a.load_word(AD_PROTOCOL);
        self.a.if_eq(ETH_P_IP.into(), v4, NEXT);
        self.a.if_eq(ETH_P_IPV6.into(), v6, none);
        self.a.place(v4);
        self.v4_addresses(NET);
        if let Some(ports) = ports {
            self.a.load_x_ihl(NET);
            for (i, at) in [(0, NET), (1, NET + 2)] {
                self.a.load_half_x(at);
                self.a.op(code::ST, ports + i);
            }
        }
        self.a.goto(ready);
        self.a.place(v6);
        self.v6_addresses(NET);
        if let Some(ports) = ports {
            self.a.load_byte(NET + 6);
            self.a.if_eq(IPPROTO_UDP.into(), NEXT, none);
            for (i, at) in [(0, NET + V6_HEADER), (1, NET + V6_HEADER + 2)] {
                self.a.load_half(at);
                self.a.op(code::ST, ports + i);
            }
        }
        self.a.goto(ready);
        self.no_datagram = Some((none, NO_MEMBER));
        self.place(ready);
    }

    /// Stores the mapped addresses of the IPv4 header at an offset.
    fn v4_addresses(&mut self, at: u32) {
        for (slot, offset) in [(self.layout.src, 12), (self.layout.dst, 16)] {
            let Some(slot) = slot else { continue };
            for (i, word) in [0, 0, 0xffff].into_iter().zip(0..) {
                self.a.op(code::LD_IMM, i);
                self.a.op(code::ST, slot + word);
            }
            self.a.load_word(at + offset);
            self.a.op(code::ST, slot + 3);
        }
    }

    /// Stores the addresses of the IPv6 header at an offset.
    fn v6_addresses(&mut self, at: u32) {
        for (slot, offset) in [(self.layout.src, 8), (self.layout.dst, 24)] {
            let Some(slot) = slot else { continue };
            for word in 0..4 {
                self.a.load_word(at + offset + 4 * word);
                self.a.op(code::ST, slot + word);
            }
        }
    }
}
