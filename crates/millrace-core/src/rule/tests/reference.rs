//! A second evaluator, written as naively as the definition in `docs/rules.md` reads: over the syntax tree, with none
//! of the code that the real one uses.

use super::super::ast::{Action, ActionKind, Expr, ExprKind, Item, NamedField, Rule, Width};
use super::super::operator::{BinOp, CmpOp};
use super::*;

/// A read beyond the datagram, or a division by zero.
struct Fault;

enum Val {
    Number(u64),
    Truth(bool),
    Bytes(Vec<u8>),
    Flow(Vec<u32>),
}

/// The state of the actions that have one, by rule.
#[derive(Default)]
pub(super) struct Memory {
    turns: std::collections::HashMap<usize, u64>,
    seen: std::collections::HashMap<usize, u64>,
}

/// `Ok(None)` for `random`: any queue of the range will do.
pub(super) fn decide(
    rules: &[Rule],
    queues: u16,
    facts: &Facts<'_>,
    memory: &mut Memory,
) -> (usize, Decision) {
    for (i, rule) in rules.iter().enumerate() {
        if let Ok(Some(decision)) = apply(i, rule, queues, facts, memory) {
            return (i, decision);
        }
    }
    let mut words = Vec::new();
    flow(facts, &mut words);
    let key = hash_words(&words);
    (rules.len(), Decision::Queue { queue: (key % u32::from(queues)) as u16, key, spill: None })
}

#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Drop,
    Queue { queue: u16, key: u32, spill: Option<(u16, u16)> },
    Random { first: u16, last: u16, spill: bool },
}

fn apply(
    i: usize,
    rule: &Rule,
    queues: u16,
    facts: &Facts<'_>,
    memory: &mut Memory,
) -> Result<Option<Decision>, Fault> {
    if let Some(condition) = &rule.condition
        && !truth(condition, facts)?
    {
        return Ok(None);
    }
    let Action { kind, on, spill, .. } = &rule.action;
    let (first, last) = match on {
        Some((a, b, _)) => (number(a, facts)? as u16, number(b, facts)? as u16),
        None => (0, queues - 1),
    };
    let count = u64::from(last - first) + 1;
    let spill = spill.map(|_| (first, last));
    let pick = |n: u64, key: u32| Ok(Some(Decision::Queue { queue: first + (n % count) as u16, key, spill }));
    match kind {
        ActionKind::Drop => Ok(Some(Decision::Drop)),
        ActionKind::Sample(n) => {
            let n = number(n, facts)?;
            let seen = memory.seen.entry(i).or_default();
            *seen += 1;
            Ok(if (*seen - 1).is_multiple_of(n) { None } else { Some(Decision::Drop) })
        }
        ActionKind::Queue(n) => Ok(Some(Decision::Queue { queue: number(n, facts)? as u16, key: 0, spill })),
        ActionKind::Mod(e) => {
            let n = number(e, facts)?;
            pick(n, n as u32)
        }
        ActionKind::Hash(keys) => {
            let mut words = Vec::new();
            for key in keys {
                match eval(key, facts)? {
                    Val::Number(n) => words.extend([(n >> 32) as u32, n as u32]),
                    Val::Bytes(b) => {
                        for chunk in b.chunks(4) {
                            let mut word = [0; 4];
                            word[..chunk.len()].copy_from_slice(chunk);
                            words.push(u32::from_be_bytes(word));
                        }
                    }
                    Val::Flow(w) => words.extend(w),
                    Val::Truth(_) => unreachable!(),
                }
            }
            let key = hash_words(&words);
            pick(u64::from(key), key)
        }
        ActionKind::RoundRobin => {
            let turn = memory.turns.entry(i).or_default();
            *turn += 1;
            pick(*turn - 1, 0)
        }
        ActionKind::Random => Ok(Some(Decision::Random { first, last, spill: spill.is_some() })),
        ActionKind::Cpu => pick(u64::from(facts.cpu), 0),
        ActionKind::RxQueue => pick(u64::from(facts.rx_queue), 0),
    }
}

/// The definition of the hash, word by word.
pub(super) fn hash_words(words: &[u32]) -> u32 {
    let mut h = 0x9e37_79b9u32;
    for w in words {
        h ^= w;
        h = (u64::from(h) * 0x85eb_ca6b) as u32;
        h ^= h / (1 << 15);
    }
    h ^= h / (1 << 16);
    h = (u64::from(h) * 0x85eb_ca6b) as u32;
    h ^= h / (1 << 13);
    h = (u64::from(h) * 0xc2b2_ae35) as u32;
    h ^ (h / (1 << 16))
}

fn flow(facts: &Facts<'_>, words: &mut Vec<u32>) {
    for i in [0, 4, 8, 12] {
        for addr in [facts.src, facts.dst] {
            words.push(u32::from_be_bytes([addr[i], addr[i + 1], addr[i + 2], addr[i + 3]]));
        }
    }
    words.push(u32::from(facts.src_port) * 65536 + u32::from(facts.dst_port));
}

fn number(e: &Expr, facts: &Facts<'_>) -> Result<u64, Fault> {
    match eval(e, facts)? {
        Val::Number(n) => Ok(n),
        _ => unreachable!("checked"),
    }
}

