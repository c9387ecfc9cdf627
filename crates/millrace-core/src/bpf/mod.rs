//! eBPF without clang, libbpf or object files: an assembler, the bpf(2) calls we need, and the XDP program itself.
//!
//! The program is made at run time from the configuration, so ports and addresses are immediates and there is nothing
//! to ship, to match against a toolchain or to relocate.

pub(crate) mod classic;
pub mod ebpf;
pub mod link;
pub mod syscall;
pub mod xdp_program;
