//! What nodes and their groups are started with.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use super::driver::Driver;
use super::inbox::{NodeInbox, Places};
use crate::consensus::ConsensusConfig;
use crate::fsm::SharedLoader;
use crate::node::budget::Budget;
use crate::node::config::NodeConfig;
use crate::node::message::{Mail, Mailbox, Postman};
use crate::node::rivals::Rivals;
use crate::storage::Stores;
use crate::transport::Identity;
use crate::types::{GroupId, Member};

/// All that a node needs.
pub struct NodeOptions {
    /// Who it is.
    pub identity: Identity,
    /// The group it serves.
    pub group: GroupId,
    /// Timing and limits of the node.
    pub config: NodeConfig,
    /// Limits of consensus.
    pub consensus: ConsensusConfig,
    /// Its stores.
    pub stores: Stores,
    /// Runs modules.
    pub loader: SharedLoader,
    /// Members to reach before the machine knows any: what a joining node was told.
    pub introduced: Vec<Member>,
    /// Where to keep a state that went wrong, if anywhere.
    pub evidence: Option<PathBuf>,
}

/// What a further group of a running node needs. All else it has from the node.
pub struct GroupOptions {
    /// Which one.
    pub group: GroupId,
    /// Limits of consensus.
    pub consensus: ConsensusConfig,
    /// Runs modules.
    pub loader: SharedLoader,
    /// Members to reach before the machine knows any.
    pub introduced: Vec<Member>,
    /// Where to keep a state that went wrong, if anywhere.
    pub evidence: Option<PathBuf>,
}

/// The queue into a node that does not run yet.
pub struct NodeChannel {
    pub(super) mail: Mailbox,
    pub(super) driver: Arc<Driver>,
    pub(super) receiver: Receiver<Mail>,
    pub(super) places: Places,
    pub(super) rivals: Arc<Rivals>,
    /// For messages of peers.
    pub(super) inbox: Budget,
}

/// The inbox comes first: a transport needs it, and a node needs a transport.
pub fn channel(config: &NodeConfig) -> (Arc<NodeInbox>, NodeChannel) {
    let (queue, receiver) = mpsc::channel();
    let driver = Arc::<Driver>::default();
    let mail = Mailbox::new(queue, Arc::clone(&driver) as Arc<dyn Postman>);
    let (places, rivals) = (Places::default(), Arc::<Rivals>::default());
    // Whoever dials before the node runs shall find it.
    places.add(GroupId::MAIN);
    let budget = Budget::new(config.max_inbox_bytes);
    let inbox = NodeInbox {
        mail: mail.clone(),
        budget: budget.clone(),
        places: places.clone(),
        rivals: Arc::clone(&rivals),
    };
    (Arc::new(inbox), NodeChannel { mail, driver, receiver, places, rivals, inbox: budget })
}
