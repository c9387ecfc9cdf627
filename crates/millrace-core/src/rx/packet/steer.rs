//! The programs of fanout `cbpf` and `ebpf`: member = address hash modulo the number of members.
//!
//! All 32-bit words of both addresses xor-ed, times 0x9E37_79B1, upper 16 bits. Unlike the kernel's hash it has no
//! random key and no ports in it: one pair of hosts stays at one member, on every node and after every restart, with
//! its fragments. Frames that are neither IPv4 nor IPv6 (their ports are none of ours anyway) go to member 0.

use libc::sock_filter;

use crate::{
    bpf::{
        asm::{self, Cond, Reg, Size},
        sys::Program,
    },
    error::Result,
    packet::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6},
    rx::cbpf::{AD_PROTOCOL, Assembler, NET, NEXT},
};

/// 2³² divided by the golden ratio, odd.
const MIX: u32 = 0x9e37_79b1;
/// Bits dropped after mixing.
const SHIFT: u8 = 16;
/// Bytes of a VLAN tag still in the frame: the kernel moves only the outer one into metadata.
const VLAN_TAG: u32 = 4;

/// The classic program. Loads count from the network header, so both directions read the same.
pub(super) fn classic() -> Vec<sock_filter> {
    let mut a = Assembler::default();
    let [v4, v6, tagged, tagged_v4, tagged_v6, mix, other] = std::array::from_fn(|_| a.label());
    a.load_word(AD_PROTOCOL);
    a.if_eq(ETH_P_IP.into(), v4, NEXT);
    a.if_eq(ETH_P_IPV6.into(), v6, NEXT);
    a.if_eq(ETH_P_8021Q.into(), tagged, NEXT);
    a.if_eq(ETH_P_8021AD.into(), tagged, other);
    a.place(tagged);
    a.load_half(NET + 2);
    a.if_eq(ETH_P_IP.into(), tagged_v4, NEXT);
    a.if_eq(ETH_P_IPV6.into(), tagged_v6, other);
    for (label, base, first, words) in [
        (v4, NET, 12, 2),
        (v6, NET, 8, 8),
        (tagged_v4, NET + VLAN_TAG, 12, 2),
        (tagged_v6, NET + VLAN_TAG, 8, 8),
    ] {
        a.place(label);
        a.load_word(base + first);
        for word in 1..words {
            a.tax();
            a.load_word(base + first + 4 * word);
            a.xor_x();
        }
        a.goto(mix);
    }
    a.place(mix);
    a.mul(MIX);
    a.shift_right(SHIFT.into());
    a.ret_a();
    a.place(other);
    a.ret(0);
    a.finish().expect("a short program with near, forward branches")
}

/// `bpf_skb_load_bytes_relative` in `enum bpf_func_id`, and its "from the network header".
const HELPER_LOAD_RELATIVE: i32 = 68;
const HDR_START_NET: i32 = 1;
/// Offset of `protocol` in `struct __sk_buff`; network order.
const SKB_PROTOCOL: i16 = 16;

/// The eBPF program, loaded.
///
/// # Errors
/// [`crate::error::Code::Permission`] without CAP_BPF, [`crate::error::Code::Unsupported`].
pub(super) fn extended() -> Result<Program> {
    Program::load_socket_filter("millrace_fan", &instructions()?)
}

fn instructions() -> Result<Vec<u64>> {
    let mut a = asm::Assembler::new();
    let (ctx, hash, key) = (Reg::R6, Reg::R7, Reg::R8);
    let [v4, v6, tagged, tagged_v4, tagged_v6, mix, other] = std::array::from_fn(|_| a.label());
    a.mov(ctx, Reg::R1).load(Size::Word, key, ctx, SKB_PROTOCOL).be16(key);
    a.jump_if(key, Cond::Eq, ETH_P_IP.into(), v4).jump_if(key, Cond::Eq, ETH_P_IPV6.into(), v6);
    a.jump_if(key, Cond::Eq, ETH_P_8021Q.into(), tagged);
    a.jump_if(key, Cond::Ne, ETH_P_8021AD.into(), other).place(tagged);
    fetch(&mut a, 0, 4, other);
    a.load(Size::Half, key, Reg::R10, -4 + 2).be16(key);
    a.jump_if(key, Cond::Eq, ETH_P_IP.into(), tagged_v4).jump_if(key, Cond::Eq, ETH_P_IPV6.into(), tagged_v6);
    // In the middle, so that the verifier sees every path end.
    a.place(other).mov_imm(Reg::R0, 0).exit();
    let tag = VLAN_TAG as i32;
    for (label, at, words) in [(v4, 12, 2), (v6, 8, 8), (tagged_v4, tag + 12, 2), (tagged_v6, tag + 8, 8)] {
        a.place(label);
        fetch(&mut a, at, 4 * words, other);
        a.mov_imm(hash, 0);
        for word in 0..words {
            a.load(Size::Word, Reg::R1, Reg::R10, (4 * (word - words)) as i16).xor(hash, Reg::R1);
        }
        a.jump(mix);
    }
    // Xor does not care about byte order, so one swap at the end will do.
    a.place(mix).be32(hash).mul32(hash, MIX).shift_right32(hash, SHIFT).mov(Reg::R0, hash).exit();
    a.finish()
}

/// `bytes` of the packet from `at` behind the network header on → the top of the stack; to `other` when it is shorter.
fn fetch(a: &mut asm::Assembler, at: i32, bytes: i32, other: asm::Label) {
    a.mov(Reg::R1, Reg::R6).mov_imm(Reg::R2, at).mov(Reg::R3, Reg::R10).add_imm(Reg::R3, -bytes);
    a.mov_imm(Reg::R4, bytes).mov_imm(Reg::R5, HDR_START_NET).call(HELPER_LOAD_RELATIVE);
    a.jump_if_not_zero(Reg::R0, other);
}
