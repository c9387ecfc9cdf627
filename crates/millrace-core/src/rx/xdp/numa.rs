//! The NUMA node of the NIC: packet memory is placed there, so that what the NIC or the copying kernel writes crosses no
//! interconnect ([`Mapping::prefer_node`]). On a host with one node, or where the NIC's node is unknown (virtual NICs),
//! nothing is done.

use std::fs;

use crate::net::Interface;
use crate::sys::mapping::Mapping;

const NODES: &str = "/sys/devices/system/node";

/// The node an interface's NIC is on; None on a host with one node, and where the driver names none.
pub(super) fn node_of(interface: &Interface) -> Option<u32> {
    let read = |path: String| fs::read_to_string(path).ok();
    let online = read(format!("{NODES}/online"))?;
    // /sys shows the network namespace it was mounted in, where another interface may have this name.
    let sysfs = format!("/sys/class/net/{}", interface.name);
    let index: u32 = read(format!("{sysfs}/ifindex"))?.trim().parse().ok()?;
    if index != interface.index {
        return None;
    }
    node_from(&online, &read(format!("{sysfs}/device/numa_node"))?)
}

/// The node, from the texts of `online` (a list) and `numa_node` (-1: unknown).
fn node_from(online: &str, numa_node: &str) -> Option<u32> {
    let nodes = parse_list(online);
    let node = numa_node.trim().parse().ok()?;
    (nodes.len() > 1 && nodes.contains(&node)).then_some(node)
}

/// Those of `cpus` that are not on the node; none when the node's CPUs cannot be read.
pub(super) fn remote_cpus(node: u32, cpus: &[usize]) -> Vec<usize> {
    let cpulist = fs::read_to_string(format!("{NODES}/node{node}/cpulist")).unwrap_or_default();
    not_listed(&cpulist, cpus)
}

fn not_listed(cpulist: &str, cpus: &[usize]) -> Vec<usize> {
    let local = parse_list(cpulist);
    let remote = |cpu: &&usize| !local.is_empty() && !local.iter().any(|n| *n as usize == **cpu);
    let mut all: Vec<usize> = cpus.iter().filter(remote).copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Parses the kernel's list format, e.g. `0-3,8` (cpuset(7)), and leaves out what does not parse.
fn parse_list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Tries to place one page on the node. Returns the sentence for the user when mbind(2) is refused.
pub(super) fn placement_refusal(node: u32) -> Option<String> {
    let e = Mapping::anonymous(1, None).and_then(|page| page.prefer_node(node)).err()?;
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
        assert_eq!(node_from("0-1\n", "1\n"), Some(1));
        assert_eq!(node_from("0,4\n", "4\n"), Some(4));
        for (online, node) in [("0\n", "0\n"), ("0-1\n", "-1\n"), ("0-1\n", "2\n"), ("", ""), ("0-1", "x")] {
            assert_eq!(node_from(online, node), None, "{online:?} {node:?}");
        }
    }

    #[test]
    fn cpus_of_another_node() {
        assert_eq!(not_listed("0-3,8-11\n", &[2, 8, 4, 4, 12]), [4, 12]);
        assert!(not_listed("0-3", &[]).is_empty() && not_listed("", &[5]).is_empty());
    }
}
