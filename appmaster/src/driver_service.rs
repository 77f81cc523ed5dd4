//! `bobbin.v1.Driver` on the driver's unix socket.
//!
//! Two tasks a stage: the intake takes at most [`STAGE_WINDOW`] tasks ahead of the results that the
//! driver has read; the outflow hands events over as fast as the driver reads them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bobbin_am_core::{Event, StageId};
use bobbin_proto::v1;
use bobbin_proto::v1::driver_server::Driver;
use bobbin_types::{
    ARGUMENTS_BYTES_MAX, ARGUMENTS_MAX, AttemptId, ENVIRONMENT_BYTES_MAX, check_environment_name,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::held::OutputStream;
use crate::input::{Inbox, Input, StageItem, StageOut, StageShared, THROTTLE_BELOW};

/// Tasks of a stage that are accepted and whose results the driver has not read.
const STAGE_WINDOW: usize = 16_384;
/// Executors a driver may ask for.
const EXECUTORS_MAX: u32 = 100_000;

pub(crate) struct DriverService {
    pub(crate) attempt: AttemptId,
    pub(crate) inbox: Inbox,
}

type EventSender = mpsc::Sender<Result<v1::TaskEvent, Status>>;

fn going() -> Status {
    Status::unavailable("the application master is going away")
}

#[tonic::async_trait]
impl Driver for DriverService {
    type RunTasksStream = ReceiverStream<Result<v1::TaskEvent, Status>>;
    type WatchExecutorsStream = ReceiverStream<Result<v1::ExecutorEvent, Status>>;

    async fn get_info(
        &self,
        _: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        let (reply, counts) = oneshot::channel();
        self.inbox
            .send(Input::Info(reply))
            .await
            .map_err(|_| going())?;
        let counts = counts.await.map_err(|_| going())?;
        Ok(Response::new(v1::GetInfoResponse {
            application_id: self.attempt.application.to_string(),
            attempt: self.attempt.attempt,
            executors_wanted: counts.executors_wanted,
            executors_max: counts.executors_max,
            executors_up: counts.executors_up,
            slots: counts.slots,
        }))
    }

    async fn run_tasks(
        &self,
        request: Request<Streaming<v1::TaskRequest>>,
    ) -> Result<Response<Self::RunTasksStream>, Status> {
        let shared = Arc::new(StageShared::default());
        let (items, items_receiver) = mpsc::unbounded_channel();
        let (reply, stage) = oneshot::channel();
        let out = StageOut {
            items,
            shared: Arc::clone(&shared),
        };
        let open = Input::OpenStage { out, reply };
        self.inbox.send(open).await.map_err(|_| going())?;
        let stage = stage.await.map_err(|_| going())?;
        let (events, receiver) = mpsc::channel(64);
        let window = Arc::new(Semaphore::new(STAGE_WINDOW));
        let outflow = Outflow {
            stage,
            items: items_receiver,
            events: events.clone(),
            shared,
            window: Arc::clone(&window),
            inbox: self.inbox.clone(),
        };
        tokio::spawn(outflow.run());
        let inbox = self.inbox.clone();
        tokio::spawn(intake(stage, request.into_inner(), inbox, window, events));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn set_executors(
        &self,
        request: Request<v1::SetExecutorsRequest>,
    ) -> Result<Response<v1::SetExecutorsResponse>, Status> {
        let count = request.into_inner().count;
        if count > EXECUTORS_MAX {
            let words = format!("{count} executors are too many: at most {EXECUTORS_MAX}");
            return Err(Status::invalid_argument(words));
        }
        let event = Input::Event(Event::ExecutorsWanted { count });
        self.inbox.send(event).await.map_err(|_| going())?;
        Ok(Response::new(v1::SetExecutorsResponse {}))
    }

    async fn watch_executors(
        &self,
        _: Request<v1::WatchExecutorsRequest>,
    ) -> Result<Response<Self::WatchExecutorsStream>, Status> {
        let (watcher, receiver) = mpsc::channel(4_096);
        self.inbox
            .send(Input::Watch(watcher))
            .await
            .map_err(|_| going())?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Takes tasks in until the driver closes its side or its stream breaks.
async fn intake(
    stage: StageId,
    mut requests: Streaming<v1::TaskRequest>,
    inbox: Inbox,
    window: Arc<Semaphore>,
    events: EventSender,
) {
    let end = loop {
        let request = match requests.message().await {
            Ok(Some(request)) => request.request,
            Ok(None) => break Event::StageClosed { stage },
            Err(_) => break Event::StageBroken { stage },
        };
        let input = match request {
            Some(v1::task_request::Request::Task(task)) => {
                if let Err(status) = check_task(&task) {
                    let _ = events.send(Err(status)).await;
                    break Event::StageBroken { stage };
                }
                tokio::select! {
                    permit = window.acquire() => match permit {
                        // Given back by the outflow when the driver has read the result.
                        Ok(permit) => permit.forget(),
                        Err(_) => return,
                    },
                    () = events.closed() => break Event::StageBroken { stage },
                }
                Input::Submit { stage, task }
            }
            Some(v1::task_request::Request::Cancel(cancel)) => Input::Cancel {
                stage,
                task_id: cancel.task_id,
            },
            Some(v1::task_request::Request::CancelStage(v1::CancelStage {})) => {
                Input::Event(Event::StageCancelled { stage })
            }
            None => continue,
        };
        if inbox.send(input).await.is_err() {
            return;
        }
    };
    // The master may be gone, and the stage with it.
    let _ = inbox.send(Input::Event(end)).await;
}

/// What the kernel would refuse is refused here, with words.
fn check_task(task: &v1::NewTask) -> Result<(), Status> {
    let refuse = |words: String| {
        Err(Status::invalid_argument(format!(
            "task {}: {words}",
            task.task_id
        )))
    };
    if v1::ResultFormat::try_from(task.result_format).is_err() {
        return refuse(format!(
            "{} is no result format that this application master knows",
            task.result_format
        ));
    }
    if task.argv.first().is_none_or(String::is_empty) {
        return refuse("the program's name is empty".to_owned());
    }
    if task.argv.len() > ARGUMENTS_MAX {
        return refuse(format!(
            "{} arguments, at most {ARGUMENTS_MAX} are allowed",
            task.argv.len()
        ));
    }
    let bytes: usize = task.argv.iter().map(|a| a.len() + 1).sum();
    if bytes > ARGUMENTS_BYTES_MAX {
        return refuse(format!(
            "{bytes} bytes of arguments, at most {ARGUMENTS_BYTES_MAX} are allowed"
        ));
    }
    if task.argv.iter().any(|a| a.contains('\0')) {
        return refuse("an argument holds a NUL byte".to_owned());
    }
    let mut bytes = 0;
    for (name, value) in &task.environment {
        if let Err(e) = check_environment_name(name) {
            return refuse(e.to_string());
        }
        if value.contains('\0') {
            return refuse(format!("the variable {name} holds a NUL byte"));
        }
        bytes += name.len() + value.len() + 2;
    }
    if bytes > ENVIRONMENT_BYTES_MAX {
        return refuse(format!(
            "{bytes} bytes of environment, at most {ENVIRONMENT_BYTES_MAX} are allowed"
        ));
    }
    Ok(())
}

struct Outflow {
    stage: StageId,
    items: mpsc::UnboundedReceiver<StageItem>,
    events: EventSender,
    shared: Arc<StageShared>,
    window: Arc<Semaphore>,
    inbox: Inbox,
}

impl Outflow {
    async fn run(mut self) {
        loop {
            let item = tokio::select! {
                item = self.items.recv() => item,
                () = self.events.closed() => break,
            };
            let Some(item) = item else {
                // The stage has ended.
                return;
            };
            if self.hand_over(item).await.is_none() {
                break;
            }
        }
        let stage = self.stage;
        let _ = self
            .inbox
            .send(Input::Event(Event::StageBroken { stage }))
            .await;
    }

    async fn hand_over(&self, item: StageItem) -> Option<()> {
        match item {
            StageItem::Event(event) => self.events.send(Ok(event)).await.ok(),
            StageItem::Refused(status) => {
                let _ = self.events.send(Err(status)).await;
                None
            }
            StageItem::Final {
                task_id,
                output,
                mut ended,
            } => {
                let bytes = output.bytes();
                for (stream, piece) in output.into_pieces() {
                    let mut event = v1::TaskBytes::default();
                    match (piece.read(), stream) {
                        (Ok(bytes), OutputStream::Stdout) => event.stdout = bytes.into(),
                        (Ok(bytes), OutputStream::Stderr) => event.stderr = bytes.into(),
                        (Err(e), _) => {
                            ended.problem = format!("its output cannot be read back: {e}");
                            continue;
                        }
                    }
                    let event = v1::TaskEvent {
                        task_id,
                        event: Some(v1::task_event::Event::Output(event)),
                    };
                    self.events.send(Ok(event)).await.ok()?;
                }
                let event = v1::TaskEvent {
                    task_id,
                    event: Some(v1::task_event::Event::Ended(ended)),
                };
                self.events.send(Ok(event)).await.ok()?;
                self.window.add_permits(1);
                self.delivered(bytes).await;
                Some(())
            }
        }
    }

    /// Lets the stage go on once the driver has caught up.
    async fn delivered(&self, bytes: u64) {
        let shared = &self.shared;
        let before = shared.undelivered.fetch_sub(bytes, Ordering::Relaxed);
        let caught_up = before.saturating_sub(bytes) < THROTTLE_BELOW;
        if caught_up && shared.throttled.swap(false, Ordering::Relaxed) {
            let event = Event::StageThrottled {
                stage: self.stage,
                throttled: false,
            };
            let _ = self.inbox.send(Input::Event(event)).await;
        }
    }
}
