//! How nodes introduce themselves, and whom they refuse.

use bytes::Bytes;
use raft_host_proto::peer;
use tonic::Status;

use super::service::ProvedNode;
use crate::museum::{self, Exhibit};
use crate::transport::{Identity, PROTOCOLS, common_protocol};
use crate::types::{AddressError, ClusterId, Index, Member, NodeId, Rival, check_address};

/// Why a peer is refused. The text travels to the peer, so it says who speaks.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum HelloError {
    /// The stream began with something else.
    #[error("the first message of a peer must be its hello")]
    Missing,
    /// A second introduction on the same stream.
    #[error("a peer introduces itself only once per stream")]
    Repeated,
    /// Another protocol.
    #[error(
        "node {node} speaks versions {}..={} of the peers' protocol, node {from} speaks {min}..={max}: \
         run versions of raft-host that have one in common",
        PROTOCOLS.start(), PROTOCOLS.end()
    )]
    Protocol {
        /// The refusing node.
        node: NodeId,
        /// The refused one.
        from: u64,
        /// The lowest version that the refused one speaks.
        min: u32,
        /// The highest one.
        max: u32,
    },
    /// Another cluster.
    #[error(
        "node {node} belongs to cluster {ours}, node {from} to cluster {theirs}: \
         check the addresses, or whether a data directory was replaced"
    )]
    Cluster {
        /// The refusing node.
        node: NodeId,
        /// Its cluster.
        ours: ClusterId,
        /// The refused one.
        from: u64,
        /// Its cluster, in hexadecimal digits.
        theirs: String,
    },
    /// A cluster that this one was made of.
    #[error(
        "node {node} belongs to cluster {ours}, which was made of cluster {theirs} as of entry {index} \
         (restored from a backup, or recovered after a loss), and node {from} was left behind: stop it, \
         empty its data directory, and start it with --join"
    )]
    LeftBehind {
        /// The refusing node.
        node: NodeId,
        /// Its cluster.
        ours: ClusterId,
        /// The refused one.
        from: u64,
        /// Its cluster.
        theirs: ClusterId,
        /// The last entry that both have.
        index: Index,
    },
    /// Somebody else lives at this address.
    #[error("this is node {node}, not node {to}, which node {from} wanted to reach here")]
    Receiver {
        /// The refusing node.
        node: NodeId,
        /// Whom the peer looked for.
        to: u64,
        /// The refused one.
        from: u64,
    },
    /// The peer says it is this very node.
    #[error(
        "node {0} cannot be its own peer: does another node run on a copy of its data, \
         or is its own address given to another node?"
    )]
    Myself(NodeId),
    /// No cluster gives out such an id.
    #[error(
        "node {from} is no member of the cluster that node {node} knows, nor can it have become one \
         since"
    )]
    NoMember {
        /// The refusing node.
        node: NodeId,
        /// The refused one.
        from: NodeId,
    },
    /// The certificate says otherwise.
    #[error(
        "a peer introduced itself to node {node} as node {from}, with the certificate of node {proved}: give each \
         node its own"
    )]
    Certificate {
        /// The refusing node.
        node: NodeId,
        /// Who the peer says it is.
        from: NodeId,
        /// Who it is by its certificate.
        proved: NodeId,
    },
    /// Node 0 does not exist.
    #[error("a peer introduced itself as node 0, which does not exist")]
    ZeroNode,
    /// No usable address.
    #[error("node {from} introduced itself with a bad address: {error}")]
    Address {
        /// The refused node.
        from: u64,
        /// What is wrong with its address.
        error: AddressError,
    },
}

impl From<HelloError> for Status {
    fn from(error: HelloError) -> Status {
        match error {
            HelloError::Missing | HelloError::Repeated => {
                Status::invalid_argument(error.to_string())
            }
            _ => Status::failed_precondition(error.to_string()),
        }
    }
}

/// What `identity` says to the peer `to`, dialling this address.
pub fn hello(identity: &Identity, to: NodeId, to_address: &str) -> peer::Hello {
    peer::Hello {
        cluster_id: Bytes::copy_from_slice(&identity.cluster.0),
        from: identity.node.0,
        from_address: identity.address.clone(),
        to: to.0,
        protocol_min: *PROTOCOLS.start(),
        protocol_max: *PROTOCOLS.end(),
        to_address: to_address.to_owned(),
    }
}

/// Checks an introduction and returns who it is.
pub(super) fn check_hello(us: &Identity, hello: peer::Hello) -> Result<Member, HelloError> {
    let peer::Hello { cluster_id, from, from_address, to, protocol_min, protocol_max, .. } = hello;
    let node = us.node;
    // First of all: what the other fields mean depends on it.
    if common_protocol(protocol_min..=protocol_max).is_none() {
        return Err(HelloError::Protocol { node, from, min: protocol_min, max: protocol_max });
    }
    if cluster_id[..] != us.cluster.0 && !museum::is_on(Exhibit::IncarnationUnchecked) {
        // Of a wrong length only the beginning: it may be anything.
        let theirs = cluster_id.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        return Err(HelloError::Cluster { node, ours: us.cluster, from, theirs });
    }
    if to != node.0 {
        return Err(HelloError::Receiver { node, to, from });
    }
    if from == 0 {
        return Err(HelloError::ZeroNode);
    }
    if from == node.0 {
        return Err(HelloError::Myself(node));
    }
    check_address(&from_address).map_err(|error| HelloError::Address { from, error })?;
    Ok(Member { id: NodeId(from), address: from_address })
}

/// Whether who introduced itself is who its certificate says, where there are certificates.
pub(super) fn check_proof(
    node: NodeId,
    member: Member,
    proved: Option<ProvedNode>,
) -> Result<Member, HelloError> {
    match proved {
        // The cluster is the hello's and the proof's: both were compared with this node's.
        Some(ProvedNode { node: proved, .. }) if proved != member.id => {
            Err(HelloError::Certificate { node, from: member.id, proved })
        }
        _ => Ok(member),
    }
}

