//! The XDP program (Documentation/networking/af_xdp.rst). It decides whether the receive loop can take a frame whole, and
//! whether the frame is for an address and port we listen on.
//!
//! A frame for which both hold is redirected to the AF_XDP socket of the rx queue it came by. Any other gets XDP_PASS: the
//! kernel's stack handles it as if the program were not there. The program accepts a subset of what
//! [`crate::packet::parse_ethernet`] and [`crate::config::ListenSet::accepts`] accept: fragments, IPv4 options and IPv6
//! extension headers pass, so that the kernel reassembles them and the guard socket delivers them.
//!
//! Lengths beyond the fixed headers are *not* checked here. A frame for our port with a wrong length field is redirected, and
//! the receive loop counts it as malformed; passed on, it would only show in a counter of the host.
//!
//! An IPv6 header with an IPv4-mapped address (`::ffff:a.b.c.d`) passes too. On the wire it is never legitimate
//! (draft-itojun-v6ops-v4mapped-harmful), and the kernel drops it (net/ipv6/ip6_input.c, `ip6_rcv_core`). Redirected, it
//! would read as an IPv4 address that sent nothing.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    ebpf::{Assembler, Cond, Label, Reg, Size},
    program::action,
};
use crate::{
    config::Listen,
    error::Result,
    protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPPROTO_UDP},
};

/// `bpf_redirect_map` in `enum bpf_func_id`.
const HELPER_REDIRECT_MAP: i32 = 51;
/// Offset of `data` in `struct xdp_md`.
const MD_DATA: i16 = 0;
/// Offset of `data_end`.
const MD_DATA_END: i16 = 4;
/// Offset of `rx_queue_index`.
const MD_RX_QUEUE_INDEX: i16 = 16;

/// More ports than this are searched by halves instead of one after the other. A lower number costs jumps for short lists, a
/// higher one compares for long lists.
const LINEAR_PORTS: usize = 4;

/// The register of the program's context (`struct xdp_md *`), which keeps it over the whole program.
const CTX: Reg = Reg::R6;
/// The register that points to the header in question.
const AT: Reg = Reg::R2;
/// The register that points to the first byte behind the frame.
const END: Reg = Reg::R3;
/// The register of the EtherType and later of the destination port, in host order.
const KEY: Reg = Reg::R5;
/// A register for what is needed at once.
const TMP: Reg = Reg::R4;

/// The destination addresses that one port accepts, of one address family.
#[derive(Default)]
struct Destinations {
    /// Every address is accepted.
    any: bool,
    /// Addresses in 32-bit words as a load from the frame yields them.
    exact: Vec<Vec<u32>>,
}

/// The ports of one address family, ascending.
type Ports = BTreeMap<u16, Destinations>;

/// The input from which the program is generated.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// Addresses and ports to listen on.
    pub listen: &'a [Listen],
    /// Descriptor of the XSKMAP, which is indexed by rx queue.
    pub map_fd: i32,
    /// Action for a frame to be redirected whose slot in the map is empty. It is [`action::PASS`] but for tests, which tell
    /// by another one what would be redirected, without sockets.
    pub empty_slot: u32,
    /// Length of the longest frame that the AF_XDP sockets can hold, in bytes from the Ethernet header on. Longer ones pass and
    /// the guard socket delivers them; redirected, the kernel would drop them.
    pub max_frame: u32,
}

/// Code that the program runs on a frame before it redirects it. The early drops of the rules are such code; they belong to a
/// room above this one, which knows them by this trait only.
pub trait BeforeRedirect {
    /// Appends the code, once for each address family.
    ///
    /// When it runs, `R6` is the program's context, and `network` points to an IPv4 header without options, or with `v6` to an
    /// IPv6 header, with UDP right behind it; the verifier knows that the 28 or 48 bytes of both headers are in the frame. The
    /// code must end with an exit or a jump to `redirect`, and may change all registers but `R6` and `R10`.
    fn append(&self, assembler: &mut Assembler, network: Reg, v6: bool, redirect: Label);
}

/// Generates the program.
///
/// # Errors
/// [`crate::error::Code::Unsupported`] when the list is so long that jumps do not reach (thousands of entries).
pub fn generate(spec: &Spec<'_>) -> Result<Vec<u64>> {
    generate_with(spec, None)
}

