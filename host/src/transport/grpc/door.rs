//! The door of a node: who may speak to it, by how it introduces itself and what this node knows of it.

use raft_host_proto::peer;
use tonic::Status;

use super::hello::{HelloError, check_hello, check_proof, rival};
use super::removal;
use super::service::ProvedNode;
use crate::museum::{self, Exhibit};
use crate::transport::{Identity, Inbox, Standing};
use crate::types::{ClusterId, Index, Member, NodeId};

/// Why a peer does not come in.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// Its introduction does not fit.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// It was a member.
    #[error("node {node} was removed from cluster {cluster}")]
    Removed {
        /// This node's cluster.
        cluster: ClusterId,
        /// The refused node.
        node: NodeId,
        /// It is no member as of this index.
        as_of: Index,
    },
}

impl Refused {
    /// In the words of the wire.
    pub(super) fn status(self, us: &Identity) -> Status {
        match self {
            Refused::Hello(error) => error.into(),
            Refused::Removed { node, as_of, .. } => removal::refusal(us, node, as_of),
        }
    }
}

/// Who introduces itself to `us`; it may speak from now on. `proved`: who it is by its certificate, where there
/// are certificates. A member of another cluster that is refused is noted.
///
/// # Errors
/// Why it does not come in.
pub fn introduce(
    us: &Identity,
    inbox: &dyn Inbox,
    hello: Option<peer::Hello>,
    proved: Option<ProvedNode>,
) -> Result<Member, Refused> {
    let rival = hello.as_ref().and_then(|hello| rival(us, hello));
    let checked = hello
        .ok_or(HelloError::Missing)
        .and_then(|hello| check_hello(us, hello))
        .and_then(|member| check_proof(us.node, member, proved));
    // The refused node logs these words loudly, once; here they would repeat.
    let member = checked.map_err(|error| {
        let error = error.explained(|cluster| inbox.origin_of(cluster));
        tracing::debug!(%error, "refused a peer");
        if let Some(rival) = rival {
            let at_own_address = rival.dialled == us.address;
            inbox.rival(rival, at_own_address);
        }
        error
    })?;
    let removal = inbox.removal_of(member.id);
    if let Some(as_of) = removal.filter(|_| !museum::is_on(Exhibit::RemovedComesIn)) {
        return Err(Refused::Removed { cluster: us.cluster, node: member.id, as_of });
    }
    if inbox.standing(member.id) == Standing::Stranger {
        return Err(HelloError::NoMember { node: us.node, from: member.id }.into());
    }
    Ok(member)
}
