//! The service that operators use.

use std::sync::Arc;
use std::time::Duration;

use raft_host_proto::v1::admin_server::Admin;
use raft_host_proto::v1::{self, Reason};
use tonic::{Request, Response, Status, Streaming};

use super::auditing::{Told, Witness};
use super::caller::Caller;
use super::context::Context;
use super::convert::bytes;
use super::copies;
use super::failure::Failure;
use super::members::Members;
use super::report::{receipt_to_wire, way_back_to_wire};
use super::shadow;
use crate::node::MembershipFailure;

/// See `admin.proto`.
#[derive(Clone)]
pub(super) struct AdminService {
    pub(super) context: Arc<Context>,
}

impl AdminService {
    fn caller<T: Told>(&self, request: &Request<T>) -> Caller {
        self.caller_for(request, self.context.request_timeout())
    }

    fn caller_for<T: Told>(&self, request: &Request<T>, timeout: Duration) -> Caller {
        Witness::of(request).hears(request.get_ref());
        Caller::of(request, timeout)
    }

    fn held_modules(&self) -> Result<v1::ModulesResponse, Failure> {
        let view = self.context.handle.machine().borrow().clone();
        let view = view.ok_or(MembershipFailure::NoState)?;
        let modules = view.info.modules.iter().map(|module| v1::ModuleInfo {
            hash: bytes(module.hash.0),
            size_bytes: module.size_bytes,
            label: module.label.clone(),
            active: module.active,
            is_state: module.is_state,
        });
        let history = view.info.history.iter().map(|activation| v1::Activation {
            index: activation.index.0,
            module_hash: bytes(activation.hash.0),
            time_ms: activation.time_ms,
            label: activation.label.clone(),
            signers: activation.signers.iter().map(|key| bytes(key.to_bytes())).collect(),
            by: super::access::named(activation.actor, activation.actor_name),
        });
        Ok(v1::ModulesResponse {
            modules: modules.collect(),
            history: history.collect(),
            receipts: view.info.receipts.iter().map(receipt_to_wire).collect(),
            way_back: view.info.way_back.as_ref().map(way_back_to_wire),
        })
    }

    /// Waits, if that is asked for, until this node has applied all that is committed by now.
    async fn read_at(&self, caller: &Caller, linearizable: bool) -> Result<(), Failure> {
        match linearizable {
            true => caller.within_question(self.context.after_all_committed()).await,
            false => Ok(()),
        }
    }

