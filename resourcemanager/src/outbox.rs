//! Which effects may leave: those that wait for a sync do, and no peer is told things out of order.

use std::collections::{HashMap, VecDeque};

use bobbin_rm_core::{Effect, SessionId};

/// Something that leaves when the records before it are durable.
pub(crate) enum Held {
    Effect(Box<Effect>),
    /// The answer to a question, which may have seen what is not durable yet.
    Answer(Answer),
}

/// Sends an answer that is ready.
pub(crate) type Answer = Box<dyn FnOnce() + Send>;

/// Batches of records are numbered from 1 in the order in which they are appended.
#[derive(Default)]
pub(crate) struct Outbox {
    appended: u64,
    synced: u64,
    /// By batch, oldest first.
    held: VecDeque<(u64, Held)>,
    /// Sessions with something held, and how much.
    sessions: HashMap<SessionId, usize>,
}

impl Outbox {
    /// The number of the batch that is appended next.
    pub(crate) fn next_batch(&self) -> u64 {
        self.appended + 1
    }

    /// That batch was handed to the journal.
    pub(crate) fn appended(&mut self) {
        self.appended += 1;
    }

    /// Hands `effect` back if it may leave now. `after_records`: a record of the batch that is not
    /// appended yet comes before it.
    pub(crate) fn admit(&mut self, effect: Effect, after_records: bool) -> Option<Effect> {
        let batch = self.appended + u64::from(after_records);
        let session = session_of(&effect);
        let behind = session.is_some_and(|session| self.sessions.contains_key(&session));
        if batch <= self.synced || !(effect.needs_sync() || behind) {
            return Some(effect);
        }
        if let Some(session) = session {
            *self.sessions.entry(session).or_default() += 1;
        }
        self.held.push_back((batch, Held::Effect(Box::new(effect))));
        None
    }

    /// Hands the answer back if everything it may have seen is durable.
    pub(crate) fn admit_answer(&mut self, answer: Answer) -> Option<Answer> {
        if self.appended <= self.synced {
            return Some(answer);
        }
        self.held.push_back((self.appended, Held::Answer(answer)));
        None
    }

    /// Everything up to `batch` is durable.
    pub(crate) fn synced(&mut self, batch: u64) {
        self.synced = self.synced.max(batch);
    }

    /// The next one that may leave, in order.
    pub(crate) fn pop(&mut self) -> Option<Held> {
        if self.held.front()?.0 > self.synced {
            return None;
        }
        let (_, held) = self.held.pop_front()?;
        if let Held::Effect(effect) = &held
            && let Some(session) = session_of(effect)
            && let Some(count) = self.sessions.get_mut(&session)
        {
            *count -= 1;
            if *count == 0 {
                self.sessions.remove(&session);
            }
        }
        Some(held)
    }

    /// Takes out the answers and the replies' effects: while nothing becomes durable, callers are
    /// told so instead of waiting, and questions are answered from what is known.
    pub(crate) fn take_waiting(&mut self) -> (Vec<Answer>, Vec<Effect>) {
        let mut answers = Vec::new();
        let mut replies = Vec::new();
        let held = std::mem::take(&mut self.held);
        for (batch, item) in held {
            match item {
                Held::Answer(answer) => answers.push(answer),
                Held::Effect(effect) if matches!(*effect, Effect::Reply { .. }) => {
                    replies.push(*effect);
                }
                Held::Effect(effect) => self.held.push_back((batch, Held::Effect(effect))),
            }
        }
        (answers, replies)
    }
}

fn session_of(effect: &Effect) -> Option<SessionId> {
    match effect {
        Effect::ToNode { session, .. }
        | Effect::ToMaster { session, .. }
        | Effect::CloseSession { session } => Some(*session),
        Effect::Persist(_)
        | Effect::Reply { .. }
        | Effect::ApplicationChanged(_)
        | Effect::DeleteStaging { .. }
        | Effect::Transitioned(_)
        | Effect::Illegal(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bobbin_rm_core::{NodeCommand, Refusal, RequestId};
    use bobbin_types::{ApplicationId, ContainerId};

    use super::*;

    fn refused(session: u64) -> Effect {
        Effect::ToNode {
            node: "h:1".parse().unwrap(),
            session: SessionId(session),
            command: NodeCommand::Refused {
                reason: Refusal::Recovering,
            },
        }
    }

    fn acknowledge(session: u64) -> Effect {
        let container: ContainerId = "container_e01_1_0001_01_000001".parse().unwrap();
        Effect::ToNode {
            node: "h:1".parse().unwrap(),
            session: SessionId(session),
            command: NodeCommand::AcknowledgeExit { container },
        }
    }

    fn reply() -> Effect {
        Effect::Reply {
            request: RequestId(1),
            result: Err(Refusal::Recovering),
        }
    }

    fn drain(outbox: &mut Outbox) -> Vec<Effect> {
        let mut left = Vec::new();
        while let Some(held) = outbox.pop() {
            if let Held::Effect(effect) = held {
                left.push(*effect);
            }
        }
        left
    }

    #[test]
    fn without_records_everything_leaves_at_once() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.admit(reply(), false), Some(reply()));
        assert!(outbox.admit_answer(Box::new(|| ())).is_some());
    }

    #[test]
    fn what_waits_for_a_record_leaves_with_its_sync_and_holds_its_peer_back() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.admit(refused(1), true), Some(refused(1)));
        assert_eq!(outbox.admit(acknowledge(1), true), None);
        assert_eq!(
            outbox.admit(refused(1), true),
            None,
            "the peer's order is kept"
        );
        assert_eq!(
            outbox.admit(refused(2), true),
            Some(refused(2)),
            "others do not wait"
        );
        let close = Effect::CloseSession {
            session: SessionId(1),
        };
        assert_eq!(outbox.admit(close.clone(), true), None);
        outbox.appended();
        assert_eq!(drain(&mut outbox), vec![]);
        outbox.synced(1);
        assert_eq!(drain(&mut outbox), vec![acknowledge(1), refused(1), close]);
        assert_eq!(outbox.admit(refused(1), false), Some(refused(1)));
    }

    #[test]
    fn later_batches_wait_for_their_own_sync() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.admit(reply(), true), None);
        outbox.appended();
        let changed = Effect::ApplicationChanged(ApplicationId {
            cluster_timestamp: 1,
            sequence: 1,
        });
        assert_eq!(outbox.admit(changed.clone(), true), None);
        outbox.appended();
        outbox.synced(1);
        assert_eq!(drain(&mut outbox), vec![reply()]);
        outbox.synced(2);
        assert_eq!(drain(&mut outbox), vec![changed]);
    }

    #[test]
    fn waiting_callers_can_be_told_that_nothing_becomes_durable() {
        let mut outbox = Outbox::default();
        outbox.admit(reply(), true);
        outbox.admit(acknowledge(1), true);
        outbox.appended();
        assert!(outbox.admit_answer(Box::new(|| ())).is_none());
        let (answers, replies) = outbox.take_waiting();
        assert_eq!((answers.len(), replies), (1, vec![reply()]));
        outbox.synced(1);
        assert_eq!(drain(&mut outbox), vec![acknowledge(1)]);
    }
}
