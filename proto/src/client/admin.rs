//! What operators ask for.

use bytes::Bytes;
use sha2::Digest as _;
use tonic::Streaming;

use super::retry::{Repeat, Timed};
use super::{Client, ClientError};
use crate::v1::admin_client::AdminClient;
use crate::{MESSAGE_MAX_BYTES, v1};

/// How much of a module goes into one message.
const UPGRADE_PART_BYTES: usize = 512 << 10;

/// How a module is to become active.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpgradeOptions {
    /// What it is to replace, from [`Client::incumbent`]; `None`: there is no module yet.
    pub replaces: Option<v1::Incumbent>,
    /// The state is given up and the module's `init` runs, as in a new cluster.
    pub discard_state: bool,
    /// Of publishers, at most 16, if the cluster asks for them.
    pub signatures: Vec<v1::ModuleSignature>,
}

/// One admin call; the request gets the client's group.
macro_rules! admin_call {
    ($client:ident, $repeat:expr, $method:ident, $request:ident { $($field:ident),* }) => {{
        let request = v1::$request { group: $client.options.group.clone(), $($field),* };
        $client.call($repeat, $client.options.admin_deadline, |channel| {
            let request = request.clone();
            async move { admin(channel).$method(request).await }
        })
        .await
    }};
}

/// Admin calls. Those that change something are repeated only when they surely had no effect,
/// unless they say otherwise.
impl Client {
    /// The view of the node that answers. Of whatever cluster it is, while the client has none.
    ///
    /// # Errors
    ///
    /// When no node answered in time.
    pub async fn status(&self) -> Result<v1::StatusResponse, ClientError> {
        self.ask_anybody(self.options.deadline, |channel| async move {
            admin(channel).status(v1::StatusRequest::default()).await
        })
        .await
    }

    /// Says that the cluster of the node that answers is meant to be, although another cluster has a
    /// member with that node's address; [`ClientOptions::cluster`](super::ClientOptions::cluster) is
    /// to name it.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`] when the options name no cluster; else when no node of it could do
    /// that.
    pub async fn confirm_cluster(&self) -> Result<v1::ConfirmResponse, ClientError> {
        let Some(cluster) = self.options.cluster else {
            let words = "which cluster is meant to be? The client's options must name it";
            return Err(ClientError::Invalid(words.to_owned()));
        };
        self.call(Repeat::Always, self.options.deadline, |channel| async move {
            let request = v1::ConfirmRequest { cluster_id: cluster.to_bytes() };
            admin(channel).confirm(request).await
        })
        .await
    }

    /// The members, as the node that answers has applied them. Of whatever cluster it is, while the
    /// client has none.
    ///
    /// # Errors
    ///
    /// When no node answered in time.
    pub async fn members(&self) -> Result<v1::MembersResponse, ClientError> {
        let request = v1::MembersRequest { group: self.options.group.clone(), linearizable: false };
        self.ask_anybody(self.options.deadline, |channel| {
            let request = request.clone();
            async move { admin(channel).members(request).await }
        })
        .await
    }

