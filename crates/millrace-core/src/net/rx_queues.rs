//! The number of rx queues of an interface.

use std::fs;

use super::{ethtool, interface::Interface};

impl Interface {
    /// Returns the number of rx queues in use, at least 1: rx and combined channels of `ETHTOOL_GCHANNELS`. Where the driver
    /// does not answer, it is what sysfs or else rtnetlink reports; rtnetlink counts the queues allocated, not those in use.
    pub fn rx_queues(&self) -> u32 {
        if let Ok(c) = ethtool::channels(self)
            && c.rx_count + c.combined_count > 0
        {
            return c.rx_count + c.combined_count;
        }
        self.sysfs_rx_queues().or_else(|| self.link().ok().map(|l| l.rx_queues)).unwrap_or(1).max(1)
    }

    /// Returns [`Interface::rx_queues`] while an interface of this name has this index, and `None` when it is gone, renamed,
    /// or in another network namespace than the calling thread.
    pub fn rx_queues_if_present(&self) -> Option<u32> {
        (Self::by_name(&self.name).ok()?.index == self.index).then(|| self.rx_queues())
    }

    /// Returns the largest number of rx queues that `ethtool -L` could set, at least [`Interface::rx_queues`].
    pub fn max_rx_queues(&self) -> u32 {
        let most = ethtool::channels(self).map_or(0, |c| c.max_rx.max(c.max_combined));
        most.max(self.rx_queues())
    }

    /// Counts the `rx-*` directories (Documentation/ABI/testing/sysfs-class-net-queues), when sysfs shows this interface.
    fn sysfs_rx_queues(&self) -> Option<u32> {
        let path = format!("/sys/class/net/{}", self.name);
        let index: u32 = fs::read_to_string(format!("{path}/ifindex")).ok()?.trim().parse().ok()?;
        if index != self.index {
            return None;
        }
        let queues = fs::read_dir(format!("{path}/queues")).ok()?;
        let rx = queues.flatten().filter(|e| e.file_name().as_encoded_bytes().starts_with(b"rx-")).count();
        u32::try_from(rx).ok().filter(|&n| n > 0)
    }
}
