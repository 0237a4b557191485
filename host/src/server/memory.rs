//! Says at the start, and when limits change, what guests may take of this machine's memory.

use crate::fsm::Limits;
use crate::node::{GuestMemory, MachineMemory, NodeHandle};
use crate::text::human_bytes;

/// Goes on until the node stops.
pub(super) async fn tell(handle: NodeHandle) {
    let mut machine = handle.machine();
    let mut told: Option<Limits> = None;
    loop {
        let limits = machine.borrow_and_update().as_ref().map(|view| view.info.limits.clone());
        if let Some(limits) = limits
            && told.as_ref() != Some(&limits)
        {
            tell_of(&limits);
            told = Some(limits);
        }
        if machine.changed().await.is_err() {
            return;
        }
    }
}

fn tell_of(limits: &Limits) {
    let guests = GuestMemory::under(limits);
    let Some(machine) = MachineMemory::now() else { return };
    tracing::info!(
        running = %human_bytes(guests.running),
        activation = %human_bytes(guests.activation),
        machine = %human_bytes(machine.total),
        available = %human_bytes(machine.available),
        "memory that guests may come to take"
    );
    if let Some(shortage) = guests.shortage(machine) {
        tracing::warn!("{shortage}");
    }
}
