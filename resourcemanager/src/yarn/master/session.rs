//! One attempt's master between its calls: its mailbox, and its session with the core.
//!
//! A Hadoop client keeps no stream open, so the session lasts from its registration until the core
//! ends it; only heartbeats show that the master lives.

use std::time::Duration;

use bobbin_hadoop::exceptions::RpcException;
use bobbin_hadoop::proto::yarn;
use bobbin_rm_core::view::MasterView;
use bobbin_rm_core::{Event, Finish, MasterRegistration, Principal, SessionId};
use bobbin_types::{AttemptId, UserName};
use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::answers::Writer;
use super::mailbox::{CallRefused, Mailbox, Seen, Turn};
use super::requests::Allocation;
use crate::driver::{Failure, PeerMessage};
use crate::yarn::exceptions::failed;
use crate::yarn::{YarnDoors, mint};

/// So long a farewell waits to become durable; then the client asks again.
const FAREWELL: Duration = Duration::from_secs(10);

/// See the module's text.
pub(super) struct Master {
    attempt: AttemptId,
    mailbox: Mailbox,
    session: Option<(SessionId, mpsc::Receiver<PeerMessage>)>,
    /// The application's, from its registration.
    user: Option<UserName>,
    progress_permille: u16,
}

impl Master {
    pub(super) fn new(attempt: AttemptId) -> Master {
        Master {
            attempt,
            mailbox: Mailbox::new(attempt),
            session: None,
            user: None,
            progress_permille: 0,
        }
    }

    /// Takes in what the core has said.
    fn drain(&mut self) {
        let Some((_, messages)) = &mut self.session else {
            return;
        };
        loop {
            match messages.try_recv() {
                Ok(PeerMessage::Master(message)) => self.mailbox.receive(message),
                Ok(PeerMessage::Node(_)) => {}
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => break,
            }
        }
        self.session = None;
        self.mailbox.session_ended();
    }

    /// Whether nothing is lost if it is forgotten.
    pub(super) fn is_idle(&mut self) -> bool {
        self.drain();
        self.mailbox.is_idle()
    }

    /// `registerApplicationMaster`.
    pub(super) async fn register(
        &mut self,
        doors: &YarnDoors,
        registration: MasterRegistration,
    ) -> Result<Bytes, RpcException> {
        self.drain();
        self.mailbox.registering()?;
        // One whose answer was lost is replaced by the core.
        self.session = None;
        let opened = doors.driver.open_session().await;
        let (session, messages) = opened.map_err(|e| failed(&e))?;
        self.session = Some((session, messages));
        let attached = Event::MasterAttached {
            session,
            principal: Principal::Attempt(self.attempt),
            attempt: self.attempt,
            registration: Box::new(registration),
        };
        let handled = doors.driver.exchange(vec![attached], |_| ()).await;
        handled.map_err(|e| failed(&e))?;
        self.drain();
        let (registered, nodes) = self.mailbox.register(mint::generation())?;
        self.user = Some(registered.user.clone());
        let response = self.writer(doors).registered(&registered, &nodes);
        Ok(Bytes::from(response.encode_to_vec()))
    }

    /// `allocate`.
    pub(super) async fn allocate(
        &mut self,
        doors: &YarnDoors,
        request: &yarn::AllocateRequest,
        token_generation: i32,
    ) -> Result<Bytes, RpcException> {
        self.drain();
        if let Turn::Again(answer) = self.mailbox.allocating(request.response_id())? {
            let life = self.events(Vec::new(), None);
            self.exchange(doors, life).await?;
            return Ok(answer);
        }
        let allocation = Allocation::read(request, self.attempt)?;
        let (events, user) = self.events_of(allocation)?;
        let view = self.exchange(doors, events).await?;
        self.drain();
        let Some(view) = view else {
            // What ended it may still be on its way to the session.
            self.mailbox.check_registered()?;
            let reason = "it has ended".to_owned();
            let attempt = self.attempt;
            return Err(CallRefused::Over { attempt, reason }.into());
        };
        let answer = self.mailbox.answer(Seen {
            token_generation,
            generation: mint::generation(),
            node_changes: view.node_changes,
        })?;
        let response = self.writer(doors).allocated(&answer, &view, &user);
        let bytes = Bytes::from(response.encode_to_vec());
        self.mailbox.answered(bytes.clone());
        Ok(bytes)
    }

