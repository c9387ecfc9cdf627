//! The XDP program: "is this frame one the receive loop can take whole, for an address and port we listen on?"
//!
//! Yes: redirect to the AF_XDP socket of the rx queue it came by. No: XDP_PASS, the kernel's stack handles it as if we
//! were not there. The program accepts a subset of what [`crate::packet::parse_ethernet`] and
//! [`crate::config::ListenSet::accepts`] accept: fragments, IPv4 options and IPv6 extension headers pass, so that the
//! kernel reassembles them and the guard socket delivers them.
//!
//! Lengths beyond the fixed headers are *not* checked here: a frame for our port whose length fields lie is taken and
//! counted as malformed by the receive loop, instead of vanishing in a counter of the host.
//!
//! An IPv6 header with an IPv4-mapped address (`::ffff:a.b.c.d`) passes too: on the wire it is never legitimate
//! (draft-itojun-v6ops-v4mapped-harmful), the kernel drops it (`ip6_rcv_core`), and taken by us it would read as an
//! IPv4 address that nobody sent from.

use std::{collections::BTreeMap, net::IpAddr};

use super::ebpf::{Assembler, Cond, Label, Reg, Size};
use crate::{
    config::Listen,
    error::Result,
    protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPPROTO_UDP},
};

/// `bpf_redirect_map` in `enum bpf_func_id`.
const HELPER_REDIRECT_MAP: i32 = 51;
/// Offsets in `struct xdp_md`.
const MD_DATA: i16 = 0;
const MD_DATA_END: i16 = 4;
const MD_RX_QUEUE_INDEX: i16 = 16;

/// More compares than this in a row become a binary search.
const LINEAR_PORTS: usize = 4;

/// The program's context, kept over the whole program.
const CTX: Reg = Reg::R6;
/// Cursor: the header being looked at.
const AT: Reg = Reg::R2;
/// First byte behind the frame.
const END: Reg = Reg::R3;
/// EtherType, then destination port.
const KEY: Reg = Reg::R5;
const TMP: Reg = Reg::R4;

/// What one port accepts, in one address family.
#[derive(Default)]
struct Port {
    any: bool,
    exact: Vec<Vec<u32>>,
}

/// Ports of one family in order; addresses are 32-bit words as a load from the frame yields them.
type Ports = BTreeMap<u16, Port>;

/// What a program is made from.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// Addresses and ports.
    pub listen: &'a [Listen],
    /// The XSKMAP, indexed by rx queue.
    pub map_fd: i32,
    /// Action for a frame of ours whose slot is empty: [`super::syscall::action::PASS`] in earnest; tests use another one
    /// to tell "ours" from "not ours" without sockets.
    pub empty_slot: u32,
    /// Longest frame, in bytes from the Ethernet header on, that the AF_XDP sockets can hold. Longer ones pass: the
    /// guard socket delivers them, where a redirect would have the kernel drop them.
    pub max_frame: u32,
}

/// Code for frames of ours, run before they are redirected. The rules' before_redirect drops are such code; this room, which lies
/// below theirs, only makes room for it.
pub trait BeforeRedirect {
    /// Appends the code. `R6` is the program's context, and `network` points to an IPv4 header without options, or with
    /// `v6` to an IPv6 header, with UDP right behind it; the 28 or 48 bytes of both headers are known to be in the frame. The
    /// code ends with an exit of its own or with a jump to `redirect`, and may change all registers but `R6` and `R10`.
    fn append(&self, assembler: &mut Assembler, network: Reg, v6: bool, redirect: Label);
}

/// Assembles the program.
///
/// # Errors
/// [`crate::error::Code::Unsupported`] when the list is so long that jumps do not reach (thousands of entries).
pub fn generate(spec: &Spec<'_>) -> Result<Vec<u64>> {
    generate_with(spec, None)
}

