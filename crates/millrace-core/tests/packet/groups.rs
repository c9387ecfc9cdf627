//! Fanout groups beside each other, and joining one.

use millrace_core::config::{EngineConfig, FanoutFlag, FanoutMode};

use crate::{
    rig::{self, Pair, RawSender},
    support::*,
};

fn to_port(pair: &Pair, port: u16, count: usize) {
    pair.in_a(|| {
        let raw = RawSender::new("va");
        (0..count).for_each(|i| raw.send(&Pair::v4(1000 + i as u16, port).bytes(&payload(i, 30))));
    });
}

#[test]
fn rings_beside_each_other_do_not_mix() {
    rig::require_root!();
    let pair = Pair::new(1);
    // The same interface, process and mode, other ports: only the group id keeps them apart.
    let mut first = open_packet(&pair, r#"{"port":9000}"#, 2);
    let mut second = open_packet(&pair, r#"{"port":9001}"#, 2);
    to_port(&pair, 9000, 50);
    to_port(&pair, 9001, 70);
    for (opened, count) in [(&mut first, 50), (&mut second, 70)] {
        assert_eq!(drain(opened, count).got.len(), count);
        assert_eq!(packets(opened), count as u64);
    }
}

/// With `defrag` the older group loses its fragments to a newer one that has it too; without it on either, or on the
/// newer one alone, each gets its own.
#[test]
fn groups_that_defragment_share_the_fragments() {
    rig::require_root!();
    let (defrag, bare) = (vec![FanoutFlag::Uniqueid, FanoutFlag::Defrag], vec![FanoutFlag::Uniqueid]);
    for (flags, arrive) in
        [([&defrag, &defrag], 0), ([&defrag, &bare], 5), ([&bare, &defrag], 5), ([&bare, &bare], 5)]
    {
        let pair = Pair::new(1);
        let open = |port: u16, flags: &Vec<FanoutFlag>| {
            let listen = format!(r#"{{"port":{port}}}"#);
            let config = EngineConfig { fanout_flags: flags.clone(), ..config(&listen, "vb", 1) };
            open_in_b(&pair, &config, open_rings).unwrap()
        };
        let (mut older, mut newer) = (open(9000, flags[0]), open(9001, flags[1]));
        for port in [9000, 9001] {
            for _ in 0..5 {
                pair.in_a(|| sender(false).send_to(&payload(1, 4000), to(false, port)).unwrap());
            }
        }
        assert_eq!(drain(&mut older, arrive).sizes(), vec![4000; arrive], "{flags:?}");
        assert_eq!(drain(&mut newer, 5).sizes(), [4000; 5], "{flags:?}");
    }
}

#[test]
fn a_foreign_group_with_our_id_is_an_error() {
    rig::require_root!();
    let pair = Pair::new(1);
    // Without uniqueid both take the id of process and interface. Modes differ, so the kernel refuses the second; and
    // hash, which would be the fall-back, is not the first one's mode either.
    let with = |port: u16, fanout| EngineConfig {
        fanout,
        fanout_flags: vec![FanoutFlag::Defrag],
        ..config(&format!(r#"{{"port":{port}}}"#), "vb", 1)
    };
    let mut first = open_in_b(&pair, &with(9000, FanoutMode::Lb), open_rings).unwrap();
    let error = open_in_b(&pair, &with(9001, FanoutMode::Cpu), open_rings).err().expect("clash");
    assert!(error.message.contains("another program use this group id"), "{error}");
    to_port(&pair, 9000, 20);
    assert_eq!(drain(&mut first, 20).got.len(), 20, "the first one is none the worse");
}

/// Since Linux 6.13; before, joining is refused with a message that asks whether the interface is up.
#[test]
fn a_link_that_is_down_can_be_opened() {
    rig::require_root!();
    let pair = Pair::new(1);
    let address = rig::V4.1;
    rig::run(&format!("ip -n {} link set vb down", pair.b));
    let opened = open_in_b(&pair, &config(ONE_PORT, "vb", 2), open_rings);
    pair.link_up();
    match opened {
        Ok(mut opened) => {
            to_port(&pair, 9000, 20);
            assert_eq!(drain(&mut opened, 20).got.len(), 20, "to {address}");
        }
        Err(e) => assert!(e.message.contains("is the interface up"), "{e}"),
    }
}
