//! The interface of the default route, from the routing tables in /proc (proc_pid_net(5)).

use std::fs;

use super::interface::{Interface, interface_names};
use crate::error::{Code, Error, Result};

/// Flags of a route (linux/route.h): it is usable; it rejects what it matches.
const RTF_UP: u32 = 1;
const RTF_REJECT: u32 = 0x200;

impl Interface {
    /// Returns the interface of the default route with the lowest metric. A route for IPv4 comes before one for IPv6.
    ///
    /// # Errors
    /// [`Code::Interface`] when there is no default route.
    pub fn of_default_route() -> Result<Self> {
        let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        let name = default_route_v4(&read("route")).or_else(|| default_route_v6(&read("ipv6_route")));
        match name {
            Some(name) => Self::by_name(&name),
            None => Err(Error::new(
                Code::Interface,
                format!(
                    "no default route names an interface: set one; there are: {}",
                    interface_names().join(", ")
                ),
            )),
        }
    }
}

/// Finds the interface in `/proc/net/route`. Its columns are Iface, Destination, Gateway, Flags, RefCnt, Use, Metric, Mask
/// and more; the metric is decimal, all other numbers are in hex.
fn default_route_v4(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let f: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(f.get(3)?, 16).ok()?;
        let default = *f.get(1)? == "00000000" && *f.get(7)? == "00000000";
        let usable = flags & RTF_UP != 0 && flags & RTF_REJECT == 0;
        (default && usable).then_some((f.get(6)?.parse::<u32>().ok()?, f[0].to_string()))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

/// Finds the interface in `/proc/net/ipv6_route`. Its columns are destination, prefix length, source, prefix length, next
/// hop, metric, reference count, use count, flags and device; all numbers are in hex. The kernel's own "unreachable" default
/// route is on `lo` and does not count.
fn default_route_v6(table: &str) -> Option<String> {
    let routes = table.lines().filter_map(|line| {
        let f: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(f.get(8)?, 16).ok()?;
        let default = f[0].bytes().all(|b| b == b'0') && f[1] == "00";
        let usable = flags & RTF_UP != 0 && flags & RTF_REJECT == 0 && *f.get(9)? != "lo";
        (default && usable).then_some((u32::from_str_radix(f[5], 16).ok()?, f[9].to_string()))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_route_with_the_lowest_metric() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth1\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth2\t00000000\t0100000A\t0203\t0\t0\t1\t00000000\t0\t0\t0\n\
            eth3\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_route_v4(table).as_deref(), Some("eth0"));
        assert_eq!(default_route_v4("header only\n"), None);
        assert_eq!(default_route_v4("h\nshort line\n\n"), None);
    }

    #[test]
    fn default_route_v6_skips_the_unreachable_one() {
        let (zero, hop) = ("0".repeat(32), format!("fe80{}1", "0".repeat(27)));
        let table = format!(
            "{zero} 00 {zero} 00 {hop} 00000400 00000001 00000000 00000003     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(default_route_v6(&table).as_deref(), Some("eth0"));
        assert_eq!(default_route_v6(""), None);
    }
}
