//! Opening an rx queue that was added after the start, by the receive thread that serves it.

use std::time::Duration;

use super::{attached_interface::AttachedInterface, interface_state::InterfaceState, queue::RxQueue};
use crate::{
    config::ZeroCopy,
    error::{Code, Error, Result},
};

/// Opens rx queue `number` as those of the start were opened, and records the result. bind(2) is tried once, because the
/// thread has other rx queues to serve meanwhile.
///
/// # Errors
/// The sentence for the user that explains why not; [`InterfaceState::info`] has it as well.
pub(super) fn open_added_queue(
    state: &InterfaceState,
    attached: &AttachedInterface,
    number: u32,
) -> std::result::Result<RxQueue, String> {
    match open(state, attached, number) {
        Ok(mut queue) => {
            if state.queue_options().busy_poll {
                // It was granted at the start. Refused now, this rx queue is served without it.
                let _ = queue.enable_busy_poll();
            }
            state.record_opened(number, queue.socket().zero_copy().ok(), queue.is_on_huge_pages());
            Ok(queue)
        }
        Err(e) => {
            let reason = format!(
                "rx queue {number} of {} comes by the kernel's stack and the guard: {}",
                state.name(),
                e.message
            );
            state.record_refused(number, reason.clone());
            Err(reason)
        }
    }
}

fn open(state: &InterfaceState, attached: &AttachedInterface, number: u32) -> Result<RxQueue> {
    let config = state.config();
    let entries = attached.attachment.map.entries();
    if number >= entries || u16::try_from(number).is_err() {
        let message = format!("the program was made for {entries} rx queues: restart to serve more");
        return Err(Error::new(Code::Interface, message));
    }
    let open = |zero_copy| RxQueue::open(attached, number, config.xdp_frames, zero_copy, Duration::ZERO);
    let zero_copy = state.queue_options().zero_copy;
    match open(zero_copy) {
        Err(e) if zero_copy && config.xdp_zerocopy != ZeroCopy::On && e.code == Code::Unsupported => {
            open(false)
        }
        opened => opened,
    }
}