/// As [`generate`], with code that runs before the redirect.
///
/// # Errors
/// As [`generate`].
pub fn generate_with(spec: &Spec<'_>, before_redirect: Option<&dyn BeforeRedirect>) -> Result<Vec<u64>> {
    let Spec { listen, map_fd, empty_slot, max_frame } = *spec;
    let (v4, v6) = by_family(listen);
    let mut a = Assembler::new();
    let (pass, ours, ipv4, ipv6) = (a.label(), a.label(), a.label(), a.label());

    a.mov(CTX, Reg::R1);
    a.load(Size::Word, AT, CTX, MD_DATA).load(Size::Word, END, CTX, MD_DATA_END);
    a.mov(TMP, AT).add_imm(TMP, max_frame as i32).jump_if_reg(END, Cond::Gt, TMP, pass);
    need(&mut a, 14, pass);
    a.load(Size::Half, KEY, AT, 12).be16(KEY).add_imm(AT, 14);
    let network = a.label();
    for _ in 0..2 {
        let tag = a.label();
        a.jump_if(KEY, Cond::Eq, ETH_P_8021Q.into(), tag);
        a.jump_if(KEY, Cond::Ne, ETH_P_8021AD.into(), network).place(tag);
        need(&mut a, 4, pass);
        a.load(Size::Half, KEY, AT, 2).be16(KEY).add_imm(AT, 4);
    }
    a.place(network);
    a.jump_if(KEY, Cond::Eq, ETH_P_IP.into(), ipv4).jump_if(KEY, Cond::Eq, ETH_P_IPV6.into(), ipv6);
    // The two exits stand in the middle, so that a long listen list on either side still reaches them.
    a.place(pass).mov_imm(Reg::R0, super::syscall::action::PASS as i32).exit();
    a.place(ours).load_map(Reg::R1, map_fd).load(Size::Word, Reg::R2, CTX, MD_RX_QUEUE_INDEX);
    a.mov_imm(Reg::R3, empty_slot as i32).call(HELPER_REDIRECT_MAP).exit();

    a.place(ipv4);
    need(&mut a, 28, pass);
    // Version 4 and a header of five words: no options.
    a.load(Size::Byte, TMP, AT, 0).jump_if(TMP, Cond::Ne, 0x45, pass);
    a.load(Size::Byte, TMP, AT, 9).jump_if(TMP, Cond::Ne, IPPROTO_UDP.into(), pass);
    // More-fragments flag or a fragment offset.
    a.load(Size::Half, TMP, AT, 6).be16(TMP).jump_if(TMP, Cond::Set, 0x3fff, pass);
    a.load(Size::Half, KEY, AT, 22).be16(KEY);
    let matched = if before_redirect.is_some() { a.label() } else { ours };
    match_port(&mut a, &v4, 16, matched, pass);
    if let Some(before_redirect) = before_redirect {
        a.place(matched);
        before_redirect.append(&mut a, AT, false, ours);
    }

    a.place(ipv6);
    need(&mut a, 48, pass);
    a.load(Size::Byte, TMP, AT, 0);
    let version6 = a.label();
    // 0x60..=0x6f: the low half belongs to the traffic class.
    a.jump_if(TMP, Cond::Gt, 0x6f, pass).jump_if(TMP, Cond::Ge, 0x60, version6).jump(pass).place(version6);
    a.load(Size::Byte, TMP, AT, 6).jump_if(TMP, Cond::Ne, IPPROTO_UDP.into(), pass);
    for address in [8, 24] {
        let native = a.label();
        a.load(Size::Double, TMP, AT, address).jump_if_not_zero(TMP, native);
        let mapped = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
        a.load(Size::Word, TMP, AT, address + 8).jump_if(TMP, Cond::Eq, mapped, pass).place(native);
    }
    a.load(Size::Half, KEY, AT, 42).be16(KEY);
    let matched = if before_redirect.is_some() { a.label() } else { ours };
    match_port(&mut a, &v6, 24, matched, pass);
    if let Some(before_redirect) = before_redirect {
        a.place(matched);
        before_redirect.append(&mut a, AT, true, ours);
    }
    a.finish()
}

/// Passes frames with fewer than `bytes` from the cursor on; the verifier wants to see this before every load.
fn need(a: &mut Assembler, bytes: i32, pass: Label) {
    a.mov(TMP, AT).add_imm(TMP, bytes).jump_if_reg(TMP, Cond::Gt, END, pass);
}

fn by_family(listen: &[Listen]) -> (Ports, Ports) {
    let (mut v4, mut v6) = (Ports::new(), Ports::new());
    let words = |octets: &[u8]| -> Vec<u32> {
        octets.chunks_exact(4).map(|c| u32::from_ne_bytes([c[0], c[1], c[2], c[3]])).collect()
    };
    for l in listen {
        match l.address {
            None => {
                v4.entry(l.port).or_default().any = true;
                v6.entry(l.port).or_default().any = true;
            }
            Some(IpAddr::V6(ip)) if ip.is_unspecified() => {
                v4.entry(l.port).or_default().any = true;
                v6.entry(l.port).or_default().any = true;
            }
            Some(IpAddr::V4(ip)) if ip.is_unspecified() => v4.entry(l.port).or_default().any = true,
            Some(IpAddr::V4(ip)) => v4.entry(l.port).or_default().exact.push(words(&ip.octets())),
            // `::ffff:a.b.c.d` in the configuration means the IPv4 address, as it does to ListenSet.
            Some(IpAddr::V6(ip)) => match ip.to_ipv4_mapped() {
                Some(ip) => v4.entry(l.port).or_default().exact.push(words(&ip.octets())),
                None => v6.entry(l.port).or_default().exact.push(words(&ip.octets())),
            },
        }
    }
    (v4, v6)
}

/// Jumps to `ours` or `pass` by the port in `KEY` and the destination address at `AT + address`.
fn match_port(a: &mut Assembler, ports: &Ports, address: i16, ours: Label, pass: Label) {
    let ports: Vec<(u16, &Port)> = ports.iter().map(|(n, p)| (*n, p)).collect();
    search(a, &ports, address, ours, pass);
}

fn search(a: &mut Assembler, ports: &[(u16, &Port)], address: i16, ours: Label, pass: Label) {
    if ports.len() > LINEAR_PORTS {
        let (low, high) = ports.split_at(ports.len() / 2);
        let right = a.label();
        a.jump_if(KEY, Cond::Ge, high[0].0.into(), right);
        search(a, low, address, ours, pass);
        a.place(right);
        return search(a, high, address, ours, pass);
    }
    for (number, port) in ports {
        if port.any {
            a.jump_if(KEY, Cond::Eq, (*number).into(), ours);
            continue;
        }
        let next_port = a.label();
        a.jump_if(KEY, Cond::Ne, (*number).into(), next_port);
        for words in &port.exact {
            let next_address = a.label();
            for (i, word) in words.iter().enumerate() {
                a.load(Size::Word, TMP, AT, address + 4 * i as i16).jump_if(
                    TMP,
                    Cond::Ne,
                    *word,
                    next_address,
                );
            }
            a.jump(ours).place(next_address);
        }
        a.jump(pass).place(next_port);
    }
    a.jump(pass);
}
