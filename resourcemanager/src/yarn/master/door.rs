//! Who calls the scheduler's door, and which master's mailbox a call is for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::protocol::{MasterMethod, Protocol};
use bobbin_hadoop::server::{
    AuditedCall, Authenticator, Caller, Outcome, Peer, Service, TokenProof,
};
use bobbin_hadoop::wire::decode;
use bobbin_rm_core::{Object, Operation, Principal, may};
use bobbin_types::AttemptId;
use bytes::Bytes;
use prost::Message;

use super::requests::{farewell, registration};
use super::session::Master;
use crate::yarn::YarnDoors;
use crate::yarn::exceptions::denied;

/// Calls of one master that wait for each other; an honest one has one.
const CALLS_PER_MASTER_MAX: usize = 64;
/// Masters are looked through for those that can be forgotten when there are so many, then at each doubling.
const SWEEP_MIN: usize = 64;

/// A proven master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MasterCaller {
    attempt: AttemptId,
    /// Of the key that its token was signed with.
    token_generation: i32,
}

/// Proves masters by their AMRM tokens, and nobody by anything else.
pub(crate) struct MasterDoorman {
    pub(crate) doors: YarnDoors,
}

impl MasterDoorman {
    async fn of_token(&self, identifier: &Bytes) -> Result<TokenProof<MasterCaller>, RpcException> {
        let keys = self.doors.minter.hadoop_keys();
        let (token, password) = keys
            .look_up::<yarn::AmrmTokenIdentifier>(identifier)
            .map_err(|e| invalid(e.to_string()))?;
        let attempt = token
            .app_attempt_id
            .as_ref()
            .ok_or_else(|| invalid("the token names no application attempt".to_owned()))?;
        let attempt = AttemptId::try_from(attempt).map_err(|e| invalid(e.to_string()))?;
        let lives = self
            .doors
            .driver
            .read(move |core| core.attempt_is_live(attempt));
        match lives.await {
            Ok(true) => Ok(TokenProof {
                password: password.to_vec(),
                principal: MasterCaller {
                    attempt,
                    token_generation: token.key_id(),
                },
            }),
            Ok(false) => Err(invalid(format!(
                "{attempt} is over, and its token with it: another attempt follows, or its \
                 application has ended"
            ))),
            // A refusal would end the master for good. The next process answers: this connection
            // is cut any moment now, and the client connects again.
            Err(_) => std::future::pending().await,
        }
    }
}

fn invalid(words: String) -> RpcException {
    RpcException::new(ExceptionClass::InvalidToken, words)
}

impl Authenticator for MasterDoorman {
    type Principal = MasterCaller;

    async fn simple(&self, peer: &Peer) -> Result<MasterCaller, RpcException> {
        // Asked of every connection, also of one that will show its token.
        tracing::debug!(remote = %peer.remote, "without a token it would be refused");
        let words = "SIMPLE authentication is not enabled.  Available:[TOKEN]. An application \
                     master is proven by its AMRM token alone, which is in the container_tokens file \
                     of its container (HADOOP_TOKEN_FILE_LOCATION)";
        Err(RpcException::new(ExceptionClass::AccessControl, words))
    }

    async fn token(
        &self,
        peer: &Peer,
        identifier: &Bytes,
    ) -> Result<TokenProof<MasterCaller>, RpcException> {
        self.of_token(identifier).await.inspect_err(|e| {
            tracing::info!(target: "audit", remote = %peer.remote, result = e.message, "refused");
        })
    }
}

/// One master, and how many of its calls are under way.
struct Entry {
    calls: AtomicUsize,
    master: tokio::sync::Mutex<Master>,
}

/// Counts a call as long as it is under way.
struct Ticket(Arc<Entry>);

