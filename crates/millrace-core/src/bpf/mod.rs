//! eBPF and classic BPF without clang, libbpf or object files: two assemblers, the commands of bpf(2) that are needed, and the
//! XDP program.
//!
//! Programs are made at run time from the configuration, so ports and addresses are immediates and there is nothing to ship,
//! to match against a toolchain or to relocate.
//!
//! | file | what it has |
//! | --- | --- |
//! | `classic` | assembler of classic BPF, for socket filters and SO_REUSEPORT and fanout groups |
//! | `ebpf` | assembler of eBPF |
//! | `xdp_program` | the XDP program: which frames go to AF_XDP sockets |
//! | `syscall` | bpf(2) itself and its errors |
//! | `map`, `program`, `link` | the objects that bpf(2) makes |
//! | `test_run` | a program run on bytes of a test's choosing |

pub(crate) mod classic;
pub mod ebpf;
pub mod link;
mod map;
mod program;
mod syscall;
#[cfg(feature = "testing")]
mod test_run;
pub mod xdp_program;

pub use map::{CounterMap, XskMap};
pub use program::{Program, action};