/// Generates the program with code that runs before the redirect.
///
/// # Errors
/// Those of [`generate`].
pub fn generate_with(spec: &Spec<'_>, before_redirect: Option<&dyn BeforeRedirect>) -> Result<Vec<u64>> {
    let Spec { listen, map_fd, empty_slot, max_frame } = *spec;
    let (v4, v6) = by_family(listen);
    let mut a = Assembler::new();
    let (pass, redirect, ipv4, ipv6) = (a.label(), a.label(), a.label(), a.label());

    a.mov(CTX, Reg::R1);
    a.load(Size::Word, AT, CTX, MD_DATA).load(Size::Word, END, CTX, MD_DATA_END);
    a.mov(TMP, AT).add_imm(TMP, max_frame as i32).jump_if_reg(END, Cond::Gt, TMP, pass);
    require(&mut a, 14, pass);
    a.load(Size::Half, KEY, AT, 12).be16(KEY).add_imm(AT, 14);
    let network = a.label();
    for _ in 0..2 {
        let tag = a.label();
        a.jump_if(KEY, Cond::Eq, ETH_P_8021Q.into(), tag);
        a.jump_if(KEY, Cond::Ne, ETH_P_8021AD.into(), network).place(tag);
        require(&mut a, 4, pass);
        a.load(Size::Half, KEY, AT, 2).be16(KEY).add_imm(AT, 4);
    }
    a.place(network);
    a.jump_if(KEY, Cond::Eq, ETH_P_IP.into(), ipv4).jump_if(KEY, Cond::Eq, ETH_P_IPV6.into(), ipv6);
    // The two exits stand in the middle, so that a long listen list on either side still reaches them.
    a.place(pass).mov_imm(Reg::R0, action::PASS as i32).exit();
    a.place(redirect).load_map(Reg::R1, map_fd).load(Size::Word, Reg::R2, CTX, MD_RX_QUEUE_INDEX);
    a.mov_imm(Reg::R3, empty_slot as i32).call(HELPER_REDIRECT_MAP).exit();

    a.place(ipv4);
    require(&mut a, 28, pass);
    // The first byte says version 4 and a header of five words, which is one without options.
    a.load(Size::Byte, TMP, AT, 0).jump_if(TMP, Cond::Ne, 0x45, pass);
    a.load(Size::Byte, TMP, AT, 9).jump_if(TMP, Cond::Ne, IPPROTO_UDP.into(), pass);
    // A fragment has the more-fragments flag or a fragment offset.
    a.load(Size::Half, TMP, AT, 6).be16(TMP).jump_if(TMP, Cond::Set, 0x3fff, pass);
    a.load(Size::Half, KEY, AT, 22).be16(KEY);
    let matched = if before_redirect.is_some() { a.label() } else { redirect };
    match_port(&mut a, &v4, 16, matched, pass);
    if let Some(before_redirect) = before_redirect {
        a.place(matched);
        before_redirect.append(&mut a, AT, false, redirect);
    }

    a.place(ipv6);
    require(&mut a, 48, pass);
    a.load(Size::Byte, TMP, AT, 0);
    let version6 = a.label();
    // The first byte is 0x60..=0x6f for version 6: the low half belongs to the traffic class.
    a.jump_if(TMP, Cond::Gt, 0x6f, pass).jump_if(TMP, Cond::Ge, 0x60, version6).jump(pass).place(version6);
    a.load(Size::Byte, TMP, AT, 6).jump_if(TMP, Cond::Ne, IPPROTO_UDP.into(), pass);
    for address in [8, 24] {
        let native = a.label();
        a.load(Size::Double, TMP, AT, address).jump_if_not_zero(TMP, native);
        let mapped = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
        a.load(Size::Word, TMP, AT, address + 8).jump_if(TMP, Cond::Eq, mapped, pass).place(native);
    }
    a.load(Size::Half, KEY, AT, 42).be16(KEY);
    let matched = if before_redirect.is_some() { a.label() } else { redirect };
    match_port(&mut a, &v6, 24, matched, pass);
    if let Some(before_redirect) = before_redirect {
        a.place(matched);
        before_redirect.append(&mut a, AT, true, redirect);
    }
    a.finish()
}

/// Passes frames with fewer than `bytes` from [`AT`] on. The verifier requires this before every load.
fn require(a: &mut Assembler, bytes: i32, pass: Label) {
    a.mov(TMP, AT).add_imm(TMP, bytes).jump_if_reg(TMP, Cond::Gt, END, pass);
}

/// Sorts the listen list by address family and port.
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

/// Jumps to `matched` or `pass` by the port in [`KEY`] and the destination address at [`AT`]` + address`.
fn match_port(a: &mut Assembler, ports: &Ports, address: i16, matched: Label, pass: Label) {
    let ports: Vec<(u16, &Destinations)> = ports.iter().map(|(n, p)| (*n, p)).collect();
    search(a, &ports, address, matched, pass);
}

/// Searches `ports`, which are ascending; see [`match_port`].
fn search(a: &mut Assembler, ports: &[(u16, &Destinations)], address: i16, matched: Label, pass: Label) {
    if ports.len() > LINEAR_PORTS {
        let (low, high) = ports.split_at(ports.len() / 2);
        let right = a.label();
        a.jump_if(KEY, Cond::Ge, high[0].0.into(), right);
        search(a, low, address, matched, pass);
        a.place(right);
        return search(a, high, address, matched, pass);
    }
    for (number, destinations) in ports {
        if destinations.any {
            a.jump_if(KEY, Cond::Eq, (*number).into(), matched);
            continue;
        }
        let next_port = a.label();
        a.jump_if(KEY, Cond::Ne, (*number).into(), next_port);
        for words in &destinations.exact {
            let next_address = a.label();
            for (i, word) in words.iter().enumerate() {
                a.load(Size::Word, TMP, AT, address + 4 * i as i16).jump_if(
                    TMP,
                    Cond::Ne,
                    *word,
                    next_address,
                );
            }
            a.jump(matched).place(next_address);
        }
        a.jump(pass).place(next_port);
    }
    a.jump(pass);
}
