//! What one attempt's master is owed: the allocate protocol, without I/O and clocks.
//!
//! A master comes every few seconds with a number and is answered with the next one. It may come
//! twice with the same number, because an answer was lost; then it gets the same answer again. What
//! the core says in between is kept until it is in an answer, and ends of containers until the
//! master has shown, by its next number, that it has read them.
//!
//! A mailbox begins unregistered. When its session with the core ends without a farewell, it is so
//! again, and the master is told to register, which it does by itself with all its asks. When the
//! attempt is over it is over for ever.
//!
//! Source: `ApplicationMasterService`, `RMAppAttemptImpl.pullJustFinishedContainers`.

use std::collections::{BTreeMap, VecDeque};

use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_rm_core::{
    CompletedContainer, Grant, MasterMessage, MasterRegistered, Refusal, UpdatedContainer,
};
use bobbin_types::{AttemptId, ContainerId, NodeId, Resource};
use bytes::Bytes;

use super::asks::{AskBook, StatedAsk, TooManyAsks};
use super::requests::{UpdateError, update_to_wire};

/// Containers, and ends of containers, in one answer; the rest comes with the next one.
const PER_ANSWER_MAX: usize = 10_000;

/// Why a master's call is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallRefused {
    /// The client registers by itself and asks again.
    #[error(
        "AM is not registered for known application attempt: {0} or RM had restarted after AM \
         registered. AM should re-register."
    )]
    NotRegistered(AttemptId),
    #[error("Application Master is already registered : {0}")]
    AlreadyRegistered(AttemptId),
    #[error(
        "Invalid responseId in AllocateRequest from application attempt: {attempt}, expect \
         responseId to be {expected}, but get {got}"
    )]
    ResponseId {
        attempt: AttemptId,
        expected: i32,
        got: i32,
    },
    /// The client ends at once.
    #[error("{attempt} is over: {reason}")]
    Over { attempt: AttemptId, reason: String },
    #[error(transparent)]
    TooManyAsks(#[from] TooManyAsks),
    #[error("{0}")]
    Asks(String),
    #[error("{0}")]
    Label(String),
    #[error("{0}")]
    Blacklist(String),
}

impl From<CallRefused> for RpcException {
    fn from(refused: CallRefused) -> RpcException {
        let class = match &refused {
            CallRefused::NotRegistered(_) => ExceptionClass::ApplicationMasterNotRegistered,
            CallRefused::AlreadyRegistered(_) | CallRefused::ResponseId { .. } => {
                ExceptionClass::InvalidApplicationMasterRequest
            }
            CallRefused::Over { .. } => ExceptionClass::ApplicationAttemptNotFound,
            CallRefused::TooManyAsks(_) | CallRefused::Asks(_) => {
                ExceptionClass::InvalidResourceRequest
            }
            CallRefused::Label(_) => ExceptionClass::InvalidLabelResourceRequest,
            CallRefused::Blacklist(_) => ExceptionClass::InvalidResourceBlacklistRequest,
        };
        RpcException::new(class, refused.to_string())
    }
}

/// What an allocate call is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The last answer was lost: it is given again.
    Again(Bytes),
    Next,
}

