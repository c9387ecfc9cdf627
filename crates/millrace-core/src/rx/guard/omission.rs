//! The parts that a selection program omits because there is no room for them.

use crate::net::Interface;

/// The parts that a program omits because there is no room for them, from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Omission {
    /// The program is complete.
    Nothing,
    /// The destinations that the ring accepts. The program then takes every destination for one of them: a datagram for an
    /// address that the ring does not know is dropped at the port holder. The other way round, everything would be
    /// delivered twice.
    Destinations,
    /// The destinations, and some of the interfaces or MAC addresses. What comes by those is delivered twice, which is
    /// better than not at all.
    Interfaces,
}

impl Omission {
    /// Describes what the user loses by it and how to change that. `None` for a complete program.
    pub(super) fn describe(self, ring: &Interface) -> Option<String> {
        let lost = "datagrams for local routes and for addresses that come later are lost";
        let effect = match self {
            Omission::Nothing => return None,
            Omission::Destinations => lost.to_owned(),
            Omission::Interfaces => {
                format!(
                    "{lost}, and some of those by what stands on {0}, or for what {0} stands on, come twice",
                    ring.name
                )
            }
        };
        Some(format!(
            "the program that sorts for the guard does not fit net.core.optmem_max (or classic BPF): {effect}; raise \
             net.core.optmem_max in this network namespace to 131072 or more, or name addresses in MILLRACE_LISTEN"
        ))
    }
}
