//! Packet memory on the NIC's NUMA node: what the NIC or the copying kernel writes then crosses no interconnect.
//!
//! mbind(2) with MPOL_PREFERRED, before the pages are touched: when the node is full, memory of another one is better
//! than none. On a host with one node, or where the NIC's is not known (virtual NICs), nothing is done.

use std::{fs, io};

use super::mapping::Mapping;
use crate::net::Interface;

const NODES: &str = "/sys/devices/system/node";
/// Nodes a kernel can have (CONFIG_NODES_SHIFT is at most 10).
const MOST_NODES: usize = 1024;
/// Bits of a word of mbind's mask (C `unsigned long`).
const WORD_BITS: usize = libc::c_ulong::BITS as usize;

/// The node an interface's NIC is on; None on a host with one node, and where the driver names none.
pub(super) fn node_of(interface: &Interface) -> Option<u32> {
    let read = |path: String| fs::read_to_string(path).ok();
    let online = read(format!("{NODES}/online"))?;
    // /sys shows the namespace it was mounted in, perhaps with another interface of this name.
    let sysfs = format!("/sys/class/net/{}", interface.name);
    let index: u32 = read(format!("{sysfs}/ifindex"))?.trim().parse().ok()?;
    if index != interface.index {
        return None;
    }
    choose(&online, &read(format!("{sysfs}/device/numa_node"))?)
}

/// From the texts of `online` (a list) and `numa_node` (-1: unknown).
fn choose(online: &str, numa_node: &str) -> Option<u32> {
    let nodes = list(online);
    let node = numa_node.trim().parse().ok()?;
    (nodes.len() > 1 && nodes.contains(&node)).then_some(node)
}

/// Those of `cpus` that are not on the node; empty when the node's CPUs cannot be read.
pub(super) fn far_away(node: u32, cpus: &[usize]) -> Vec<usize> {
    let near = fs::read_to_string(format!("{NODES}/node{node}/cpulist")).unwrap_or_default();
    outside(&near, cpus)
}

fn outside(cpulist: &str, cpus: &[usize]) -> Vec<usize> {
    let near = list(cpulist);
    let far = |cpu: &&usize| !near.is_empty() && !near.iter().any(|n| *n as usize == **cpu);
    let mut all: Vec<usize> = cpus.iter().filter(far).copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The kernel's list format, e.g. `0-3,8` (cpuset(7)); what does not parse is left out.
fn list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Prefers `node` for pages of the mapping that are not there yet (mbind(2)).
///
/// # Errors
/// mbind's errno.
pub(super) fn prefer(map: &Mapping, node: u32) -> io::Result<()> {
    let mut mask: [libc::c_ulong; MOST_NODES / WORD_BITS] = [0; MOST_NODES / WORD_BITS];
    let word = mask.get_mut(node as usize / WORD_BITS).ok_or(io::ErrorKind::InvalidInput)?;
    *word = 1 << (node as usize % WORD_BITS);
    // SAFETY: the range is exactly the mapping; the mask outlives the call, which only reads it, and holds MOST_NODES
    // bits. The kernel takes one less than `maxnode` says.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            map.start().as_ptr(),
            map.len(),
            libc::MPOL_PREFERRED as libc::c_ulong,
            mask.as_ptr(),
            MOST_NODES as libc::c_ulong + 1,
            0,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Why memory cannot be placed, found out with a page of it; None when it can.
pub(super) fn refused(node: u32) -> Option<String> {
    let e = Mapping::anonymous(1, None).and_then(|page| prefer(&page, node)).err()?;
    let why = match e.raw_os_error() {
        Some(libc::EPERM) => "a seccomp profile forbids mbind(2), usually unless there is CAP_SYS_NICE",
        Some(libc::ENOSYS) => "this kernel has no CONFIG_NUMA",
        _ => "mbind(2)",
    };
    Some(format!("packet memory could not be placed on the NIC's NUMA node {node}: {why} ({e})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_or_an_unknown_one_is_nothing_to_do() {
        assert_eq!(choose("0-1\n", "1\n"), Some(1));
        assert_eq!(choose("0,4\n", "4\n"), Some(4));
        for (online, node) in [("0\n", "0\n"), ("0-1\n", "-1\n"), ("0-1\n", "2\n"), ("", ""), ("0-1", "x")] {
            assert_eq!(choose(online, node), None, "{online:?} {node:?}");
        }
    }

    #[test]
    fn cpus_of_another_node() {
        assert_eq!(outside("0-3,8-11\n", &[2, 8, 4, 4, 12]), [4, 12]);
        assert!(outside("0-3", &[]).is_empty() && outside("", &[5]).is_empty());
    }

    #[test]
    fn the_kernel_keeps_the_preference() {
        let map = Mapping::anonymous(1 << 20, Some(0)).unwrap();
        let (mut mode, mut mask) = (-1i32, [0 as libc::c_ulong; MOST_NODES / WORD_BITS]);
        // MPOL_F_ADDR: the policy of the mapping that holds this address (get_mempolicy(2)).
        const MPOL_F_ADDR: libc::c_ulong = 2;
        // SAFETY: mode and mask are writable and alive through the call, the mask has MOST_NODES bits; the address is
        // inside the mapping.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut mode,
                mask.as_mut_ptr(),
                MOST_NODES as libc::c_ulong,
                map.start().as_ptr(),
                MPOL_F_ADDR,
            )
        };
        if rc < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            return;
        }
        assert_eq!(rc, 0, "get_mempolicy: {}", io::Error::last_os_error());
        assert_eq!((mode, mask[0]), (libc::MPOL_PREFERRED, 1));
        assert_eq!(refused(0), None);
        assert!(prefer(&map, 1 << 20).is_err(), "no such node");
    }
}
