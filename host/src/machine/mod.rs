//! The replicated machine around the application's state machine: a pure function of the log.
//!
//! To be filled; the agreed interface:
//!
//! ```text
//! pub struct Machine;
//! Machine::new(cluster: ClusterId, group: GroupId, limits: Limits, loader: SharedLoader) -> Machine
//! machine.apply(index: Index, data: &[u8]) -> Result<Applied, HostFailure>     // data: an encoded log.proto Entry; empty: no-op
//! machine.apply_membership(index: Index, change: &ConfChange, conf_state: ConfState)
//! machine.query(query: &[u8]) -> Result<QueryReply, HostFailure>
//! machine.applied_index() / members() / conf_state() / info() / module_bytes(hash)
//! machine.capture() -> Result<MachineSnapshot, HostFailure>     // MachineSnapshot: Send, write_to(&mut dyn Write)
//! Machine::restore(input: &mut dyn Read, cluster, group, loader) -> Result<Machine, RestoreError>
//! ```