/// What an answer holds; the door mints its tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) response_id: i32,
    pub(crate) granted: Vec<Grant>,
    pub(crate) completed: Vec<CompletedContainer>,
    /// Containers of earlier attempts that turned up.
    pub(crate) inherited: Vec<Grant>,
    pub(crate) updated: Vec<UpdatedContainer>,
    pub(crate) update_errors: Vec<UpdateError>,
    /// Nodes of which the master has no token yet.
    pub(crate) nodes: Vec<NodeId>,
    /// The master's own token was signed with an older key.
    pub(crate) rolls_token: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Unregistered,
    /// By this stage the core knows the master's session.
    Registered,
    Over {
        reason: String,
    },
}

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    attempt: AttemptId,
    stage: Stage,
    registered: Option<MasterRegistered>,
    /// Of the last answer; 0 after a registration.
    response_id: i32,
    last: Option<Bytes>,
    granted: VecDeque<Grant>,
    completed: BTreeMap<ContainerId, CompletedContainer>,
    /// In the last answer.
    unacknowledged: BTreeMap<ContainerId, CompletedContainer>,
    /// Ends that the master has read, of which the core has to be told.
    acknowledged: Vec<ContainerId>,
    inherited: Vec<Grant>,
    updated: Vec<UpdatedContainer>,
    update_errors: Vec<UpdateError>,
    /// The call under way is refused, though it was handed to the core.
    refusal: Option<CallRefused>,
    asks: AskBook,
    /// With the generation of the key that its token was signed with.
    nodes_told: BTreeMap<NodeId, i32>,
    /// Of the newest token that the master is known to have.
    token_generation: Option<i32>,
    /// Up to which changes of nodes the master was told.
    node_changes: u64,
    is_finished: bool,
}

/// What an answer depends on beside the mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Of the key that the caller's token was signed with.
    pub(crate) token_generation: i32,
    /// Of the key that signs now.
    pub(crate) generation: i32,
    /// Changes of nodes that are in the answer.
    pub(crate) node_changes: u64,
}

impl Mailbox {
    pub(crate) fn new(attempt: AttemptId) -> Mailbox {
        Mailbox {
            attempt,
            stage: Stage::Unregistered,
            registered: None,
            response_id: 0,
            last: None,
            granted: VecDeque::new(),
            completed: BTreeMap::new(),
            unacknowledged: BTreeMap::new(),
            acknowledged: Vec::new(),
            inherited: Vec::new(),
            updated: Vec::new(),
            update_errors: Vec::new(),
            refusal: None,
            asks: AskBook::default(),
            nodes_told: BTreeMap::new(),
            token_generation: None,
            node_changes: 0,
            is_finished: false,
        }
    }

    /// A registration begins. One that is repeated before any allocate lost its answer.
    ///
    /// # Errors
    /// The master is registered and has been answered, or the attempt is over.
    pub(crate) fn registering(&mut self) -> Result<(), CallRefused> {
        match &self.stage {
            Stage::Over { .. } => return Err(self.over()),
            Stage::Registered if self.last.is_some() || self.is_finished => {
                return Err(CallRefused::AlreadyRegistered(self.attempt));
            }
            Stage::Registered | Stage::Unregistered => {}
        }
        self.stage = Stage::Unregistered;
        self.response_id = 0;
        self.last = None;
        // Nobody has shown that he read them.
        self.completed.append(&mut self.unacknowledged);
        self.asks = AskBook::default();
        self.nodes_told.clear();
        self.update_errors.clear();
        self.refusal = None;
        Ok(())
    }

    /// What the core answered to the registration. `generation` is the one that signs now.
    ///
    /// # Errors
    /// The attempt is over.
    pub(crate) fn register(
        &mut self,
        generation: i32,
    ) -> Result<(MasterRegistered, Vec<NodeId>), CallRefused> {
        match (&self.stage, self.registered.clone()) {
            (Stage::Registered, Some(registered)) => {
                let inherited = &registered.containers_from_previous_attempts;
                let nodes = inherited.iter().map(|grant| &grant.node);
                let nodes = untold(&mut self.nodes_told, nodes, generation);
                Ok((registered, nodes))
            }
            (Stage::Over { .. }, _) => Err(self.over()),
            (Stage::Registered | Stage::Unregistered, _) => {
                Err(CallRefused::NotRegistered(self.attempt))
            }
        }
    }

