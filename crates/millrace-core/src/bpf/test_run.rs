//! Runs a loaded program on bytes of a test's choosing.

use super::{
    program::Program,
    syscall::{bpf, bpf_error},
};
use crate::error::Result;

/// `enum bpf_cmd`.
const BPF_PROG_TEST_RUN: i32 = 10;

/// The part of `union bpf_attr` that BPF_PROG_TEST_RUN uses.
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

impl Program {
    /// Runs the program once on `frame` as if it came by rx queue 0 of `lo`, and returns its
    /// [`action`](super::action), or what a socket filter returns (BPF_PROG_TEST_RUN, Documentation/bpf/bpf_prog_run.rst).
    /// The kernel refuses frames of fewer than 14 bytes. Nothing is sent anywhere.
    ///
    /// # Errors
    /// Those of [`bpf_error`].
    pub fn test_run(&self, frame: &[u8]) -> Result<u32> {
        let mut attr = TestRun {
            prog_fd: self.raw_fd(),
            retval: 0,
            data_size_in: frame.len() as u32,
            data_size_out: 0,
            data_in: frame.as_ptr() as u64,
            data_out: 0,
            repeat: 1,
            duration: 0,
            ctx_size_in: 0,
            ctx_size_out: 0,
            ctx_in: 0,
            ctx_out: 0,
        };
        bpf(BPF_PROG_TEST_RUN, &mut attr)
            .map_err(|e| bpf_error(&format!("test run of a BPF program on {} bytes", frame.len()), e))?;
        Ok(attr.retval)
    }
}
