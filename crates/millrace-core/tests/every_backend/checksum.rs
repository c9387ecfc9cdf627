//! Verified checksums: wrong ones are dropped and counted, and no right one is taken for wrong because it is not ready.

use millrace_core::{
    config::{EngineConfig, Tpacket, XdpMode},
    packet::FrameDrop,
    packet::build::Frame,
    rx::{Opened, Receiver, xdp},
};

use crate::{
    rig::{self, Pair, RawSender},
    support::*,
};

fn verified() -> EngineConfig {
    EngineConfig { verify_checksum: true, xdp_frames: 4096, ..config(ONE_PORT, "vb", 1) }
}

/// Right, absent and unready ones arrive; wrong ones do not.
fn wrong_ones_are_dropped<R: Receiver>(pair: &Pair, opened: &mut Opened<R>) {
    pair.in_a(|| {
        let raw = RawSender::new("va");
        for frame in [Pair::v4(5, 9000), Pair::v6(5, 9000)] {
            raw.send(&frame.bytes(b"right"));
            let mut wrong = frame.bytes(b"wrong");
            *wrong.last_mut().unwrap() ^= 1;
            raw.send(&wrong);
            raw.send(&Frame { checksum: false, ..frame }.bytes(b"none"));
        }
        // These leave their checksum to the "hardware" of veth.
        for v6 in [false, true] {
            for size in [0, 1, 1400] {
                sender(v6).send_to(&payload(size, size), to(v6, 9000)).unwrap();
            }
        }
    });
    let collector = drain(opened, 9);
    let mut sizes = collector.sizes();
    sizes.sort_unstable();
    // "none" for IPv4 only.
    assert_eq!(sizes, [0, 0, 1, 1, 4, 5, 5, 1400, 1400]);
    assert_eq!(collector.dropped(FrameDrop::BadChecksum), 3, "two wrong ones, and none at all for IPv6");
    assert!(collector.got.iter().all(|g| g.payload != b"wrong"));
}

#[test]
fn rings_verify() {
    rig::require_root!();
    for tpacket in [Tpacket::V3, Tpacket::V2] {
        let pair = Pair::new(1);
        let config = EngineConfig { tpacket, ..verified() };
        let mut opened = open_in_b(&pair, &config, open_rings).unwrap();
        wrong_ones_are_dropped(&pair, &mut opened);
        for v6 in [false, true] {
            segmented(&pair, &mut opened, v6);
            fragmented(&pair, &mut opened, v6);
        }
        // The sender's kernel computes the checksums: now they are ready, and verified.
        rig::run(&format!("ip netns exec {} ethtool -K va tx off", pair.a));
        wrong_ones_are_dropped(&pair, &mut opened);
        segmented(&pair, &mut opened, false);
    }
}

#[test]
fn xdp_verifies() {
    rig::require_root!();
    for xdp_mode in [XdpMode::Native, XdpMode::Generic] {
        let pair = Pair::new(1);
        let config = EngineConfig { xdp_mode, ..verified() };
        let mut opened =
            pair.in_b(|| xdp::open(&config, &millrace_core::rx::RulePrograms::default())).unwrap();
        wrong_ones_are_dropped(&pair, &mut opened);
        rig::run(&format!("ip netns exec {} ethtool -K va tx off", pair.a));
        wrong_ones_are_dropped(&pair, &mut opened);
    }
}