    /// The core said something to this master.
    pub(crate) fn receive(&mut self, message: MasterMessage) {
        match message {
            MasterMessage::Registered(registered) => {
                self.stage = Stage::Registered;
                self.node_changes = registered.node_changes;
                self.registered = Some(registered);
            }
            MasterMessage::Granted(grants) => {
                for grant in &grants {
                    self.asks.granted(grant);
                }
                self.granted.extend(grants);
            }
            MasterMessage::Completed(completed) => {
                // Said again by the core until it is acknowledged.
                let new = completed
                    .into_iter()
                    .filter(|c| !self.unacknowledged.contains_key(&c.container));
                self.completed.extend(new.map(|c| (c.container, c)));
            }
            MasterMessage::Shutdown { reason } => self.stage = Stage::Over { reason },
            MasterMessage::FinishAcknowledged => self.is_finished = true,
            MasterMessage::AskRefused {
                priority,
                request_id,
                reason,
            } => self.ask_refused(priority, request_id, &reason),
            MasterMessage::BlacklistRefused { reason } => {
                let refused = CallRefused::Blacklist(reason.to_string());
                self.refusal.get_or_insert(refused);
            }
            MasterMessage::Inherited(inherited) => self.inherited.extend(inherited),
            MasterMessage::Updated(updated) => self.updated.extend(updated),
            MasterMessage::UpdateRefused {
                update,
                version,
                reason,
            } => self.update_errors.push(UpdateError {
                request: update_to_wire(&update),
                version,
                reason: reason.to_string(),
            }),
        }
    }

    fn ask_refused(&mut self, priority: i32, request_id: i64, reason: &Refusal) {
        if let Refusal::LargerThanLargestNode { asked, .. } = reason
            && self.was_told_of(asked)
        {
            // The node that could hold it is away: the wish stands.
            self.asks.too_large_now(priority, request_id, **asked);
            return;
        }
        self.asks.refused(priority, request_id);
        let words = reason.to_string();
        let refused = if matches!(reason, Refusal::UnknownLabel(_)) {
            CallRefused::Label(words)
        } else {
            CallRefused::Asks(words)
        };
        self.refusal.get_or_insert(refused);
    }

    /// Whether the master was told, when it registered, that there is something so large; before any
    /// node has registered nobody knows.
    fn was_told_of(&self, size: &Resource) -> bool {
        let told = self.registered.as_ref().map(|told| told.largest_container);
        told.is_some_and(|largest| {
            largest == Resource::default() || largest.checked_sub(size).is_some()
        })
    }

    /// The session with the core has ended; what was said in it was received before.
    pub(crate) fn session_ended(&mut self) {
        if self.stage == Stage::Registered {
            self.stage = if self.is_finished {
                let reason = "it has unregistered".to_owned();
                Stage::Over { reason }
            } else {
                Stage::Unregistered
            };
        }
    }

    /// An allocate call comes with the number of the last answer that the master has read.
    ///
    /// # Errors
    /// It is not registered, the attempt is over, or the number is neither the last nor the one
    /// before.
    pub(crate) fn allocating(&mut self, response_id: i32) -> Result<Turn, CallRefused> {
        self.check_registered()?;
        if response_id == self.response_id {
            let read = std::mem::take(&mut self.unacknowledged);
            self.acknowledged.extend(read.into_keys());
            self.last = None;
            return Ok(Turn::Next);
        }
        match &self.last {
            Some(last) if next(response_id) == self.response_id => Ok(Turn::Again(last.clone())),
            Some(_) | None => Err(CallRefused::ResponseId {
                attempt: self.attempt,
                expected: self.response_id,
                got: response_id,
            }),
        }
    }

    /// # Errors
    /// The master has to register first, or the attempt is over.
    pub(crate) fn check_registered(&self) -> Result<(), CallRefused> {
        match self.stage {
            Stage::Registered => Ok(()),
            Stage::Unregistered => Err(CallRefused::NotRegistered(self.attempt)),
            Stage::Over { .. } => Err(self.over()),
        }
    }

    fn over(&self) -> CallRefused {
        let reason = match &self.stage {
            Stage::Over { reason } => reason.clone(),
            Stage::Unregistered | Stage::Registered => String::new(),
        };
        CallRefused::Over {
            attempt: self.attempt,
            reason,
        }
    }

