//! A classic BPF machine.

/// A packet in the kernel, as far as BPF programs see it.
#[derive(Debug, Clone)]
pub struct Packet {
    pub bytes: Vec<u8>,
    /// Offset 0 and the end.
    pub data: std::ops::Range<usize>,
    /// Of the network header.
    pub network: usize,
    pub protocol: u16,
}

const NET_OFF: i64 = -0x10_0000;
const AD_PROTOCOL: i64 = -0x1000;

impl Packet {
    fn load(&self, at: i64, width: usize) -> Option<u32> {
        if at == AD_PROTOCOL {
            return Some(self.protocol.into());
        }
        let (start, end) = match at {
            0.. => (self.data.start as i64 + at, self.data.end),
            NET_OFF..AD_PROTOCOL => (self.network as i64 + at - NET_OFF, self.bytes.len()),
            _ => panic!("load at {at}"),
        };
        let start = usize::try_from(start).ok()?;
        let bytes = self.bytes.get(start..start + width).filter(|_| start + width <= end)?;
        Some(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
    }
}

/// Runs classic BPF as Documentation/networking/filter.rst says.
pub fn run_cbpf(program: &[libc::sock_filter], packet: &Packet) -> u32 {
    let (mut a, mut x, mut m) = (0u32, 0u32, [None::<u32>; 16]);
    let mut pc = 0;
    loop {
        let i = program[pc];
        pc += 1;
        let k = i.k;
        let operand = if i.code & 8 != 0 { x } else { k };
        let width = |code: u16| match code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            _ => 1,
        };
        let signed = i64::from(k as i32);
        match i.code {
            0x00 => a = k,
            0x60 => a = m[k as usize].expect("load of a word never stored"),
            0x61 => x = m[k as usize].expect("load of a word never stored"),
            0x80 => a = packet.data.len() as u32,
            // A random word.
            0x20 if k == (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32 => a = 4,
            0x20 | 0x28 | 0x30 => match packet.load(signed, width(i.code)) {
                Some(v) => a = v,
                None => return 0,
            },
            0x40 | 0x48 | 0x50 => match packet.load(i64::from(x) + signed, width(i.code)) {
                Some(v) => a = v,
                None => return 0,
            },
            0xb1 => match packet.load(signed, 1) {
                Some(v) => x = 4 * (v & 15),
                None => return 0,
            },
            0x02 => m[k as usize] = Some(a),
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return k,
            0x16 => return a,
            0x05 => pc += k as usize,
            code if code & 7 == 4 => {
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(operand),
                    0x10 => a.wrapping_sub(operand),
                    0x20 => a.wrapping_mul(operand),
                    0x30 => a / operand,
                    0x40 => a | operand,
                    0x50 => a & operand,
                    0x60 => a.checked_shl(operand).expect("shift by less than 32"),
                    0x70 => a.checked_shr(operand).expect("shift by less than 32"),
                    0x90 => a % operand,
                    0xa0 => a ^ operand,
                    op => panic!("alu {op:#x}"),
                };
            }
            code if code & 7 == 5 => {
                let yes = match code & 0xf0 {
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    0x40 => a & operand != 0,
                    op => panic!("jump {op:#x}"),
                };
                pc += usize::from(if yes { i.jt } else { i.jf });
            }
            code => panic!("instruction {code:#x}"),
        }
    }
}
