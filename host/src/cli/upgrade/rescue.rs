//! A state that a module gets otherwise than from the `snapshot` of the active one.

use std::path::Path;

use bytes::Bytes;
use raft_host_proto::{Client, v1};

use crate::cli::exit::Failure;
use crate::cli::input::read_state;
use crate::cli::remote;

/// Refuses a module that takes no state over: one that is active already, or the cluster's first.
pub(in crate::cli) fn check_rescue(
    is_active: bool,
    replaces: Option<&v1::Incumbent>,
) -> Result<(), Failure> {
    let words = match (is_active, replaces) {
        (true, _) => {
            "this module is active already, and keeps the state that it has: another one takes a state over"
        }
        (false, None) => {
            "no module is active, so there is none whose state another one could take over: a cluster that \
             begins with a state is formed with --plugin and --import"
        }
        (false, Some(_)) => return Ok(()),
    };
    Err(Failure::new(words))
}

/// Brings the state in that a file holds; what it is called then. Without a file: nothing.
pub(in crate::cli) async fn bring_state_in(
    client: &Client,
    file: Option<&Path>,
) -> Result<Bytes, Failure> {
    let Some(file) = file else { return Ok(Bytes::new()) };
    let staged = client.stage_state(read_state(file)?).await;
    Ok(staged.map_err(|error| remote::failure(&error))?.module_hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_module_than_the_active_one_takes_a_state_over() {
        let active = v1::Incumbent::default();
        assert!(check_rescue(false, Some(&active)).is_ok());
        let why = |is_active, active| check_rescue(is_active, active).expect_err("no").message;
        assert!(why(true, Some(&active)).contains("is active already"));
        assert!(why(false, None).contains("formed with --plugin and --import"));
    }
}