    /// Takes the asks of a call in and says what the core is to be told of them.
    ///
    /// # Errors
    /// Too many different ones.
    pub(crate) fn state(
        &mut self,
        asks: &[StatedAsk],
    ) -> Result<Vec<bobbin_rm_core::Ask>, CallRefused> {
        self.asks.state(asks, self.granted.iter())?;
        Ok(self.asks.take_changes())
    }

    /// The ends that the master has read since the last time.
    pub(crate) fn take_acknowledged(&mut self) -> Vec<ContainerId> {
        std::mem::take(&mut self.acknowledged)
    }

    /// Updates that are refused before the core hears of them.
    pub(crate) fn refuse_updates(&mut self, errors: Vec<UpdateError>) {
        self.update_errors.extend(errors);
    }

    /// Up to which changes of nodes the master was told.
    pub(crate) fn node_changes(&self) -> u64 {
        self.node_changes
    }

    /// The answer to a call that the core has handled.
    ///
    /// # Errors
    /// The core refused a part of the call; what would have been in the answer is kept.
    pub(crate) fn answer(&mut self, seen: Seen) -> Result<Answer, CallRefused> {
        if let Some(refused) = self.refusal.take() {
            self.update_errors.clear();
            return Err(refused);
        }
        self.check_registered()?;
        let granted = self.granted.len().min(PER_ANSWER_MAX);
        let granted: Vec<Grant> = self.granted.drain(..granted).collect();
        self.unacknowledged = first(&mut self.completed);
        let completed = self.unacknowledged.values().cloned().collect();
        let inherited = std::mem::take(&mut self.inherited);
        let nodes = granted.iter().chain(&inherited).map(|grant| &grant.node);
        let nodes = untold(&mut self.nodes_told, nodes, seen.generation);
        let known = self.token_generation.unwrap_or(seen.token_generation);
        self.token_generation = Some(known.max(seen.generation));
        self.node_changes = seen.node_changes;
        self.response_id = next(self.response_id);
        Ok(Answer {
            response_id: self.response_id,
            granted,
            completed,
            inherited,
            updated: std::mem::take(&mut self.updated),
            update_errors: std::mem::take(&mut self.update_errors),
            nodes,
            rolls_token: known < seen.generation,
        })
    }

    /// The bytes of the last answer, should they be lost.
    pub(crate) fn answered(&mut self, bytes: Bytes) {
        self.last = Some(bytes);
    }

    /// The master's farewell is durable.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// A new mailbox would serve as well: nothing waits in it, and the master is not registered.
    pub(crate) fn is_idle(&self) -> bool {
        match self.stage {
            Stage::Over { .. } => true,
            Stage::Registered => false,
            Stage::Unregistered => {
                self.granted.is_empty()
                    && self.completed.is_empty()
                    && self.unacknowledged.is_empty()
                    && self.inherited.is_empty()
            }
        }
    }
}

/// Source: `AMRMClientUtils.getNextResponseId`.
fn next(response_id: i32) -> i32 {
    response_id.wrapping_add(1) & i32::MAX
}

/// As many as an answer has room for.
fn first(
    from: &mut BTreeMap<ContainerId, CompletedContainer>,
) -> BTreeMap<ContainerId, CompletedContainer> {
    match from.keys().nth(PER_ANSWER_MAX).copied() {
        Some(next) => {
            let rest = from.split_off(&next);
            std::mem::replace(from, rest)
        }
        None => std::mem::take(from),
    }
}

/// The nodes of which the master has no token of this generation; from now on it has.
fn untold<'a>(
    told: &mut BTreeMap<NodeId, i32>,
    nodes: impl Iterator<Item = &'a NodeId>,
    generation: i32,
) -> Vec<NodeId> {
    let mut untold = Vec::new();
    for node in nodes {
        if told.get(node).is_none_or(|known| *known < generation) {
            told.insert(node.clone(), generation);
            untold.push(node.clone());
        }
    }
    untold
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
