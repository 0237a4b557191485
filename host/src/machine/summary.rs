//! What a snapshot says at its beginning, without restoring it.

use std::io::Read;

use super::reply::ActivationInfo;
use super::restore::{RestoreError, history, origins, read_header};
use crate::fsm::EngineProfile;
use crate::types::{ClusterId, Index, Level, Member, NodeId, Origin};

/// The facts of a captured machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSummary {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Index of the last applied entry.
    pub applied: Index,
    /// The log's clock there, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Members, by id, and whether each votes.
    pub members: Vec<(Member, bool)>,
    /// Open sessions.
    pub sessions: u64,
    /// Complete modules.
    pub modules: u64,
    /// Activations, oldest first; the last one is of the active module.
    pub history: Vec<ActivationInfo>,
    /// What must run the guest.
    pub engine: EngineProfile,
    /// What the log may hold.
    pub level: Level,
    /// What the cluster was restored from, oldest first.
    pub origins: Vec<Origin>,
}

impl MachineSummary {
    /// Reads the beginning of what [`super::MachineSnapshot::write_to`] wrote.
    ///
    /// # Errors
    ///
    /// See [`RestoreError`].
    pub fn read(input: &mut dyn Read) -> Result<MachineSummary, RestoreError> {
        let header = read_header(input)?;
        let invalid = |reason: String| RestoreError::Invalid(reason);
        let voters = header.conf_state.clone().unwrap_or_default().voters;
        let member = |member: &raft_host_proto::stored::SnapshotMember| {
            let address = member.address.clone();
            (Member { id: NodeId(member.id), address }, voters.contains(&member.id))
        };
        Ok(MachineSummary {
            cluster: ClusterId::try_from(&header.cluster_id[..])
                .map_err(|error| invalid(format!("cluster id: {error}")))?,
            applied: Index(header.applied_index),
            time_ms: header.time_ms,
            members: header.members.iter().map(member).collect(),
            sessions: header.session_count,
            modules: header.module_count,
            history: history(&header)?,
            engine: EngineProfile::parse(&header.engine)
                .map_err(|error| invalid(format!("its engine profile: {error}")))?,
            level: Level(header.level),
            origins: origins(&header)?,
        })
    }
}