    async fn exchange(
        &self,
        doors: &YarnDoors,
        events: Vec<Event>,
    ) -> Result<Option<MasterView>, RpcException> {
        let (attempt, since) = (self.attempt, self.mailbox.node_changes());
        let view = doors
            .driver
            .exchange(events, move |core| core.master_view(attempt, since))
            .await;
        view.map_err(|e: Failure| failed(&e))
    }

    /// What the core is told of a call, in the order in which it counts: room that is given back
    /// serves what is asked for beside it.
    fn events_of(&mut self, said: Allocation) -> Result<(Vec<Event>, UserName), RpcException> {
        let (Some((session, _)), Some(user)) = (&self.session, self.user.clone()) else {
            return Err(CallRefused::NotRegistered(self.attempt).into());
        };
        let (attempt, session) = (self.attempt, *session);
        self.progress_permille = said.progress_permille;
        let asks = self.mailbox.state(&said.asks)?;
        self.mailbox.refuse_updates(said.refused_updates);
        let mut events = Vec::new();
        let acknowledged = self.mailbox.take_acknowledged();
        if !acknowledged.is_empty() {
            events.push(Event::MasterAcknowledges {
                attempt,
                session,
                containers: acknowledged,
            });
        }
        if !said.releases.is_empty() {
            events.push(Event::MasterReleases {
                attempt,
                session,
                containers: said.releases,
            });
        }
        if !(said.blacklist_additions.is_empty() && said.blacklist_removals.is_empty()) {
            events.push(Event::MasterBlacklist {
                attempt,
                session,
                additions: said.blacklist_additions,
                removals: said.blacklist_removals,
            });
        }
        if !said.updates.is_empty() {
            events.push(Event::MasterUpdates {
                attempt,
                session,
                updates: said.updates,
            });
        }
        if !asks.is_empty() {
            events.push(Event::MasterAsks {
                attempt,
                session,
                asks,
            });
        }
        Ok((self.events(events, said.tracking_url), user))
    }

    /// The sign of life, then `events`.
    fn events(&self, mut events: Vec<Event>, tracking_url: Option<String>) -> Vec<Event> {
        if let Some((session, _)) = &self.session {
            events.insert(
                0,
                Event::MasterHeartbeat {
                    attempt: self.attempt,
                    session: *session,
                    progress_permille: self.progress_permille,
                    tracking_url,
                },
            );
        }
        events
    }

    /// `finishApplicationMaster`: whether the farewell is durable.
    pub(super) async fn finish(
        &mut self,
        doors: &YarnDoors,
        finish: Finish,
    ) -> Result<bool, RpcException> {
        self.drain();
        if self.mailbox.is_finished() {
            return Ok(true);
        }
        self.mailbox.check_registered()?;
        let Some((session, messages)) = &mut self.session else {
            return Err(CallRefused::NotRegistered(self.attempt).into());
        };
        let farewell = Event::MasterFinishes {
            attempt: self.attempt,
            session: *session,
            finish,
        };
        doors.driver.event(farewell).await;
        let mailbox = &mut self.mailbox;
        let acknowledged = async {
            while !mailbox.is_finished() {
                match messages.recv().await {
                    Some(PeerMessage::Master(message)) => mailbox.receive(message),
                    Some(PeerMessage::Node(_)) => {}
                    None => break,
                }
            }
        };
        // Late, the client asks again, and finds it acknowledged.
        drop(tokio::time::timeout(FAREWELL, acknowledged).await);
        self.drain();
        if self.mailbox.is_finished() {
            return Ok(true);
        }
        self.mailbox.check_registered()?;
        Ok(false)
    }

    fn writer<'a>(&self, doors: &'a YarnDoors) -> Writer<'a> {
        Writer {
            minter: &doors.minter,
            attempt: self.attempt,
            started_ms: doors.started_ms,
        }
    }
}