impl HelloError {
    /// Says more, if the other cluster is one that this one was made of: `origin_of` knows as of which entry.
    pub(super) fn explained(
        self,
        origin_of: impl FnOnce(ClusterId) -> Option<Index>,
    ) -> HelloError {
        let HelloError::Cluster { node, ours, from, ref theirs } = self else { return self };
        let Ok(theirs) = theirs.parse::<ClusterId>() else { return self };
        match origin_of(theirs) {
            Some(index) => HelloError::LeftBehind { node, ours, from, theirs, index },
            None => self,
        }
    }
}

/// Whose introduction it is, if that may be a member of another cluster.
pub(super) fn rival(us: &Identity, hello: &peer::Hello) -> Option<Rival> {
    let cluster = ClusterId::try_from(&hello.cluster_id[..]).ok()?;
    let is_possible = cluster != us.cluster
        && (1..=NodeId::HIGHEST.0).contains(&hello.from)
        && check_address(&hello.from_address).is_ok()
        && check_address(&hello.to_address).is_ok();
    is_possible.then(|| Rival {
        cluster,
        node: NodeId(hello.from),
        address: hello.from_address.clone(),
        dialled: hello.to_address.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node: u64) -> Identity {
        Identity { cluster: ClusterId([7; 16]), node: NodeId(node), address: "a:1".to_owned() }
    }

    #[test]
    fn a_fitting_hello_names_the_peer() {
        let hello = hello(&identity(1), NodeId(2), "b:2");
        let member = check_hello(&identity(2), hello).expect("fits");
        assert_eq!(member, Member { id: NodeId(1), address: "a:1".to_owned() });
    }

    #[test]
    fn whoever_speaks_more_versions_speaks_one_of_ours() {
        let wider = peer::Hello {
            protocol_min: 1,
            protocol_max: 99,
            ..hello(&identity(1), NodeId(2), "b:2")
        };
        check_hello(&identity(2), wider).expect("one is ours");
        assert_eq!(common_protocol(1..=99), Some(*PROTOCOLS.end()));
    }

    #[test]
    fn a_hello_that_does_not_fit_is_refused_with_words_that_say_why() {
        let good = || hello(&identity(1), NodeId(2), "b:2");
        let cases = [
            (peer::Hello { protocol_min: 9, protocol_max: 12, ..good() }, "speaks 9..=12"),
            (peer::Hello { protocol_min: 1, protocol_max: 3, ..good() }, "speaks 1..=3"),
            (peer::Hello { protocol_min: 0, protocol_max: 0, ..good() }, "speaks 0..=0"),
            (peer::Hello { protocol_min: 9, protocol_max: 1, ..good() }, "speaks 9..=1"),
            (peer::Hello { cluster_id: Bytes::from_static(&[8; 16]), ..good() }, "cluster 0808"),
            (peer::Hello { cluster_id: Bytes::from_static(&[7; 15]), ..good() }, "cluster 0707"),
            (peer::Hello { cluster_id: Bytes::new(), ..good() }, "to cluster :"),
            (peer::Hello { to: 3, ..good() }, "this is node 2, not node 3"),
            (peer::Hello { from: 0, ..good() }, "node 0"),
            (peer::Hello { from: 2, ..good() }, "cannot be its own peer"),
            (peer::Hello { from_address: String::new(), ..good() }, "bad address"),
            (peer::Hello { from_address: "a\nb:1".to_owned(), ..good() }, "bad address"),
            (peer::Hello { from_address: "x".repeat(1025), ..good() }, "address of 1025 bytes"),
        ];
        for (hello, words) in cases {
            let error = check_hello(&identity(2), hello).expect_err(words);
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(Status::from(error).code(), tonic::Code::FailedPrecondition);
        }
    }

    #[test]
    fn the_certificate_and_the_hello_must_name_the_same_node() {
        let member = |id| Member { id: NodeId(id), address: "a:1".to_owned() };
        let proved = |id| Some(ProvedNode { cluster: ClusterId([7; 16]), node: NodeId(id) });
        let check = |id, proved| check_proof(NodeId(2), member(id), proved);
        assert_eq!(check(1, None), Ok(member(1)), "there are no certificates");
        assert_eq!(check(1, proved(1)), Ok(member(1)));
        let refused = check(1, proved(3)).expect_err("another node");
        assert!(refused.to_string().contains("as node 1, with the certificate of node 3"));
    }

    #[test]
    fn only_who_may_be_a_member_elsewhere_is_a_rival() {
        let us = identity(2);
        let theirs = Identity { cluster: ClusterId([8; 16]), ..identity(1) };
        let good = || hello(&theirs, NodeId(2), "b:2");
        let rival = |hello| super::rival(&us, &hello);
        let expected = Rival {
            cluster: theirs.cluster,
            node: NodeId(1),
            address: "a:1".to_owned(),
            dialled: "b:2".to_owned(),
        };
        assert_eq!(rival(good()), Some(expected));
        assert_eq!(rival(hello(&identity(1), NodeId(2), "b:2")), None, "of this cluster");
        for nonsense in [
            peer::Hello { cluster_id: Bytes::from_static(&[8; 15]), ..good() },
            peer::Hello { from: 0, ..good() },
            peer::Hello { from: u64::MAX, ..good() },
            peer::Hello { from_address: "a\nb:1".to_owned(), ..good() },
            peer::Hello { to_address: "x".repeat(1025), ..good() },
        ] {
            assert_eq!(rival(nonsense.clone()), None, "{nonsense:?}");
        }
    }
}
