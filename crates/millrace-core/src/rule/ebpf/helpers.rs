//! Helper functions of the kernel, by their number in `enum bpf_func_id` (linux/bpf.h); bpf-helpers(7) describes them.

/// `bpf_map_lookup_elem`
pub(super) const MAP_LOOKUP_ELEM: i32 = 1;
/// `bpf_get_prandom_u32`
pub(super) const GET_PRANDOM_U32: i32 = 7;
/// `bpf_skb_load_bytes_relative`
pub(in crate::rule) const SKB_LOAD_BYTES_RELATIVE: i32 = 68;
/// Its `start_header` for offsets from the network header (`BPF_HDR_START_NET`).
pub(super) const HDR_START_NET: i32 = 1;
