//! The rule language (src/rule): the same decision wherever a rule runs. Only `ebpf` and `everywhere` need root.

#[path = "../rig/mod.rs"]
mod rig;
mod support;

mod classic_bpf;
mod ebpf;
mod everywhere;
mod explain;
