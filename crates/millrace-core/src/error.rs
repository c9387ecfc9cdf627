//! One error type: a stable code, what went wrong, what was given, what was expected.

use std::{fmt, io};

/// Every code this crate can report. The text form (`MILLRACE_E_…`) is stable and documented in `docs/errors.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A configuration value is out of range or contradicts another.
    Config,
    /// The network interface does not exist, is down, or cannot be used.
    Interface,
    /// A UDP port is taken by another process, or may not be bound.
    Port,
    /// The process lacks a capability, or a resource limit is too low.
    Permission,
    /// The kernel, driver or interface does not offer what was asked for.
    Unsupported,
    /// Another program owns what we need (a foreign XDP program, a fanout group).
    Busy,
    /// The rule set does not compile.
    Rules,
    /// A kernel call failed in a way none of the codes above explains.
    Kernel,
    /// The caller used the library out of order.
    State,
}

impl Code {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::Config => "MILLRACE_E_CONFIG",
            Code::Interface => "MILLRACE_E_INTERFACE",
            Code::Port => "MILLRACE_E_PORT",
            Code::Permission => "MILLRACE_E_PERMISSION",
            Code::Unsupported => "MILLRACE_E_UNSUPPORTED",
            Code::Busy => "MILLRACE_E_BUSY",
            Code::Rules => "MILLRACE_E_RULES",
            Code::Kernel => "MILLRACE_E_KERNEL",
            Code::State => "MILLRACE_E_STATE",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error a person can act on. `message` is one line (rule errors may carry several) and already contains the
/// offending value, the place, and what was expected.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// Stable code.
    pub code: Code,
    /// What was given, where, and what was expected.
    pub message: String,
    /// The kernel's own error, where there was one.
    #[source]
    pub source: Option<io::Error>,
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that no kernel call caused.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), source: None }
    }

    /// An error of a kernel call; the kernel's text is appended to the message.
    pub fn os(code: Code, message: impl fmt::Display, source: io::Error) -> Self {
        Error { code, message: format!("{message}: {source}"), source: Some(source) }
    }

    /// As [`Error::os`] with `errno` of the calling thread.
    pub fn last_os(code: Code, message: impl fmt::Display) -> Self {
        Self::os(code, message, io::Error::last_os_error())
    }

    /// The kernel's errno, if a kernel call failed.
    pub fn errno(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }
}
