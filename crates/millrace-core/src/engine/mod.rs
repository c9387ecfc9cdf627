//! The data plane of one service: its life cycle, its receive threads, its books, and the check before a start.
//!
//! [`Engine`] opens a backend, takes each queue's memory, starts one receive thread per receiver and one for the guard,
//! and stops them in order. A receive thread (`receive_thread`) reads its receiver into its [`crate::scatter::Scatter`]
//! and decides when to sleep; `real_time` keeps one with a real-time priority from starving its CPU. `books` reads the
//! counters. [`preflight`] tries what a start would need, without starting.

mod books;
mod cpus;
mod description;
mod grants;
mod life_cycle;
pub mod preflight;
mod real_time;
mod real_time_messages;
mod receive_thread;

pub use books::{EngineStats, InterfaceStats, QueueStats, ThreadStats};
pub use cpus::{allowed_cpus, pin_thread};
pub use description::EngineDescription;
pub use life_cycle::Engine;
