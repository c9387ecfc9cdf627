//! The rig itself: what is sent raw in one namespace arrives at a UDP socket in the other.

use std::net::UdpSocket;

use crate::rig::{self, Pair, RawSender, TIMEOUT, V4, V6};

#[test]
fn a_raw_frame_reaches_a_udp_socket() {
    rig::require_root!();
    let pair = Pair::new(2);
    for (address, frame) in [(V4.1, Pair::v4(1000, 9000)), (V6.1, Pair::v6(1000, 9000))] {
        let socket = pair.in_b(|| UdpSocket::bind((address, 9000)).unwrap());
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        pair.in_a(|| RawSender::new("va").send(&frame.bytes(b"ping")));
        let mut buffer = [0; 16];
        let (n, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], from.port()), (&b"ping"[..], 1000));
    }
}

#[test]
fn commands_report_how_they_ended() {
    rig::require_root!();
    let trimmed = |(succeeded, output): (bool, String)| (succeeded, output.trim_end().to_owned());
    assert_eq!(
        trimmed(rig::shell::try_run(&["printf", "%s", "it's; exit 3"])),
        (true, "it's; exit 3".into())
    );
    assert_eq!(
        trimmed(rig::shell::try_run(&["sh", "-c", "echo out; echo err >&2; false"])),
        (false, "out\nerr".into())
    );
}
