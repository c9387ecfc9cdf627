//! Fragments, where the fanout group does not put them together.

use std::{thread, time::Duration};

use millrace_core::datagram::flags;

use crate::{
    rig::{self, Pair, RawSender, V4},
    setup::{numbers, open, without_defrag},
    support::*,
};

#[test]
fn ipv4_fragments_come_by_the_guard_when_the_group_does_not_defragment() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open(&pair, &without_defrag(9000, 2));
    let v4 = fragmented(&pair, &mut opened, false);
    assert_ne!(v4.flags & flags::SLOW_PATH, 0);
    assert_eq!((v4.dst.to_ip().to_string().as_str(), v4.dst_port), (V4.1, 9000));
    // Whole ones and fragmented ones of every size, up to the largest, in one row; the ring has the whole ones.
    let sizes = [0, 1, 9, 1400, 1472, 1473, 1480, 3000, 65_507];
    pair.in_a(|| {
        for (i, size) in sizes.into_iter().enumerate() {
            assert_eq!(sender(false).send_to(&payload(i, size), to(false, 9000)).unwrap(), size);
        }
    });
    let collector = drain(&mut opened, sizes.len());
    let mut got: Vec<_> =
        collector.got.iter().map(|g| (g.payload.len(), g.flags & flags::SLOW_PATH != 0)).collect();
    got.sort_unstable();
    assert_eq!(got, sizes.map(|s| (s, s > 1472)));
    for g in &collector.got {
        let i = sizes.iter().position(|s| *s == g.payload.len()).unwrap();
        assert_eq!(g.payload, payload(i, g.payload.len()));
    }
    // The smallest there can be: eight bytes, which are the UDP header, and one more; "don't fragment" set on both.
    pair.in_a(|| {
        let whole = Pair::v4(7, 9000).bytes(b"!");
        for (from, upto, field) in [(0, 8, 0x6000u16), (8, 9, 0x4001)] {
            let mut part = whole[..34].to_vec();
            part.extend(&whole[34 + from..34 + upto]);
            part[16..18].copy_from_slice(&(20 + (upto - from) as u16).to_be_bytes());
            part[20..22].copy_from_slice(&field.to_be_bytes());
            part[24..26].fill(0);
            let sum = (14..34)
                .step_by(2)
                .map(|i| u32::from(u16::from_be_bytes([part[i], part[i + 1]])))
                .sum::<u32>();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            part[24..26].copy_from_slice(&sum.to_be_bytes());
            RawSender::new("va").send(&part);
        }
    });
    let collector = drain(&mut opened, 1);
    assert_eq!(collector.got.iter().map(|g| g.payload.as_slice()).collect::<Vec<_>>(), [b"!"]);
    assert_eq!(lost(&mut opened), 0);
}

#[test]
fn super_packets_come_once_when_the_group_does_not_defragment() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open(&pair, &without_defrag(9000, 1));
    for v6 in [false, true] {
        let collector = segmented(&pair, &mut opened, v6);
        assert!(collector.got.iter().all(|g| g.flags & flags::SLOW_PATH == 0));
    }
}

/// Fragments of one datagram for one port, read by two rings in one namespace: each has its own, whichever socket reassembles.
#[test]
fn rings_beside_each_other_get_their_fragments() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut older = open(&pair, &without_defrag(9000, 2));
    let mut newer = open(&pair, &without_defrag(9001, 2));
    pair.in_a(|| {
        for i in 0..40 {
            let port = 9000 + (i % 2) as u16;
            sender(false).send_to(&payload(i, 4000), to(false, port)).unwrap();
            // No more under way than the kernel's reassembly holds.
            thread::sleep(Duration::from_millis(1));
        }
    });
    for (opened, first) in [(&mut older, 0), (&mut newer, 1)] {
        let collector = drain(opened, 20);
        assert_eq!(numbers(&collector), (first..40).step_by(2).collect::<Vec<_>>());
        assert_eq!(lost(opened), 0);
    }
}