fn truth(e: &Expr, facts: &Facts<'_>) -> Result<bool, Fault> {
    match eval(e, facts)? {
        Val::Truth(b) => Ok(b),
        _ => unreachable!("checked"),
    }
}

fn eval(e: &Expr, facts: &Facts<'_>) -> Result<Val, Fault> {
    Ok(match &e.kind {
        ExprKind::Int(n) => Val::Number(*n),
        ExprKind::Bytes(b) => Val::Bytes(b.clone()),
        ExprKind::Addr(a) => Val::Bytes(a.bytes.to_vec()),
        ExprKind::Field { width, little_endian, offset } => {
            let at = number(offset, facts)? as usize;
            let width = match width {
                Width::U8 => 1,
                Width::U16 => 2,
                Width::U32 => 4,
                Width::U64 => 8,
            };
            if at + width > facts.payload.len() {
                return Err(Fault);
            }
            let mut bytes = facts.payload[at..at + width].to_vec();
            if *little_endian {
                bytes.reverse();
            }
            Val::Number(bytes.iter().fold(0, |n, b| n * 256 + u64::from(*b)))
        }
        ExprKind::Slice { from, to } => {
            let (from, to) = (number(from, facts)? as usize, number(to, facts)? as usize);
            if to > facts.payload.len() {
                return Err(Fault);
            }
            Val::Bytes(facts.payload[from..to].to_vec())
        }
        ExprKind::Named(name) => match name {
            NamedField::Len => Val::Number(facts.payload.len() as u64),
            NamedField::Src => Val::Bytes(facts.src.to_vec()),
            NamedField::Dst => Val::Bytes(facts.dst.to_vec()),
            NamedField::SrcPort => Val::Number(facts.src_port.into()),
            NamedField::DstPort => Val::Number(facts.dst_port.into()),
            NamedField::RxQueue => Val::Number(facts.rx_queue.into()),
            NamedField::Cpu => Val::Number(facts.cpu.into()),
            NamedField::Flow => {
                let mut words = Vec::new();
                flow(facts, &mut words);
                Val::Flow(words)
            }
        },
        ExprKind::Chain { first, rest } => {
            let mut n = number(first, facts)?;
            for (op, right) in rest {
                n = arithmetic(*op, n, number(right, facts)?)?;
            }
            Val::Number(n)
        }
        ExprKind::Compare { op, left, right } => {
            Val::Truth(match (eval(left, facts)?, eval(right, facts)?) {
                (Val::Number(a), Val::Number(b)) => match op {
                    CmpOp::Eq => a == b,
                    CmpOp::Ne => a != b,
                    CmpOp::Lt => a < b,
                    CmpOp::Le => a <= b,
                    CmpOp::Gt => a > b,
                    CmpOp::Ge => a >= b,
                },
                (Val::Bytes(a), Val::Bytes(b)) => (a == b) == (*op == CmpOp::Eq),
                _ => unreachable!("checked"),
            })
        }
        ExprKind::In { value, items, .. } => {
            let value = eval(value, facts)?;
            let mut found = false;
            for item in items {
                found |= match (item, &value) {
                    (Item::Value(e), Val::Number(n)) => number(e, facts)? == *n,
                    (Item::Range(a, b), Val::Number(n)) => {
                        (number(a, facts)?..=number(b, facts)?).contains(n)
                    }
                    (Item::Value(e), Val::Bytes(have)) => match eval(e, facts)? {
                        Val::Bytes(want) => want == *have,
                        _ => unreachable!("checked"),
                    },
                    (Item::Prefix { addr, bits, .. }, Val::Bytes(have)) => {
                        let bits = if addr.v4 { bits + 96 } else { *bits };
                        (0..bits as usize).all(|i| (have[i / 8] ^ addr.bytes[i / 8]) & (0x80 >> (i % 8)) == 0)
                    }
                    _ => unreachable!("checked"),
                };
            }
            Val::Truth(found)
        }
        ExprKind::And(parts) => {
            for part in parts {
                if !truth(part, facts)? {
                    return Ok(Val::Truth(false));
                }
            }
            Val::Truth(true)
        }
        ExprKind::Or(parts) => {
            for part in parts {
                if truth(part, facts)? {
                    return Ok(Val::Truth(true));
                }
            }
            Val::Truth(false)
        }
        ExprKind::Not(inner) => Val::Truth(!truth(inner, facts)?),
    })
}

fn arithmetic(op: BinOp, a: u64, b: u64) -> Result<u64, Fault> {
    let wrap = |n: u128| n as u64;
    Ok(match op {
        BinOp::Add => wrap(u128::from(a) + u128::from(b)),
        BinOp::Sub => wrap((1u128 << 64) + u128::from(a) - u128::from(b)),
        BinOp::Mul => wrap(u128::from(a) * u128::from(b)),
        BinOp::Div | BinOp::Mod if b == 0 => return Err(Fault),
        BinOp::Div => a / b,
        BinOp::Mod => a % b,
        BinOp::And => a & b,
        BinOp::Or => a | b,
        BinOp::Xor => a ^ b,
        BinOp::Shl => {
            if b < 64 {
                wrap(u128::from(a) << b)
            } else {
                0
            }
        }
        BinOp::Shr => {
            if b < 64 {
                a >> b
            } else {
                0
            }
        }
    })
}
