//! Names and indexes of interfaces, in the network namespace of the calling thread.

use std::{ffi::CStr, ffi::CString, fs};

use crate::error::{Code, Error, Result};

/// Index of an interface.
///
/// # Errors
/// [`Code::Interface`] listing the interfaces that exist.
pub(super) fn index(name: &str) -> Result<u32> {
    let c_name = CString::new(name).unwrap_or_default();
    // SAFETY: a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => Err(Error::new(
            Code::Interface,
            format!("interface {name:?} does not exist: expected one of {}", list().join(", ")),
        )),
        index => Ok(index),
    }
}

/// True while an interface with this index exists.
pub(super) fn exists(index: u32) -> bool {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: if_indextoname writes at most IF_NAMESIZE bytes, the size of `name`.
    !unsafe { libc::if_indextoname(index, name.as_mut_ptr()) }.is_null()
}

/// All interfaces. By netlink, because /sys shows those of the namespace it was mounted in.
fn list() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: returns null or an array that ends with a zero index; freed below and not used after.
    let array = unsafe { libc::if_nameindex() };
    if array.is_null() {
        return names;
    }
    let mut entry = array;
    // SAFETY: `entry` runs over the array and stops at its last element, the one with index 0; every name before is a
    // NUL-terminated string.
    unsafe {
        while (*entry).if_index != 0 {
            names.push(CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned());
            entry = entry.add(1);
        }
        libc::if_freenameindex(array);
    }
    names
}

/// The interface of the default route: IPv4 with the lowest metric, else IPv6.
///
/// # Errors
/// [`Code::Interface`] when there is no default route.
pub(super) fn of_default_route() -> Result<String> {
    let read = |table: &str| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    default_v4(&read("route")).or_else(|| default_v6(&read("ipv6_route"))).ok_or_else(|| {
        let message = format!("no default route: name the interface, one of {}", list().join(", "));
        Error::new(Code::Interface, message)
    })
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, addresses in hexadecimal.
fn default_v4(table: &str) -> Option<String> {
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|w| w.len() > 7 && w[1] == "00000000" && w[7] == "00000000")
        .min_by_key(|w| w[6].parse::<u32>().unwrap_or(u32::MAX))
        .map(|w| w[0].to_owned())
}

/// `destination prefix source prefix next-hop metric refcnt use flags device`, numbers in hexadecimal.
fn default_v6(table: &str) -> Option<String> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // The kernel's catch-all reject route is a default route on lo.
    rows.filter(|w| w.len() > 9 && w[0].bytes().all(|b| b == b'0') && w[1] == "00" && w[9] != "lo")
        .min_by_key(|w| u32::from_str_radix(w[5], 16).unwrap_or(u32::MAX))
        .map(|w| w[9].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_with_the_lowest_metric_wins() {
        let v4 = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                  eth1 00000000 010011AC 0003 0 0 200 00000000 0 0 0\n\
                  eth0 00000000 010011AC 0003 0 0 100 00000000 0 0 0\n\
                  eth2 0000A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0";
        assert_eq!(default_v4(v4).as_deref(), Some("eth0"));
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo\n{zero} 00 {zero} 00 {zero} 00000400 1 0 3 eth3"
        );
        assert_eq!(default_v6(&v6).as_deref(), Some("eth3"));
        assert_eq!(default_v4("").or_else(|| default_v6("")), None);
    }
}
