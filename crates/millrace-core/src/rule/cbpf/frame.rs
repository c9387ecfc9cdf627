//! The beginning of every program: finds the UDP header, and puts what the rules look at into scratch memory.

use super::super::target::Uses;
use super::{CbpfTarget, Compiler, code};
use crate::bpf::classic::{AD_PROTOCOL, Label, NET, NEXT};
use crate::protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPPROTO_UDP};

/// More-fragments flag and fragment offset of IPv4.
const FRAGMENT: u32 = 0x3fff;
/// Bytes of a VLAN tag that is still in the packet.
const TAG: u32 = 4;
const V6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;

/// Where things are: scratch words, by number.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) target: CbpfTarget,
    /// Of the UDP header, from offset 0 ([`CbpfTarget::Fanout`]).
    pub(super) base: u32,
    /// Of the payload ([`CbpfTarget::Fanout`]).
    length: u32,
    /// The first of four words.
    pub(super) src: Option<u32>,
    pub(super) dst: Option<u32>,
    /// Source port, then destination port ([`CbpfTarget::Reuseport`]).
    ports: Option<u32>,
}

impl Layout {
    /// The layout, and how many words it takes.
    pub(super) fn new(target: CbpfTarget, uses: Uses) -> (Self, u32) {
        let fanout = target == CbpfTarget::Fanout;
        let mut used = if fanout { 2 } else { 0 };
        let mut take = |wanted: bool, words: u32| {
            let at = used;
            used += if wanted { words } else { 0 };
            wanted.then_some(at)
        };
        let (src, dst) = (take(uses.src, 4), take(uses.dst, 4));
        let ports = take(uses.ports && !fanout, 2);
        (Layout { target, base: 0, length: 1, src, dst, ports }, used)
    }

    pub(super) fn fanout(&self) -> bool {
        self.target == CbpfTarget::Fanout
    }
}

impl Compiler<'_> {
    /// The end of every program: what it returns for packets that have no answer. Here and not where the headers are
    /// looked at, because the kernel's check of scratch memory takes what stands behind a return to be reached through it,
    /// with as little stored as there.
    pub(super) fn end(&mut self) {
        if let Some((label, result)) = self.none {
            self.place(label);
            self.a.ret(result);
        }
    }

    pub(super) fn frame(&mut self) {
        match self.layout.target {
            CbpfTarget::Fanout => self.fanout_frame(),
            CbpfTarget::Reuseport { .. } => self.reuseport_frame(),
        }
    }

    fn fanout_frame(&mut self) {
        let [v4, v6, tag, v4_tagged, v6_tagged, none, ready] = std::array::from_fn(|_| self.a.label());
        self.a.load_word(AD_PROTOCOL);
        self.a.if_eq(ETH_P_IP.into(), v4, NEXT);
        self.a.if_eq(ETH_P_IPV6.into(), v6, NEXT);
        self.a.if_eq(ETH_P_8021Q.into(), tag, NEXT);
        self.a.if_eq(ETH_P_8021AD.into(), tag, none);
        // The kernel moves the outer tag to metadata; an inner one stands before the network header.
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
            self.a.op(code::ST, self.layout.base);
            self.tax();
            self.a.op(code::LD_H_IND, 4);
            self.a.goto(ready);

            self.a.place(v6);
            self.a.load_byte(at + 6);
            self.a.if_eq(IPPROTO_UDP.into(), NEXT, none);
            self.v6_addresses(at);
            self.a.op(code::LD_IMM, at + V6_HEADER);
            self.a.op(code::ST, self.layout.base);
            self.a.load_half(at + V6_HEADER + 4);
            // RFC 2675 §4: a length of zero means "to the end of the packet".
            let jumbo = self.a.label();
            self.a.if_eq(0, jumbo, ready);
            self.a.place(jumbo);
            self.a.load_half(at + 4);
            self.a.goto(ready);
        }
        self.none = Some((none, 0));
        self.place(ready);
        self.a.op(code::SUB, UDP_HEADER);
        self.a.op(code::ST, self.layout.length);
    }

    fn reuseport_frame(&mut self) {
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
        self.none = Some((none, u32::MAX));
        self.place(ready);
    }

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

    fn v6_addresses(&mut self, at: u32) {
        for (slot, offset) in [(self.layout.src, 8), (self.layout.dst, 24)] {
            let Some(slot) = slot else { continue };
            for word in 0..4 {
                self.a.load_word(at + offset + 4 * word);
                self.a.op(code::ST, slot + word);
            }
        }
    }

    /// A ← payload length.
    pub(super) fn length(&mut self) {
        match self.layout.target {
            CbpfTarget::Fanout => self.a.op(code::LD_MEM, self.layout.length),
            CbpfTarget::Reuseport { .. } => self.a.op(code::LD_LEN, 0),
        }
    }

    /// A ← a port: 0 the source's, 1 the destination's.
    pub(super) fn port(&mut self, which: u32) {
        match self.layout.ports {
            Some(ports) => self.a.op(code::LD_MEM, ports + which),
            None => {
                self.based();
                self.a.op(code::LD_H_IND, 2 * which);
            }
        }
    }

    /// A ← one, two or four bytes of the payload.
    pub(super) fn payload(&mut self, at: u32, width: usize) {
        // Absolute, or counted from X.
        let (mode, at) = if self.layout.fanout() {
            self.based();
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

    /// X ← where the UDP header begins.
    fn based(&mut self) {
        if !self.based {
            self.a.op(code::LDX_MEM, self.layout.base);
            self.based = true;
        }
    }

    /// Continues at `fail` when the payload has fewer than `at + width` bytes. Changes A.
    pub(super) fn need(&mut self, at: u16, width: usize, fail: super::At) {
        let end = u32::from(at) + width as u32;
        if self.known >= end {
            return;
        }
        let short: Label = self.way(fail);
        self.length();
        self.a.branch(code::JGE, end, NEXT, short);
        self.known = end;
    }
}
