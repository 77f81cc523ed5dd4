//! Effects as lines of a transcript.

use super::world::{short, short_attempt};
use crate::{Effect, MasterMessage, NodeCommand, Record, Reply, Transition};

pub(super) fn show(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Persist(record) => format!("persist {}", show_record(record)),
        Effect::Reply {
            result: Ok(reply), ..
        } => match reply {
            Reply::NewApplication { application, .. } => {
                format!("reply id {}", application.sequence)
            }
            Reply::Submitted {
                application,
                attempt,
            } => {
                let attempt =
                    attempt.map_or_else(String::new, |a| format!(" {}", short_attempt(a)));
                format!("reply submitted {}{attempt}", application.sequence)
            }
            Reply::Killed {
                already_ended: true,
                ..
            } => "reply killed (had ended)".to_owned(),
            Reply::Killed {
                already_ended: false,
                ..
            } => "reply killed".to_owned(),
            Reply::LeaseHeld { .. } => "reply lease held".to_owned(),
            Reply::PrioritySet { priority, .. } => format!("reply priority {priority}"),
            Reply::Moved { queue, .. } => format!("reply moved to {queue}"),
            Reply::TimeoutSet { expires, .. } => match expires {
                Some(expires) => format!("reply ends at {}", expires.0),
                None => "reply ends never".to_owned(),
            },
            Reply::AttemptFailing { attempt } => {
                format!("reply failing {}", short_attempt(*attempt))
            }
            Reply::Signaled { container } => format!("reply signaled {}", short(*container)),
        },
        Effect::Reply {
            result: Err(refusal),
            ..
        } => format!("refused: {refusal}"),
        Effect::ToNode { node, command, .. } => {
            format!("{} <- {}", node.host(), show_command(command))
        }
        Effect::ToMaster {
            attempt, message, ..
        } => {
            format!("{} <- {}", short_attempt(*attempt), show_message(message))
        }
        Effect::CloseSession { .. } => "close".to_owned(),
        Effect::ApplicationChanged(_) => return None,
        Effect::DeleteStaging { application, .. } => {
            format!("delete staging {}", application.sequence)
        }
        Effect::Transitioned(transition) => match transition {
            Transition::Application {
                application,
                from,
                to,
            } => {
                format!("{}: {from} -> {to}", application.sequence)
            }
            Transition::Attempt { attempt, from, to } => {
                format!("{}: {from} -> {to}", short_attempt(*attempt))
            }
            Transition::Node { node, from, to } => format!("{}: {from} -> {to}", node.host()),
        },
        Effect::Illegal(illegal) => format!("illegal: {illegal:?}"),
    })
}

fn show_record(record: &Record) -> String {
    match record {
        Record::Epoch { epoch, .. } => format!("epoch {epoch}"),
        Record::SequenceReserved { sequence, .. } => format!("reserved {sequence}"),
        Record::NodeKnown { node } => format!("known {}", node.host()),
        Record::NodeForgotten { node } => format!("forgotten {}", node.host()),
        Record::ApplicationSubmitted(spec) => format!("submitted {}", spec.application.sequence),
        Record::KillRequested { application, .. } => format!("kill {}", application.sequence),
        Record::AttemptStarted { attempt, .. } => format!("started {}", short_attempt(*attempt)),
        Record::AttemptRegistered { attempt, .. } => {
            format!("registered {}", short_attempt(*attempt))
        }
        Record::AttemptFailing { attempt, .. } => format!("failing {}", short_attempt(*attempt)),
        Record::AttemptFinishing { attempt, .. } => {
            format!("finishing {}", short_attempt(*attempt))
        }
        Record::AttemptFinished {
            attempt,
            state,
            exit_status,
            counted,
            ..
        } => {
            let status = exit_status.map_or_else(|| "-".to_owned(), |status| status.to_string());
            let counted = if *counted { " counted" } else { "" };
            format!(
                "attempt {} {state} {status}{counted}",
                short_attempt(*attempt)
            )
        }
        Record::ApplicationFinished {
            application,
            state,
            final_status,
            exit_status,
            diagnostics,
            ..
        } => {
            let status = exit_status.map_or_else(|| "-".to_owned(), |status| status.to_string());
            let sequence = application.sequence;
            format!("application {sequence} {state} {final_status} {status} '{diagnostics}'")
        }
        Record::ApplicationUpdated {
            application,
            queue,
            priority,
            lifetime,
        } => {
            let sequence = application.sequence;
            let end = lifetime.map_or_else(|| "never".to_owned(), |l| l.expires.0.to_string());
            format!("updated {sequence} {queue} {priority} {end}")
        }
        Record::ApplicationRemoved { application } => format!("removed {}", application.sequence),
    }
}

fn show_command(command: &NodeCommand) -> String {
    match command {
        NodeCommand::Registered { .. } => "registered".to_owned(),
        NodeCommand::Refused { reason } => format!("refused: {reason}"),
        NodeCommand::StartContainer(start) => format!("start {}", short(start.container)),
        NodeCommand::StopContainer {
            container,
            exit_status,
            diagnostics,
        } => {
            format!("stop {} {exit_status} '{diagnostics}'", short(*container))
        }
        NodeCommand::AcknowledgeExit { container } => format!("acknowledge {}", short(*container)),
        NodeCommand::ApplicationEnded { application } => format!("ended {}", application.sequence),
        NodeCommand::RevokeAttempt {
            attempt,
            keep_containers,
        } => {
            let keep = if *keep_containers { " (keep)" } else { "" };
            format!("revoke {}{keep}", short_attempt(*attempt))
        }
        NodeCommand::SignalContainer { container, signal } => {
            format!("signal {} {signal:?}", short(*container))
        }
        NodeCommand::ResizeContainer {
            container,
            resource,
            version,
        } => format!("resize {} v{version} to {resource}", short(*container)),
    }
}

fn show_message(message: &MasterMessage) -> String {
    match message {
        MasterMessage::Registered(registered) => {
            let kept = registered.containers_from_previous_attempts.iter();
            kept.fold("registered".to_owned(), |text, grant| {
                format!("{text} {}@{}", short(grant.container), grant.node.host())
            })
        }
        MasterMessage::Granted(grants) => {
            let grants: Vec<String> = grants
                .iter()
                .map(|grant| format!("{}@{}", short(grant.container), grant.node.host()))
                .collect();
            format!("granted {}", grants.join(" "))
        }
        MasterMessage::Completed(completed) => {
            let completed: Vec<String> = completed
                .iter()
                .map(|c| format!("{}={}", short(c.container), c.exit_status))
                .collect();
            format!("completed {}", completed.join(" "))
        }
        MasterMessage::Shutdown { reason } => format!("shutdown '{reason}'"),
        MasterMessage::FinishAcknowledged => "finish acknowledged".to_owned(),
        MasterMessage::AskRefused { reason, .. } | MasterMessage::BlacklistRefused { reason } => {
            format!("refused: {reason}")
        }
        MasterMessage::Inherited(grants) => {
            let ids: Vec<String> = grants.iter().map(|grant| short(grant.container)).collect();
            format!("inherited {}", ids.join(" "))
        }
        MasterMessage::Updated(updated) => {
            let all: Vec<String> = updated
                .iter()
                .map(|u| {
                    let (id, size) = (short(u.container.container), u.container.resource);
                    format!("{:?} {id} v{} {size}", u.kind, u.container.version)
                })
                .collect();
            format!("updated {}", all.join("; "))
        }
        MasterMessage::UpdateRefused { reason, .. } => format!("refused: {reason}"),
    }
}