    /// Adds a learner; `node_id` 0 lets the leader draw one.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn add_member(
        &self,
        node_id: u64,
        address: &str,
    ) -> Result<v1::AddMemberResponse, ClientError> {
        let address = address.to_owned();
        admin_call!(self, Repeat::WithoutEffect, add_member, AddMemberRequest { node_id, address })
    }

    /// Turns a learner that has caught up into a voter.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn promote_member(&self, node_id: u64) -> Result<v1::MembersResponse, ClientError> {
        let when_stable = false;
        admin_call!(
            self,
            Repeat::WithoutEffect,
            promote_member,
            PromoteMemberRequest { node_id, when_stable }
        )
    }

    /// Removes a member.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn remove_member(&self, node_id: u64) -> Result<v1::MembersResponse, ClientError> {
        self.remove(node_id, false).await
    }

    /// Removes a member even if no majority of the voters that stay has been heard from recently.
    /// If they do not come back, the cluster never serves again.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn force_remove_member(
        &self,
        node_id: u64,
    ) -> Result<v1::MembersResponse, ClientError> {
        self.remove(node_id, true).await
    }

    async fn remove(&self, node_id: u64, force: bool) -> Result<v1::MembersResponse, ClientError> {
        admin_call!(
            self,
            Repeat::WithoutEffect,
            remove_member,
            RemoveMemberRequest { node_id, force }
        )
    }

    /// Makes a voter a learner; `force`: even if no majority of the voters that stay has been heard
    /// from recently.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn demote_member(
        &self,
        node_id: u64,
        force: bool,
    ) -> Result<v1::MembersResponse, ClientError> {
        admin_call!(
            self,
            Repeat::WithoutEffect,
            demote_member,
            DemoteMemberRequest { node_id, force }
        )
    }

    /// Removes a member and has a learner vote in its place; `force` as for
    /// [`Client::demote_member`].
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn replace_member(
        &self,
        node_id: u64,
        successor_id: u64,
        force: bool,
    ) -> Result<v1::MembersResponse, ClientError> {
        admin_call!(
            self,
            Repeat::WithoutEffect,
            replace_member,
            ReplaceMemberRequest { node_id, successor_id, force }
        )
    }

    /// Hands leadership to `node_id`; 0: to the most up-to-date voter. A transfer that fails is not
    /// tried again, since each takes no commands meanwhile.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn transfer_leadership(
        &self,
        node_id: u64,
    ) -> Result<v1::TransferLeadershipResponse, ClientError> {
        admin_call!(
            self,
            Repeat::WithoutEffect,
            transfer_leadership,
            TransferLeadershipRequest { node_id }
        )
    }

    /// Takes the node that answers off duty, for maintenance: it hands leadership over, does not lead while
    /// others can, and is not ready for clients. A restart of the node forgets it. The client's endpoints are
    /// to be that node's only.
    ///
    /// # Errors
    ///
    /// When nobody takes leadership over, or the node did not answer in time.
    pub async fn drain(&self) -> Result<v1::DrainResponse, ClientError> {
        let undrain = false;
        admin_call!(self, Repeat::WithoutEffect, drain, DrainRequest { undrain })
    }

    /// Puts the node that answers back on duty, after [`Client::drain`].
    ///
    /// # Errors
    ///
    /// When the node did not answer in time.
    pub async fn undrain(&self) -> Result<v1::DrainResponse, ClientError> {
        let undrain = true;
        admin_call!(self, Repeat::Always, drain, DrainRequest { undrain })
    }

    /// Uploads a module and makes it active in the place of what is active now. `label` is for
    /// people, usually the file's name.
    ///
    /// Each call decides anew what is to be replaced. Whoever may repeat a call decides once, with
    /// [`Client::incumbent`], and calls [`Client::upgrade_from`].
    ///
    /// # Errors
    ///
    /// When the module is refused, somebody else activates one meanwhile, or the cluster cannot do
    /// it.
    pub async fn upgrade(
        &self,
        module: impl Into<Bytes>,
        label: &str,
    ) -> Result<v1::UpgradeResponse, ClientError> {
        let replaces = self.incumbent().await?;
        let options = UpgradeOptions { replaces, ..UpgradeOptions::default() };
        self.upgrade_from(options, module, label).await
    }

    /// The module that is active after all that is committed by now.
    ///
    /// # Errors
    ///
    /// When no leader answered in time.
    pub async fn incumbent(&self) -> Result<Option<v1::Incumbent>, ClientError> {
        let modules = self.held_modules(true).await?;
        Ok(modules.history.last().map(|active| v1::Incumbent {
            module_hash: active.module_hash.clone(),
            activated_at: active.index,
        }))
    }

    /// Uploads a module and makes it active if what the options name is active then. May be
    /// repeated: it never undoes what came after it.
    ///
    /// # Errors
    ///
    /// When the module is refused, something else is active, or the cluster cannot do it.
    pub async fn upgrade_from(
        &self,
        options: UpgradeOptions,
        module: impl Into<Bytes>,
        label: &str,
    ) -> Result<v1::UpgradeResponse, ClientError> {
        let UpgradeOptions { replaces, discard_state, signatures } = options;
        let module = module.into();
        let header = v1::UpgradeHeader {
            group: self.options.group.clone(),
            module_hash: sha2::Sha256::digest(&module).to_vec().into(),
            total_bytes: module.len() as u64,
            label: label.to_owned(),
            replaces,
            discard_state,
            signatures,
            is_state: false,
        };
        self.call(Repeat::WithoutEffect, self.options.admin_deadline, |channel| {
            let parts = upgrade_parts(header.clone(), module.clone());
            async move { admin(channel).upgrade(tokio_stream::iter(parts)).await }
        })
        .await
    }

    /// Uploads a module without activating it: the cluster checks it, and every node compiles it. Which voters have
    /// done that, the answer says.
    ///
    /// # Errors
    ///
    /// When the module is refused, or the cluster cannot do it.
    pub async fn stage(
        &self,
        module: impl Into<Bytes>,
    ) -> Result<v1::StageModuleResponse, ClientError> {
        self.stage_what(module.into(), v1::UpgradeHeader::default()).await
    }

    /// As [`Client::stage`], of a module that is to be activated under this label: one that lacks signatures for
    /// that is not brought in.
    ///
    /// # Errors
    ///
    /// As for [`Client::stage`].
    pub async fn stage_to_activate(
        &self,
        module: impl Into<Bytes>,
        label: &str,
        signatures: Vec<v1::ModuleSignature>,
    ) -> Result<v1::StageModuleResponse, ClientError> {
        let label = label.to_owned();
        let header = v1::UpgradeHeader { label, signatures, ..v1::UpgradeHeader::default() };
        self.stage_what(module.into(), header).await
    }

    /// As [`Client::stage`], of the portable state that an export holds, for an activation that begins with it.
    ///
    /// # Errors
    ///
    /// When it is too long, or the cluster cannot do it.
    pub async fn stage_state(
        &self,
        state: impl Into<Bytes>,
    ) -> Result<v1::StageModuleResponse, ClientError> {
        let header = v1::UpgradeHeader { is_state: true, ..v1::UpgradeHeader::default() };
        self.stage_what(state.into(), header).await
    }

    async fn stage_what(
        &self,
        bytes: Bytes,
        header: v1::UpgradeHeader,
    ) -> Result<v1::StageModuleResponse, ClientError> {
        let header = v1::UpgradeHeader {
            group: self.options.group.clone(),
            module_hash: sha2::Sha256::digest(&bytes).to_vec().into(),
            total_bytes: bytes.len() as u64,
            ..header
        };
        // Parts that are there already change nothing.
        self.call(Repeat::Patiently, self.options.admin_deadline, |channel| {
            let parts = upgrade_parts(header.clone(), bytes.clone());
            async move { admin(channel).stage_module(tokio_stream::iter(parts)).await }
        })
        .await
    }

    /// Tries a module that the cluster holds on the cluster's own history. The request's group is the client's.
    ///
    /// # Errors
    ///
    /// When it cannot be tried: see the reason. What differs is no error.
    pub async fn rehearse(
        &self,
        request: v1::RehearseRequest,
    ) -> Result<v1::RehearseResponse, ClientError> {
        let request = v1::RehearseRequest { group: self.options.group.clone(), ..request };
        // It changes nothing, and one receipt more does no harm.
        self.call(Repeat::Patiently, self.options.admin_deadline, |channel| {
            let request = request.clone();
            async move { admin(channel).rehearse(request).await }
        })
        .await
    }

    /// Runs a module that the cluster holds beside the active one, and compares. The request's group is the client's.
    /// The last message says so; dropping the stream ends it everywhere.
    ///
    /// # Errors
    ///
    /// When it cannot begin: see the reason.
    pub async fn shadow(
        &self,
        request: v1::ShadowRequest,
    ) -> Result<Streaming<v1::ShadowProgress>, ClientError> {
        let request = v1::ShadowRequest { group: self.options.group.clone(), ..request };
        self.call(Repeat::Patiently, self.options.admin_deadline, |channel| {
            let request = request.clone();
            async move { admin(channel).shadow(request).await }
        })
        .await
    }

    /// Asks the state machine as it was after the entry at `index`, or after one of its commands: from what the node
    /// that answers retains.
    ///
    /// # Errors
    ///
    /// When the position is too old or not there yet, or no node answered in time.
    pub async fn query_at(
        &self,
        query: impl Into<Bytes>,
        index: u64,
        ordinal: Option<u32>,
    ) -> Result<v1::QueryAtResponse, ClientError> {
        let query = query.into();
        admin_call!(self, Repeat::Patiently, query_at, QueryAtRequest { query, index, ordinal })
    }

    /// Activates a module that the cluster holds, or goes back to the one before. The request's group is the
    /// client's. May be repeated: it never undoes what came after it.
    ///
    /// # Errors
    ///
    /// When the module does not take over, something else is active, or the cluster cannot do it.
    pub async fn activate(
        &self,
        request: v1::ActivateRequest,
    ) -> Result<v1::UpgradeResponse, ClientError> {
        let request = v1::ActivateRequest { group: self.options.group.clone(), ..request };
        self.call(Repeat::WithoutEffect, self.options.admin_deadline, |channel| {
            let request = request.clone();
            async move { admin(channel).activate(request).await }
        })
        .await
    }

    /// Drops what is kept for a way back from the activation at this index, which is to be the last one.
    ///
    /// # Errors
    ///
    /// When another activation is the last one, or the cluster cannot do it.
    pub async fn confirm_upgrade(
        &self,
        activated_at: u64,
    ) -> Result<v1::ConfirmUpgradeResponse, ClientError> {
        admin_call!(
            self,
            Repeat::WithoutEffect,
            confirm_upgrade,
            ConfirmUpgradeRequest { activated_at }
        )
    }

    /// The modules that the group holds, and the history of activations.
    ///
    /// # Errors
    ///
    /// When no node answered in time.
    pub async fn modules(&self) -> Result<v1::ModulesResponse, ClientError> {
        self.held_modules(false).await
    }

    /// The same, after all that is committed by now.
    ///
    /// # Errors
    ///
    /// When no leader answered in time.
    pub async fn modules_now(&self) -> Result<v1::ModulesResponse, ClientError> {
        self.held_modules(true).await
    }

    async fn held_modules(&self, linearizable: bool) -> Result<v1::ModulesResponse, ClientError> {
        let request = v1::ModulesRequest { group: self.options.group.clone(), linearizable };
        self.call(Repeat::Always, self.options.deadline, |channel| {
            let request = request.clone();
            async move { admin(channel).modules(request).await }
        })
        .await
    }

    /// The budgets of the guest, as the node that answers has applied them.
    ///
    /// # Errors
    ///
    /// When no node answered in time.
    pub async fn limits(&self) -> Result<v1::LimitsResponse, ClientError> {
        let request = v1::LimitsRequest { group: self.options.group.clone(), linearizable: false };
        self.call(Repeat::Always, self.options.deadline, |channel| {
            let request = request.clone();
            async move { admin(channel).limits(request).await }
        })
        .await
    }

    /// Changes budgets of the guest; those that are not named keep their values.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn set_limits(
        &self,
        changes: Vec<v1::limit_change::Limit>,
    ) -> Result<v1::SetLimitsResponse, ClientError> {
        let changes: Vec<v1::LimitChange> =
            changes.into_iter().map(|limit| v1::LimitChange { limit: Some(limit) }).collect();
        admin_call!(self, Repeat::WithoutEffect, set_limits, SetLimitsRequest { changes })
    }

    /// Whose signatures modules need, as the node that answers has applied it.
    ///
    /// # Errors
    ///
    /// When no node answered in time.
    pub async fn keys(&self) -> Result<v1::KeysResponse, ClientError> {
        let request = v1::KeysRequest { group: self.options.group.clone() };
        self.call(Repeat::Always, self.options.deadline, |channel| {
            let request = request.clone();
            async move { admin(channel).keys(request).await }
        })
        .await
    }

    /// Changes whose signatures modules need: all of the changes or none, in order.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn set_keys(
        &self,
        changes: Vec<v1::key_change::Change>,
    ) -> Result<v1::SetKeysResponse, ClientError> {
        let changes: Vec<v1::KeyChange> =
            changes.into_iter().map(|change| v1::KeyChange { change: Some(change) }).collect();
        admin_call!(self, Repeat::WithoutEffect, set_keys, SetKeysRequest { changes })
    }

    /// Changes the engine profile. Nodes whose program does not offer it stop; `confirmed` says
    /// that this is known.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn set_engine(
        &self,
        profile: &str,
        confirmed: bool,
    ) -> Result<v1::SetEngineResponse, ClientError> {
        let profile = profile.to_owned();
        admin_call!(
            self,
            Repeat::WithoutEffect,
            set_engine,
            SetEngineRequest { profile, confirmed }
        )
    }

    /// Raises the level; `None`: to the highest that all members offer.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn raise_level(
        &self,
        level: Option<u32>,
    ) -> Result<v1::RaiseLevelResponse, ClientError> {
        admin_call!(self, Repeat::WithoutEffect, raise_level, RaiseLevelRequest { level })
    }

    /// Puts the log's clock forward, to milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it; the clock is never put back.
    pub async fn set_clock(&self, time_ms: u64) -> Result<v1::SetClockResponse, ClientError> {
        admin_call!(self, Repeat::WithoutEffect, set_clock, SetClockRequest { time_ms })
    }

    /// Who may do what, after all that is committed by now.
    ///
    /// # Errors
    ///
    /// When no node could answer in time.
    pub async fn access(&self) -> Result<v1::AccessResponse, ClientError> {
        let linearizable = true;
        admin_call!(self, Repeat::Always, access, AccessRequest { linearizable })
    }

    /// Changes who may do what, all or none.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn set_access(
        &self,
        changes: Vec<v1::AccessChange>,
    ) -> Result<v1::SetAccessResponse, ClientError> {
        admin_call!(self, Repeat::WithoutEffect, set_access, SetAccessRequest { changes })
    }

    /// Makes a token, whose secret only the answer holds. With roles its principal is made, too.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn create_token(
        &self,
        principal: &str,
        roles: Vec<String>,
        ttl_ms: u64,
        note: &str,
    ) -> Result<v1::CreateTokenResponse, ClientError> {
        let (principal, note) = (principal.to_owned(), note.to_owned());
        admin_call!(
            self,
            Repeat::WithoutEffect,
            create_token,
            CreateTokenRequest { principal, roles, ttl_ms, note }
        )
    }

    /// Makes a token by which one node without a certificate gets into the cluster. Only the answer has it.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn create_join_token(
        &self,
        ttl_ms: u64,
        note: &str,
    ) -> Result<v1::CreateJoinTokenResponse, ClientError> {
        let note = note.to_owned();
        admin_call!(
            self,
            Repeat::WithoutEffect,
            create_join_token,
            CreateJoinTokenRequest { ttl_ms, note }
        )
    }

    /// Ends a token by which a node was to get into the cluster.
    ///
    /// # Errors
    ///
    /// When the cluster refuses or cannot do it.
    pub async fn revoke_join_token(
        &self,
        id: u64,
    ) -> Result<v1::RevokeJoinTokenResponse, ClientError> {
        admin_call!(self, Repeat::WithoutEffect, revoke_join_token, RevokeJoinTokenRequest { id })
    }

    /// Who the node that answers takes this client for.
    ///
    /// # Errors
    ///
    /// When no node answered in time.
    pub async fn who_am_i(&self) -> Result<v1::WhoAmIResponse, ClientError> {
        admin_call!(self, Repeat::Always, who_am_i, WhoAmIRequest {})
    }

    /// Takes a snapshot on the node that answers, and compacts its log.
    ///
    /// # Errors
    ///
    /// When the node cannot do it.
    pub async fn take_snapshot(&self) -> Result<v1::TakeSnapshotResponse, ClientError> {
        admin_call!(self, Repeat::WithoutEffect, take_snapshot, TakeSnapshotRequest {})
    }

    /// A backup of the state of the node that answers: the data of all messages together is the file,
    /// which ends with its SHA-256. Each message is waited for by itself.
    ///
    /// # Errors
    ///
    /// When the node cannot make a copy now.
    pub async fn back_up(&self) -> Result<Streaming<v1::BackupResponse>, ClientError> {
        admin_call!(self, Repeat::WithoutEffect, backup, BackupRequest {})
    }

    /// What a copy of the guest of the node that answers writes as its own snapshot: what it is of,
    /// and then the data.
    ///
    /// # Errors
    ///
    /// When the node cannot make a copy now, or the guest no snapshot.
    pub async fn export(&self) -> Result<Streaming<v1::ExportResponse>, ClientError> {
        admin_call!(self, Repeat::WithoutEffect, export, ExportRequest {})
    }

    /// Has every node digest its state at one index, and says what they found.
    ///
    /// # Errors
    ///
    /// When no leader is there, or too few nodes answer it in time.
    pub async fn compare_digests(&self) -> Result<v1::DigestResponse, ClientError> {
        // Once more does no harm, as it changes nothing; but all nodes would have to answer anew.
        admin_call!(self, Repeat::Patiently, digest, DigestRequest {})
    }
}

fn upgrade_parts(
    header: v1::UpgradeHeader,
    module: Bytes,
) -> impl Iterator<Item = v1::UpgradeRequest> {
    use v1::upgrade_request::Part;
    let ranges = (0..module.len()).step_by(UPGRADE_PART_BYTES);
    let data = ranges.map(move |from| {
        let to = module.len().min(from + UPGRADE_PART_BYTES);
        Part::Data(module.slice(from..to))
    });
    std::iter::once(Part::Header(header))
        .chain(data)
        .map(|part| v1::UpgradeRequest { part: Some(part) })
}

fn admin(channel: Timed) -> AdminClient<Timed> {
    AdminClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES)
}
