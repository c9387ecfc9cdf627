//! The part of the selection program that compares the destination address with those that the ring accepts.

use std::net::IpAddr;

use crate::bpf::classic::{Assembler, Label, NET, NEXT, code};

/// Branches on whether the destination of the IP header is one of `addresses`, which are all of one family.
pub(super) fn match_destination(a: &mut Assembler, addresses: &[IpAddr], found: Label, not_found: Label) {
    let v4 = |address: &IpAddr| if let IpAddr::V4(v4) = address { Some(v4.to_bits()) } else { None };
    let v6 = |address: &IpAddr| if let IpAddr::V6(v6) = address { Some(v6.to_bits()) } else { None };
    if let Some(IpAddr::V4(_)) = addresses.first() {
        a.load_word(NET + 16);
        addresses.iter().filter_map(v4).for_each(|bits| a.if_eq(bits, found, NEXT));
    } else {
        for word in 0..4 {
            a.load_word(NET + 24 + 4 * word);
            a.op(code::ST, word);
        }
        let mut addresses: Vec<u128> = addresses.iter().filter_map(v6).collect();
        addresses.sort_unstable();
        match_words(a, &addresses, 0, found, not_found);
    }
    a.goto(not_found);
}

/// Branches on the words of an IPv6 address in scratch memory, from word number `at` on. The addresses are sorted and have
/// the same words up to there, so that addresses with one prefix share its comparisons. The code falls through where no
/// address has the word.
fn match_words(a: &mut Assembler, addresses: &[u128], at: u32, found: Label, not_found: Label) {
    let word = |address: u128| (address >> (96 - 32 * at)) as u32;
    a.op(code::LD_MEM, at);
    for same_word in addresses.chunk_by(|x, y| word(*x) == word(*y)) {
        if at == 3 {
            a.if_eq(word(same_word[0]), found, NEXT);
            continue;
        }
        // Register A still holds the word where the branch is not taken.
        let other_word = a.label();
        a.if_eq(word(same_word[0]), NEXT, other_word);
        match_words(a, same_word, at + 1, found, not_found);
        a.goto(not_found);
        a.place(other_word);
    }
}