impl Ticket {
    fn take(entry: &Arc<Entry>) -> Option<Ticket> {
        let before = entry.calls.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket(Arc::clone(entry));
        (before < CALLS_PER_MASTER_MAX).then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Masters {
    entries: HashMap<AttemptId, Arc<Entry>>,
    /// So many at the last sweep.
    swept: usize,
}

impl Masters {
    /// The attempt's, made if it is new.
    fn of(&mut self, attempt: AttemptId) -> Arc<Entry> {
        if !self.entries.contains_key(&attempt)
            && self.entries.len() >= SWEEP_MIN.max(self.swept * 2)
        {
            // One with a call under way is not over for its caller.
            self.entries
                .retain(|_, entry| entry.master.try_lock().map_or(true, |mut m| !m.is_idle()));
            self.swept = self.entries.len();
        }
        let entry = self.entries.entry(attempt).or_insert_with(|| {
            Arc::new(Entry {
                calls: AtomicUsize::new(0),
                master: tokio::sync::Mutex::new(Master::new(attempt)),
            })
        });
        Arc::clone(entry)
    }
}

/// ApplicationMasterProtocol.
pub(crate) struct MasterService {
    doors: YarnDoors,
    masters: Mutex<Masters>,
}

/// A call that was read, before its master's turn.
enum Request {
    Register(yarn::RegisterApplicationMasterRequest),
    Allocate(yarn::AllocateRequest),
    Finish(yarn::FinishApplicationMasterRequest),
}

impl MasterService {
    pub(crate) fn new(doors: YarnDoors) -> MasterService {
        MasterService {
            doors,
            masters: Mutex::default(),
        }
    }

    fn read(protocol: &str, method: &str, request: Bytes) -> Result<Request, RpcException> {
        if protocol != Protocol::ApplicationMaster.name() {
            let instead = "application masters register, allocate and finish here; clients call \
                           the resource manager's client address (yarn.resourcemanager.address)";
            return Err(RpcException::not_offered(protocol, instead));
        }
        let malformed = |e| RpcException::malformed(method, &e);
        match MasterMethod::from_name(method) {
            Some(MasterMethod::RegisterApplicationMaster) => {
                decode(request).map(Request::Register).map_err(malformed)
            }
            Some(MasterMethod::Allocate) => {
                decode(request).map(Request::Allocate).map_err(malformed)
            }
            Some(MasterMethod::FinishApplicationMaster) => {
                decode(request).map(Request::Finish).map_err(malformed)
            }
            None => Err(RpcException::not_offered(
                method,
                "ApplicationMasterProtocol has registerApplicationMaster, allocate and \
                 finishApplicationMaster",
            )),
        }
    }
}

/// Runs one call to its end, whatever becomes of the connection.
async fn answer(
    doors: YarnDoors,
    ticket: Ticket,
    caller: MasterCaller,
    request: Request,
) -> Result<Bytes, RpcException> {
    let mut master = ticket.0.master.lock().await;
    match request {
        Request::Register(request) => {
            let registration = registration(&request)?;
            let answer = master.register(&doors, registration).await?;
            tracing::info!(target: "audit", attempt = %caller.attempt, "registered");
            Ok(answer)
        }
        Request::Allocate(request) => {
            let generation = caller.token_generation;
            master.allocate(&doors, &request, generation).await
        }
        Request::Finish(request) => {
            let finish = farewell(&request)?;
            let is_unregistered = Some(master.finish(&doors, finish).await?);
            tracing::info!(target: "audit", attempt = %caller.attempt, is_unregistered, "said farewell");
            let response = yarn::FinishApplicationMasterResponse { is_unregistered };
            Ok(Bytes::from(response.encode_to_vec()))
        }
    }
}

impl Service<MasterCaller> for MasterService {
    async fn call(
        &self,
        caller: &Caller<MasterCaller>,
        protocol: &str,
        method: &str,
        request: Bytes,
    ) -> Result<Bytes, RpcException> {
        let request = Self::read(protocol, method, request)?;
        let caller = caller.principal;
        let principal = Principal::Attempt(caller.attempt);
        let object = Object::Attempt(caller.attempt);
        may(&principal, Operation::AttachMaster, &object).map_err(denied)?;
        let entry = {
            let mut masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
            masters.of(caller.attempt)
        };
        let Some(ticket) = Ticket::take(&entry) else {
            let words = format!(
                "{CALLS_PER_MASTER_MAX} calls of {} are under way already: one at a time is enough",
                caller.attempt
            );
            return Err(RpcException::new(ExceptionClass::Yarn, words));
        };
        let answering = tokio::spawn(answer(self.doors.clone(), ticket, caller, request));
        answering.await.unwrap_or_else(|_| {
            let words = "the call was cut off; see the resource manager's log";
            Err(RpcException::new(ExceptionClass::YarnRuntime, words))
        })
    }
    /// What a master is refused is in its own log too; a hostile one must not fill ours.
    fn audit(&self, caller: &Caller<MasterCaller>, call: &AuditedCall<'_>, outcome: Outcome<'_>) {
        let attempt = caller.principal.attempt;
        match outcome {
            Outcome::Refused(exception) => {
                tracing::debug!(target: "audit", %attempt, method = call.method, result = %exception, "refused");
            }
            Outcome::Answered | Outcome::Abandoned => {}
        }
    }
}
