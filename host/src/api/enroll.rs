//! `Enroll` and `Admit`: a node that has no certificate gets one, and gets in.
//!
//! ```text
//!   newcomer ──token, key──► any member: is the token known? ─► a member that keeps a CA
//!                                                                  │ Admit
//!                            leader: is it? uses it up (an entry), takes the newcomer in as a learner
//!                                                                  │ its id
//!   newcomer ◄──certificate, CAs── signs it ◄──────────────────────┘
//! ```
//!
//! Whoever has no valid token gets no further than the first look, which is at this node's own state. The secret of
//! the token ends at the member that signs; what is proposed and passed to the leader is its hash.
//!
//! All of it may be done again: the token is known to be used by this newcomer, and the join by its nonce.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use raft_host_proto::peer;
use raft_host_proto::peer::enrollment_server::Enrollment;
use raft_host_proto::v1::Reason;
use tonic::{Code, Request, Response, Status};

use super::auditing::{Told, Witness};
use super::caller::Caller;
use super::context::Context;
use super::convert::bytes;
use super::failure::Failure;
use super::forward::{Forwarder, answered, passed_on};
use super::members::{CHANGE_PATIENCE, Members};
use super::membership::{MembershipService, check_protocol, nonce_of};
use crate::certs;
use crate::certs::Host;
use crate::machine::{AccessRefused, Newcomer, SecretHash};
use crate::node::{Admission, MachineView, MembershipFailure};
use crate::tls::Tls;
use crate::transport::grpc::ProvedNode;
use crate::types::{Actor, Member, NodeId, TokenId};

/// Longest message: a request for a certificate and a few names.
pub(super) const ENROLL_MAX_BYTES: usize = 128 << 10;
/// Most hosts besides that of the address.
const HOSTS_MAX: usize = 8;
/// How long one member may take that is asked whether it signs.
const ASKING: Duration = Duration::from_secs(5);

/// See `peer.proto`.
#[derive(Clone)]
pub(super) struct EnrollmentService {
    pub(super) context: Arc<Context>,
}

/// Who comes in by which token, for the audit.
struct Coming<'a> {
    token: TokenId,
    address: &'a str,
}

impl Told for Coming<'_> {
    fn what(&self) -> String {
        format!("at {} with join token {}", self.address, self.token.0)
    }
}

fn invalid(words: impl ToString) -> Failure {
    Failure::none(Reason::InvalidRequest, words.to_string())
}

fn refused(refused: AccessRefused) -> Failure {
    let reason = match refused {
        AccessRefused::UnknownJoinToken => Reason::JoinTokenUnknown,
        _ => Reason::JoinTokenRefused,
    };
    Failure::none(reason, refused.to_string())
}

fn no_ca(more: &str) -> Failure {
    let words = format!(
        "no member that can be reached keeps a CA, so nobody signs this node's certificate{more}: name one with \
         tls.signing_ca (--tls-signing-ca DIR) on a member, or make the certificate with `raft-host certs node` \
         and start this node with --tls DIR"
    );
    Failure::none(Reason::NoSigningCa, words)
}

fn thirty_two(what: &str, given: &[u8]) -> Result<[u8; 32], Failure> {
    given.try_into().map_err(|_| invalid(format!("{what} must have 32 bytes")))
}

