//! Plain UDP sockets (stub for the skeleton).

/// Stub.
pub struct SocketReceiver;
