//! Whether an interface is one whose ring a guard can complete.

use crate::{
    error::{Code, Error, Result},
    net::{Interface, TopologyMonitor, interface_name},
};

/// Refuses interfaces where the ring and the stack do not see the same datagrams.
///
/// # Errors
/// [`Code::Interface`] for a port of Open vSwitch and for a VRF, with the interface to name instead.
pub(super) fn validate(ring: &Interface, topology: &TopologyMonitor) -> Result<()> {
    if topology.is_open_vswitch_port() {
        let message = format!(
            "{} is a port of Open vSwitch, or of a bond that is: the host's datagrams come up by an internal port, and would come twice: \
             expected MILLRACE_INTERFACE to name the internal port that has the address, such as br-ex",
            ring.name
        );
        return Err(Error::new(Code::Interface, message));
    }
    if topology.is_vrf() {
        let message = format!(
            "{} is a VRF, which shows rings nothing that arrives: expected MILLRACE_INTERFACE to name its port, or \
             MILLRACE_BACKEND=socket",
            ring.name
        );
        return Err(Error::new(Code::Interface, message));
    }
    Ok(())
}

/// Describes what the ring misses when its interface is a port of another one. `None` when it is no port.
pub(super) fn describe_master(ring: &Interface, topology: &TopologyMonitor) -> Option<String> {
    let master = topology.master().and_then(|index| interface_name(index).ok())?;
    let cure = if topology.is_vrf_port() {
        "MILLRACE_BACKEND=socket".into()
    } else {
        format!("MILLRACE_INTERFACE={master}")
    };
    Some(format!(
        "{} is a port of {master}: what reaches {master} by other ports is not received; set {cure} to have it",
        ring.name
    ))
}