    async fn snapshot(
        &self,
        request: v1::TakeSnapshotRequest,
    ) -> Result<v1::TakeSnapshotResponse, Failure> {
        self.context.check_group(&request.group)?;
        let taken = self.context.handle.take_snapshot().await;
        let meta = taken.map_err(|words| Failure::none(Reason::SnapshotRefused, words))?;
        Ok(v1::TakeSnapshotResponse {
            index: meta.index.0,
            term: meta.term.0,
            size_bytes: meta.size_bytes,
        })
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(
            caller.within(super::status::show(&self.context, request.into_inner())).await?,
        ))
    }

    async fn members(
        &self,
        request: Request<v1::MembersRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        let caller = self.caller(&request);
        let request = request.into_inner();
        self.context.check_group(&request.group)?;
        self.read_at(&caller, request.linearizable).await?;
        Ok(Response::new(Members(&self.context).list()?))
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(Members(&self.context).add(&caller, request.into_inner()).await?))
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(Members(&self.context).promote(&caller, request.into_inner()).await?))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(Members(&self.context).remove(&caller, request.into_inner()).await?))
    }

    async fn demote_member(
        &self,
        request: Request<v1::DemoteMemberRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(Members(&self.context).demote(&caller, request.into_inner()).await?))
    }

    async fn replace_member(
        &self,
        request: Request<v1::ReplaceMemberRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(Members(&self.context).replace(&caller, request.into_inner()).await?))
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(Members(&self.context).transfer(&caller, request.into_inner()).await?))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        let caller = self.caller(&request);
        let members = Members(&self.context);
        Ok(Response::new(caller.within(members.drain(request.into_inner())).await?))
    }

    async fn upgrade(
        &self,
        request: Request<Streaming<v1::UpgradeRequest>>,
    ) -> Result<Response<v1::UpgradeResponse>, Status> {
        let timeout = Duration::from_millis(self.context.config.upgrade_timeout_ms);
        let (caller, witness) = (Caller::of(&request, timeout), Witness::of(&request));
        let hear = |header: &v1::UpgradeHeader| witness.hears(header);
        let upgrading = super::upgrade::run(&self.context, &caller, request.into_inner(), hear);
        let response = caller.within(upgrading).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn modules(
        &self,
        request: Request<v1::ModulesRequest>,
    ) -> Result<Response<v1::ModulesResponse>, Status> {
        let caller = self.caller(&request);
        let request = request.into_inner();
        self.context.check_group(&request.group)?;
        self.read_at(&caller, request.linearizable).await?;
        Ok(Response::new(self.held_modules()?))
    }

    async fn limits(
        &self,
        request: Request<v1::LimitsRequest>,
    ) -> Result<Response<v1::LimitsResponse>, Status> {
        let caller = self.caller(&request);
        let request = request.into_inner();
        self.context.check_group(&request.group)?;
        self.read_at(&caller, request.linearizable).await?;
        Ok(Response::new(super::limits::show(&self.context)?))
    }

    async fn set_limits(
        &self,
        request: Request<v1::SetLimitsRequest>,
    ) -> Result<Response<v1::SetLimitsResponse>, Status> {
        let (caller, witness) = (self.caller(&request), Witness::of(&request));
        let setting = super::limits::set(&self.context, &caller, request.into_inner());
        let response = caller.within(setting).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn keys(
        &self,
        request: Request<v1::KeysRequest>,
    ) -> Result<Response<v1::KeysResponse>, Status> {
        self.context.check_group(&request.get_ref().group)?;
        Ok(Response::new(super::keys::show(&self.context)?))
    }

    async fn stage_module(
        &self,
        request: Request<Streaming<v1::UpgradeRequest>>,
    ) -> Result<Response<v1::StageModuleResponse>, Status> {
        let timeout = Duration::from_millis(self.context.config.upgrade_timeout_ms);
        let (caller, witness) = (Caller::of(&request, timeout), Witness::of(&request));
        let hear = |header: &v1::UpgradeHeader| witness.hears(header);
        let staging = super::stage::run(&self.context, &caller, request.into_inner(), hear);
        Ok(Response::new(caller.within(staging).await?))
    }

    async fn rehearse(
        &self,
        request: Request<v1::RehearseRequest>,
    ) -> Result<Response<v1::RehearseResponse>, Status> {
        let timeout = Duration::from_millis(self.context.config.upgrade_timeout_ms);
        let (caller, witness) = (self.caller_for(&request, timeout), Witness::of(&request));
        let rehearsing = super::rehearse::run(&self.context, &caller, request.into_inner());
        let response = caller.within(rehearsing).await?;
        Ok(witness.answer(response, |response| response.receipt))
    }

    type ShadowStream = shadow::Shadows;

    async fn shadow(
        &self,
        request: Request<v1::ShadowRequest>,
    ) -> Result<Response<Self::ShadowStream>, Status> {
        let timeout = Duration::from_millis(self.context.config.upgrade_timeout_ms);
        let caller = self.caller_for(&request, timeout);
        Ok(Response::new(shadow::run(&self.context, &caller, request.into_inner()).await?))
    }

    async fn query_at(
        &self,
        request: Request<v1::QueryAtRequest>,
    ) -> Result<Response<v1::QueryAtResponse>, Status> {
        let timeout = Duration::from_millis(self.context.config.upgrade_timeout_ms);
        let caller = self.caller_for(&request, timeout);
        let asking = super::travel::ask(&self.context, &caller, request.into_inner());
        Ok(Response::new(asking.await?))
    }

    async fn activate(
        &self,
        request: Request<v1::ActivateRequest>,
    ) -> Result<Response<v1::UpgradeResponse>, Status> {
        let timeout = Duration::from_millis(self.context.config.upgrade_timeout_ms);
        let (caller, witness) = (self.caller_for(&request, timeout), Witness::of(&request));
        let activating = super::activate::run(&self.context, &caller, request.into_inner());
        let response = caller.within(activating).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn confirm_upgrade(
        &self,
        request: Request<v1::ConfirmUpgradeRequest>,
    ) -> Result<Response<v1::ConfirmUpgradeResponse>, Status> {
        let (caller, witness) = (self.caller(&request), Witness::of(&request));
        let confirming = super::activate::confirm(&self.context, &caller, request.into_inner());
        let response = caller.within(confirming).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn set_keys(
        &self,
        request: Request<v1::SetKeysRequest>,
    ) -> Result<Response<v1::SetKeysResponse>, Status> {
        let (caller, witness) = (self.caller(&request), Witness::of(&request));
        let setting = super::keys::set(&self.context, &caller, request.into_inner());
        let response = caller.within(setting).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn set_engine(
        &self,
        request: Request<v1::SetEngineRequest>,
    ) -> Result<Response<v1::SetEngineResponse>, Status> {
        let (caller, witness) = (self.caller(&request), Witness::of(&request));
        let setting = super::limits::set_engine(&self.context, &caller, request.into_inner());
        let response = caller.within(setting).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn raise_level(
        &self,
        request: Request<v1::RaiseLevelRequest>,
    ) -> Result<Response<v1::RaiseLevelResponse>, Status> {
        let (caller, witness) = (self.caller(&request), Witness::of(&request));
        let raising = super::level::raise(&self.context, &caller, request.into_inner());
        let response = caller.within(raising).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn set_clock(
        &self,
        request: Request<v1::SetClockRequest>,
    ) -> Result<Response<v1::SetClockResponse>, Status> {
        let (caller, witness) = (self.caller(&request), Witness::of(&request));
        let setting = super::clock::set(&self.context, &caller, request.into_inner());
        let response = caller.within(setting).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn digest(
        &self,
        request: Request<v1::DigestRequest>,
    ) -> Result<Response<v1::DigestResponse>, Status> {
        let patience = super::digest::patience(&self.context);
        let caller = self.caller_for(&request, patience);
        let comparing = super::digest::compare(&self.context, &caller, request.into_inner());
        Ok(Response::new(caller.within(comparing).await?))
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmResponse>, Status> {
        let caller = self.caller(&request);
        let confirming = super::cluster::confirm(&self.context, request.into_inner());
        Ok(Response::new(caller.within(confirming).await?))
    }

    async fn access(
        &self,
        request: Request<v1::AccessRequest>,
    ) -> Result<Response<v1::AccessResponse>, Status> {
        let caller = self.caller(&request);
        let request = request.into_inner();
        self.context.check_group(&request.group)?;
        self.read_at(&caller, request.linearizable).await?;
        Ok(Response::new(super::access::show(&self.context)?))
    }

    async fn set_access(
        &self,
        request: Request<v1::SetAccessRequest>,
    ) -> Result<Response<v1::SetAccessResponse>, Status> {
        let (caller, witness) = (self.caller(&request), Witness::of(&request));
        let setting = super::access::set(&self.context, &caller, request.into_inner());
        let response = caller.within(setting).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let (caller, witness) = (self.caller(&request), Witness::of(&request));
        let making = super::access::create_token(&self.context, &caller, request.into_inner());
        let response = caller.within(making).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        let (caller, witness) = (self.caller(&request), Witness::of(&request));
        let making = super::join_tokens::create(&self.context, &caller, request.into_inner());
        let response = caller.within(making).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn revoke_join_token(
        &self,
        request: Request<v1::RevokeJoinTokenRequest>,
    ) -> Result<Response<v1::RevokeJoinTokenResponse>, Status> {
        let (caller, witness) = (self.caller(&request), Witness::of(&request));
        let revoking = super::join_tokens::revoke(&self.context, &caller, request.into_inner());
        let response = caller.within(revoking).await?;
        Ok(witness.answer(response, |response| response.index))
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(super::access::who(&self.context, &caller, &request.into_inner())?))
    }

    type BackupStream = copies::Backups;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let caller = self.caller(&request);
        let request = request.into_inner();
        Ok(Response::new(copies::back_up(&self.context, &caller, request).await?))
    }

    type ExportStream = copies::Exports;

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(copies::export(&self.context, &caller, request.into_inner()).await?))
    }

    async fn take_snapshot(
        &self,
        request: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotResponse>, Status> {
        let (caller, witness) = (self.caller(&request), Witness::of(&request));
        let response = caller.within(self.snapshot(request.into_inner())).await?;
        Ok(witness.answer(response, |response| response.index))
    }
}
