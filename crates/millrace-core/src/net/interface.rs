//! Network interfaces by name and by index.

use std::{
    ffi::{CStr, CString},
    io,
};

use crate::error::{Code, Error, Result};

/// A network interface that existed when it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index in this network namespace, from 1.
    pub index: u32,
}

impl Interface {
    /// Looks an interface up by name (if_nametoindex(3)).
    ///
    /// # Errors
    /// [`Code::Interface`], with a list of the interfaces that exist.
    pub fn by_name(name: &str) -> Result<Self> {
        let missing = |e: Option<io::Error>| {
            let message = format!(
                "interface {name:?} does not exist here; there are: {}",
                interface_names().join(", ")
            );
            match e {
                Some(e) => Error::os(Code::Interface, message, e),
                None => Error::new(Code::Interface, message),
            }
        };
        let Ok(c_name) = CString::new(name) else { return Err(missing(None)) };
        // SAFETY: `c_name` is NUL-terminated and lives through the call, which only reads it.
        let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        if index == 0 {
            return Err(missing(Some(io::Error::last_os_error())));
        }
        Ok(Interface { name: name.into(), index })
    }

    /// Looks up the interface of a scoped address such as `fe80::1%eth0` (RFC 4007 §11). `scope` is the part behind the
    /// `%`: an index or a name.
    ///
    /// # Errors
    /// Those of [`Interface::by_name`].
    pub fn of_scope(scope: &str) -> Result<Self> {
        match scope.parse::<u32>() {
            Ok(index) => match interface_name(index) {
                Ok(name) => Ok(Interface { name, index }),
                Err(_) => Self::by_name(scope),
            },
            Err(_) => Self::by_name(scope),
        }
    }
}

/// Returns true while an interface with this index exists. The answer is false only when the kernel reports it: without a free
/// descriptor the question fails too, and the interface then counts as existing.
pub fn interface_exists(index: u32) -> bool {
    interface_name(index).map_or_else(|e| e.raw_os_error() != Some(libc::ENXIO), |_| true)
}

/// Returns the name of the interface with this index (if_indextoname(3)).
///
/// # Errors
/// ENXIO when there is none.
pub(crate) fn interface_name(index: u32) -> io::Result<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the call writes at most IF_NAMESIZE bytes, the size of `name`.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    let text = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
    Ok(text.to_string_lossy().into_owned())
}

/// Returns the names of all interfaces of this network namespace (if_nameindex(3)), and none when they cannot be read.
pub(super) fn interface_names() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: if_nameindex(3) returns null or an array ended by an entry of index 0, which if_freenameindex frees; the
    // names are NUL-terminated and copied before that.
    unsafe {
        let entries = libc::if_nameindex();
        if entries.is_null() {
            return names;
        }
        let mut entry = entries;
        while (*entry).if_index != 0 && !(*entry).if_name.is_null() {
            names.push(CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned());
            entry = entry.add(1);
        }
        libc::if_freenameindex(entries);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_facts_and_a_missing_interface_names_it() {
        let lo = Interface::by_name("lo").unwrap();
        let link = lo.link().unwrap();
        assert!(lo.index > 0 && link.mtu > 0 && link.xdp.is_none(), "{link:?}");
        assert!(lo.rx_queues() >= 1 && lo.max_rx_queues() >= lo.rx_queues());
        for name in ["nosuch0", "a-name-that-is-too-long", "nul\0byte", ""] {
            let e = Interface::by_name(name).unwrap_err();
            assert_eq!(e.code, Code::Interface, "{e}");
            assert!(e.message.contains("lo"), "{e}");
        }
        let gone = Interface { name: "gone".into(), index: u32::MAX >> 2 };
        assert_eq!(gone.link().unwrap_err().code, Code::Interface);
    }
}
