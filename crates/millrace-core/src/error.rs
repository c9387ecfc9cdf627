//! The error type: a stable code, and a message that says what was given, where, and what was expected.

use std::{fmt, io};

/// Every code this crate can report. The text form (`MILLRACE_E_…`) is stable; `docs/errors.md` describes it.
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
    /// The kernel, driver or interface does not offer what was requested.
    Unsupported,
    /// Another program owns what is needed (a foreign XDP program, a fanout group).
    Busy,
    /// The rule set does not compile.
    Rules,
    /// A system call failed in a way that none of the codes above explains.
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

/// An error a person can act on.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// Stable code.
    pub code: Code,
    /// The offending value, where it was found, and what was expected. One line, except for rule errors, which show the
    /// rule text.
    pub message: String,
    /// The error of the system call that caused it, if one did.
    #[source]
    pub source: Option<io::Error>,
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that no system call caused.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), source: None }
    }

    /// An error of a system call; the text of `source` is appended to the message.
    pub fn os(code: Code, message: impl fmt::Display, source: io::Error) -> Self {
        Error { code, message: format!("{message}: {source}"), source: Some(source) }
    }

    /// The errno of the system call that caused it, if one did.
    pub fn errno(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }
}