/// Whether another member, or the same one later, may do it.
fn is_passing(reason: Reason) -> bool {
    matches!(reason.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

/// Where a node is dialled, and so what its certificate is for.
fn hosts_of(address: &str, more: &[String]) -> Result<Vec<Host>, Failure> {
    if more.len() > HOSTS_MAX {
        let words = format!("a node has at most {HOSTS_MAX} more hosts than that of its address");
        return Err(invalid(words));
    }
    let (host, _) = address.rsplit_once(':').unwrap_or((address, ""));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut hosts: Vec<Host> = Vec::new();
    for text in std::iter::once(bare).chain(more.iter().map(String::as_str)) {
        let host: Host = text.parse().map_err(invalid)?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

/// A look at what this node has applied.
fn view(context: &Context) -> Result<Arc<MachineView>, Failure> {
    let view = context.handle.machine().borrow().clone();
    Ok(view.ok_or(MembershipFailure::NoState)?)
}

impl EnrollmentService {
    async fn enroll(
        &self,
        caller: &Caller,
        witness: &Witness,
        by_member: bool,
        request: peer::EnrollRequest,
    ) -> Result<peer::EnrollResponse, Failure> {
        let context = &self.context;
        let hash = SecretHash::of(&thirty_two("the secret of a join token", &request.secret)?);
        let join = request.join.clone().unwrap_or_default();
        let tls = context.info.tls.as_ref();
        let tls = tls.ok_or_else(|| no_ca(", and this cluster speaks no TLS"))?;
        if !by_member {
            // Nothing that costs more comes before this.
            let view = view(context)?;
            let found = view.info.access.find_join_token(&hash, context.handle.log_time_ms());
            let (token, _) = found.map_err(refused)?;
            witness.hears(&Coming { token, address: &join.address });
        }
        let wanted = certs::Request::read(&request.request).map_err(invalid)?;
        let nonce = nonce_of(&join)?;
        let newcomer = Newcomer(wanted.newcomer(&nonce.0));
        if !by_member {
            let access = &view(context)?.info.access;
            let now_ms = context.handle.log_time_ms();
            access.check_join_token(&hash, newcomer, now_ms).map_err(refused)?;
        }
        let hosts = hosts_of(&join.address, &request.hosts)?;
        if !tls.is_signing() {
            return match by_member {
                true => Err(no_ca("")),
                false => self.pass_on(caller, &request).await,
            };
        }
        // Whether the CA would, before anything is used up.
        sign(tls, &wanted, NodeId::HIGHEST, &hosts)?;
        let admit = peer::AdmitRequest {
            join: Some(join),
            token: bytes(hash.0),
            newcomer: bytes(newcomer.0),
        };
        // What a member passed on may travel to the leader.
        let own = Caller { forwarded: false, actor: Actor::Nobody, ..*caller };
        let admitted = admit_newcomer(context, &own, admit).await?;
        let signed = sign(tls, &wanted, NodeId(admitted.node_id), &hosts)?;
        tracing::info!(
            node = admitted.node_id,
            "signed the certificate of a node that joins with a token"
        );
        Ok(peer::EnrollResponse {
            cluster_id: admitted.cluster_id,
            node_id: admitted.node_id,
            certificate: signed.certificate,
            ca: signed.trusted,
        })
    }

    /// To the first member that keeps a CA.
    async fn pass_on(
        &self,
        caller: &Caller,
        request: &peer::EnrollRequest,
    ) -> Result<peer::EnrollResponse, Failure> {
        let context = &self.context;
        let me = context.handle.identity().node;
        let members: Vec<Member> = view(context)?.members.values().cloned().collect();
        let mut unreachable = Vec::new();
        for member in members.iter().filter(|member| member.id != me) {
            let patience = caller.remaining().min(ASKING);
            let passed = passed_on(request.clone(), caller, Some(patience));
            let asking = async {
                let mut enrollment = context.forwarder.enrollment(member)?;
                answered(enrollment.enroll(passed).await)
            };
            let answer = tokio::time::timeout(patience, asking).await;
            match answer {
                Ok(Err(failure)) if failure.reason() == Reason::NoSigningCa => {}
                Ok(Err(failure)) if is_passing(failure.reason()) => {
                    tracing::debug!(member = %member.id, reason = failure.message(), "does not sign now");
                    unreachable.push(member.id.to_string());
                }
                Err(_) => unreachable.push(member.id.to_string()),
                Ok(answer) => return answer,
            }
        }
        if unreachable.is_empty() {
            return Err(no_ca(""));
        }
        let words = format!(
            "no member that answers keeps a CA, and some could not be asked (nodes {})",
            unreachable.join(", ")
        );
        Err(Failure::none(Reason::MemberUnreachable, words))
    }
}

fn sign(
    tls: &Tls,
    request: &certs::Request,
    node: NodeId,
    hosts: &[Host],
) -> Result<crate::tls::Signed, Failure> {
    match tls.sign(request, node, hosts, SystemTime::now()) {
        Ok(signed) => signed.ok_or_else(|| no_ca("")),
        Err(error) => Err(no_ca(&format!(" (the CA of the asked node cannot: {error})"))),
    }
}

/// Uses a token up for a newcomer and takes it in as a learner, here or at the leader.
pub(super) async fn admit_newcomer(
    context: &Arc<Context>,
    caller: &Caller,
    request: peer::AdmitRequest,
) -> Result<peer::JoinResponse, Failure> {
    let join = request.join.clone().unwrap_or_default();
    check_protocol(&join)?;
    let hash = SecretHash(thirty_two("the hash of a join token", &request.token)?);
    let newcomer = Newcomer(thirty_two("what a newcomer is known by", &request.newcomer)?);
    let nonce = nonce_of(&join)?;
    let membership = MembershipService { context: Arc::clone(context) };
    let coming = &Admission { hash, newcomer, address: join.address.clone(), nonce };
    let here = || async {
        let token = context.handle.check_admission(coming)?;
        membership.reach(&join.address).await?;
        context.handle.use_token_up(coming, &token).await?;
        let id = membership.enter(None, &join, nonce).await?;
        context.handle.note_newcomer(coming, &token, id).await?;
        let view = Members(context).members_when(|view| view.members.contains_key(&id)).await?;
        Ok(membership.joined(id, view))
    };
    let there = context.forwarder.to_leader(
        caller,
        &request,
        Forwarder::membership,
        |mut membership, request| async move { membership.admit(request).await },
    );
    let patience = context.election_patience() + CHANGE_PATIENCE;
    caller.within(context.on_leader(caller, patience, here, there)).await
}

#[tonic::async_trait]
impl Enrollment for EnrollmentService {
    async fn enroll(
        &self,
        request: Request<peer::EnrollRequest>,
    ) -> Result<Response<peer::EnrollResponse>, Status> {
        let witness = Witness::of(&request);
        let caller = Caller::of(&request, self.context.request_timeout());
        let is_of_node = request.extensions().get::<ProvedNode>().is_some();
        let by_member = caller.forwarded && is_of_node;
        let request = request.into_inner();
        if by_member {
            witness.hears(&request);
        }
        let enrolled = self.enroll(&caller, &witness, by_member, request).await;
        Ok(Response::new(enrolled?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_the_hosts_that_a_node_is_dialled_at_and_few_more() {
        let texts =
            |hosts: Vec<Host>| -> Vec<String> { hosts.iter().map(ToString::to_string).collect() };
        let hosts = hosts_of("[::1]:7400", &["n4.example".to_owned(), "::1".to_owned()]);
        assert_eq!(texts(hosts.expect("hosts")), ["::1", "n4.example"]);
        let bad = hosts_of("10.0.0.1:1", &["a b".to_owned()]).expect_err("no host");
        assert_eq!(bad.reason(), Reason::InvalidRequest);
        let many = vec!["a".to_owned(); HOSTS_MAX + 1];
        assert!(hosts_of("10.0.0.1:1", &many).is_err());
    }
}
