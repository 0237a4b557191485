//! For whole-system tests of museum builds: fails a server's memory on command.

use std::path::PathBuf;
use std::time::Duration;

use crate::node::NodeHandle;

/// Names a file; a server flips a bit of its state each time the file appears, and removes it. It
/// holds the position of the bit's byte, in decimal digits.
const VARIABLE: &str = "RAFT_HOST_FLIP_BIT_FILE";
const PAUSE: Duration = Duration::from_millis(20);

/// Watches for the file, if the environment names one. Never ends.
pub(super) async fn watch(handle: NodeHandle) {
    let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return };
    loop {
        tokio::time::sleep(PAUSE).await;
        let Ok(text) = tokio::fs::read_to_string(&path).await else { continue };
        // Until it is whole.
        let Ok(at) = text.trim().parse() else { continue };
        if tokio::fs::remove_file(&path).await.is_ok() {
            handle.flip_bit(at);
        }
    }
}
