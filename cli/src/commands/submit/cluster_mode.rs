//! Cluster mode: the driver runs in a container; its output and its end come from the cluster.

use std::sync::Arc;
use std::time::Duration;

use bobbin_appmaster::{SHIPPED_FILES_SECRET, encode_shipped_files};
use bobbin_proto::v1;
use bobbin_types::{AttemptState, ExitStatus, OBJECT_STORE_SECRET, YarnApplicationState};
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::interrupt::Interrupts;
use super::plan::{OVERHEAD_MEMORY_MIB, Plan};
use super::upload;
use crate::args::{OnInterrupt, SubmitArgs};
use crate::cluster::Cluster;
use crate::commands::follow::{
    Followed, Known, LogFile, Sink, Watcher, end_words, follow, state_of, until,
};
use crate::commands::kill::kill;
use crate::commands::logs::note_missing;
use crate::exit_codes::{DONE, INTERRUPTED, of_application};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::{self, Bar};
use crate::parse;

/// What the first container runs: it starts the driver.
const MASTER: &str = "bobbin-appmaster";
/// Where the master finds its settings.
const SETTINGS_VARIABLE: &str = "BOBBIN_CONF_JSON";
/// Between two tries to renew a lease whose stream broke; well below any lease.
const LEASE_RETRY: Duration = Duration::from_millis(300);

pub(crate) async fn run(cluster: Cluster, args: &SubmitArgs, plan: Plan, quiet: bool) -> Outcome {
    // From here on Ctrl+C must not leave an application behind that nobody waits for.
    let mut interrupts = Interrupts::listen()?;
    let request = tokio::select! {
        request = prepare(&cluster, args, plan, quiet) => request?,
        () = interrupts.next() => {
            output::note("interrupted before the application was submitted");
            return Ok(INTERRUPTED);
        }
    };
    let (id, mut interrupted) = submit(&cluster, request, &mut interrupts).await?;
    if args.detach {
        output::stdout(format!("{id}\n").as_bytes())?;
        return Ok(DONE);
    }
    if args.tie_to_client {
        tokio::spawn(hold_lease(cluster.clone(), id.clone()));
    }
    let waiting = Waiting {
        cluster: &cluster,
        id: &id,
        max_attempts: args.max_attempts,
        quiet,
    };
    let reader_gone = Arc::new(Notify::new());
    let (out, err) = (
        Sink::watched(crate::output::out_stream(), reader_gone.clone()),
        Sink::new(crate::output::err_stream()),
    );
    let mut outcome = std::pin::pin!(waiting.wait(out, err));
    let mut is_killed = false;
    loop {
        if interrupted && (is_killed || args.on_interrupt == OnInterrupt::Detach) {
            output::note(&format!(
                "{id} goes on; `bobbin app logs -f {id}` follows it"
            ));
            return Ok(INTERRUPTED);
        }
        if interrupted {
            is_killed = true;
            output::note(&format!("killing {id}; Ctrl+C again leaves at once"));
            tokio::spawn(kill_interrupted(cluster.clone(), id.clone()));
        }
        tokio::select! {
            outcome = &mut outcome => return outcome,
            () = interrupts.next() => interrupted = true,
            // As a driver here would be ended by SIGPIPE: `submit ... | head -3` comes to an end.
            () = reader_gone.notified() => {
                output::note("nobody reads the driver's output any more");
                interrupted = true;
            }
        }
    }
}

async fn kill_interrupted(cluster: Cluster, id: String) {
    if let Err(failure) = kill(&cluster, &id, false, "interrupted by its submitter").await {
        output::error(&failure);
    }
}

/// Ships what must be shipped; the submission that is then to be sent.
async fn prepare(
    cluster: &Cluster,
    args: &SubmitArgs,
    mut plan: Plan,
    quiet: bool,
) -> Result<v1::SubmitApplicationRequest, Failure> {
    // An id beforehand costs a round trip, so it is asked for only when something needs it: files to
    // ship, or executors whose size must be compared with the largest node.
    let mut id = String::new();
    let mut local_resources = std::mem::take(&mut plan.of_nodes);
    if !plan.uploads.is_empty() || args.num_executors > 0 {
        let mut client = cluster.client();
        let new = cluster
            .answer(client.new_application(v1::NewApplicationRequest {}))
            .await?;
        check_executors(args, new.largest_container.as_ref())?;
        id = new.application_id;
        let bar = Bar::bytes(quiet, plan.upload_bytes(), "uploading".to_owned());
        local_resources.extend(upload::all(cluster, &id, &plan.uploads, &bar).await?);
    }
    request(args, plan, id, local_resources)
}

/// The application's id once the submission is durable, and whether it was interrupted meanwhile: what
/// is on the way may be accepted, so the answer must be known before it can be killed.
async fn submit(
    cluster: &Cluster,
    request: v1::SubmitApplicationRequest,
    interrupts: &mut Interrupts,
) -> Result<(String, bool), Failure> {
    let mut client = cluster.client();
    let mut answer = std::pin::pin!(cluster.answer(client.submit_application(request)));
    let mut interrupted = false;
    loop {
        tokio::select! {
            answer = &mut answer => {
                let id = answer.map_err(super::refused)?.application_id;
                return Ok((id, interrupted));
            }
            () = interrupts.next(), if !interrupted => interrupted = true,
        }
    }
}

/// # Errors
/// An executor fits on no node.
pub(crate) fn check_executors(
    args: &SubmitArgs,
    largest: Option<&v1::Resource>,
) -> Result<(), Failure> {
    let Some(largest) = largest.filter(|r| r.memory_mib > 0 && args.num_executors > 0) else {
        // No node is there yet: what will come is not known.
        return Ok(());
    };
    let (memory_mib, cores) = (args.executor_memory, args.executor_cores);
    if memory_mib <= largest.memory_mib && cores <= largest.vcores {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Refused,
        format!(
            "an executor of {memory_mib} MiB and {cores} vcores fits on no node: the largest has {} MiB \
             and {} vcores",
            largest.memory_mib, largest.vcores
        ),
    )
    .try_this(format!(
        "--executor-memory {}m --executor-cores {}",
        memory_mib.min(largest.memory_mib),
        cores.min(largest.vcores)
    )))
}

fn request(
    args: &SubmitArgs,
    plan: Plan,
    application_id: String,
    local_resources: Vec<v1::LocalResource>,
) -> Result<v1::SubmitApplicationRequest, Failure> {
    let mut argv = vec![MASTER.to_owned(), "--".to_owned()];
    argv.extend(plan.argv);
    let json = serde_json::to_string(&plan.settings)
        .map_err(|e| Failure::new(Kind::Failed, format!("settings cannot be sent: {e}")))?;
    let mut environment: std::collections::HashMap<_, _> = plan.environment.into_iter().collect();
    environment.insert(SETTINGS_VARIABLE.to_owned(), json);
    let resource = |memory_mib, vcores| v1::Resource {
        memory_mib,
        vcores,
        countable: Vec::new(),
    };
    Ok(v1::SubmitApplicationRequest {
        application_id,
        name: plan.name,
        queue: args.queue.clone(),
        priority: 0,
        unmanaged: false,
        launch: Some(v1::LaunchContext {
            argv,
            environment,
            secrets: secrets(&local_resources, plan.stores),
            local_resources,
            ..v1::LaunchContext::default()
        }),
        resource: Some(resource(
            args.driver_memory.saturating_add(OVERHEAD_MEMORY_MIB),
            args.driver_cores,
        )),
        overhead: Some(resource(OVERHEAD_MEMORY_MIB, 0)),
        max_attempts: args.max_attempts,
        tags: plan.tags,
        timeout_ms: args.timeout.map_or(0, parse::millis),
        tie_to_client: args.tie_to_client,
        application_type: "BOBBIN".to_owned(),
        settings: plan.settings.into_iter().collect(),
    })
}

/// What the master hands on to its executors: they have the same files in their folders, fetched with
/// the same credentials.
fn secrets(
    files: &[v1::LocalResource],
    stores: Vec<u8>,
) -> std::collections::HashMap<String, Vec<u8>> {
    let mut secrets = std::collections::HashMap::new();
    if !files.is_empty() {
        secrets.insert(SHIPPED_FILES_SECRET.to_owned(), encode_shipped_files(files));
    }
    if !stores.is_empty() {
        secrets.insert(OBJECT_STORE_SECRET.to_owned(), stores);
    }
    secrets
}

/// Holds the lease that `--tie-to-client` asked for, until this process ends.
async fn hold_lease(cluster: Cluster, id: String) {
    loop {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let hold = || v1::HoldLeaseRequest {
            application_id: id.clone(),
        };
        if sender.send(hold()).await.is_ok()
            && let Ok(answer) = cluster
                .client()
                .hold_lease(ReceiverStream::new(receiver))
                .await
        {
            let mut stream = answer.into_inner();
            let mut renew = LEASE_RETRY;
            loop {
                tokio::select! {
                    message = stream.message() => match message {
                        Ok(Some(lease)) => {
                            renew = Duration::from_millis((lease.lease_ms / 3).max(100));
                        }
                        Ok(None) | Err(_) => break,
                    },
                    () = tokio::time::sleep(renew) => {
                        if sender.send(hold()).await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
        tokio::time::sleep(LEASE_RETRY).await;
    }
}

/// Waiting for an application's end, with its driver's output.
struct Waiting<'a> {
    cluster: &'a Cluster,
    id: &'a str,
    max_attempts: u32,
    quiet: bool,
}

impl Waiting<'_> {
    async fn wait<O, E>(&self, mut out: Sink<O>, mut err: Sink<E>) -> Outcome
    where
        O: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        let mut watcher = Watcher::start(self.cluster, self.id);
        let mut known = watcher.known();
        if output::shows_progress(self.quiet) {
            tokio::spawn(show_start(self.id.to_owned(), watcher.known()));
        }
        let mut attempt = 1;
        loop {
            self.follow_attempt(attempt, &watcher, &mut out, &mut err)
                .await?;
            // The logs' end and the attempt's are told by different machines.
            let newer = |r: &v1::ApplicationReport| r.attempts.iter().any(|a| a.attempt > attempt);
            let report = until(&mut known, |known| {
                known.ended || known.report.as_deref().is_some_and(newer)
            })
            .await?;
            if !newer(&report) {
                break;
            }
            if !self.quiet {
                output::note(&relaunch_words(
                    self.id,
                    self.max_attempts,
                    attempt,
                    &report,
                ));
            }
            attempt += 1;
        }
        let report = watcher.ended().await?;
        Ok(self.end(&report))
    }

    async fn follow_attempt<O, E>(
        &self,
        attempt: u32,
        watcher: &Watcher,
        out: &mut Sink<O>,
        err: &mut Sink<E>,
    ) -> Result<(), Failure>
    where
        O: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        let stdout = LogFile::of_driver(self.id, attempt, "stdout");
        let stderr = LogFile::of_driver(self.id, attempt, "stderr");
        let (a, b) = tokio::join!(
            follow(self.cluster, &stdout, watcher.known(), out),
            follow(self.cluster, &stderr, watcher.known(), err),
        );
        let mut known = watcher.known();
        let started = |report: &Arc<v1::ApplicationReport>| {
            report
                .attempts
                .iter()
                .any(|a| a.attempt == attempt && !a.container_id.is_empty())
        };
        let has_logs = known
            .borrow_and_update()
            .report
            .as_ref()
            .is_some_and(started);
        for (file, result) in [("stdout", a?), ("stderr", b?)] {
            if let Followed::Missing(failure) = result {
                // An attempt that never had a container has no logs either: its diagnostics say why.
                if has_logs && !self.quiet && failure.kind != Kind::NotFound {
                    note_missing(&format!("the driver's {file} is not whole"), &failure);
                }
            }
        }
        Ok(())
    }

    /// Says on standard error why it failed, and gives the exit code.
    fn end(&self, report: &v1::ApplicationReport) -> u8 {
        let code = of_application(state_of(report), report.exit_status);
        // A driver that ended with its own code has said why itself; the words are for the rest.
        let own = report.exit_status.map(ExitStatus).is_some_and(|s| s.0 >= 0);
        if code != DONE && (!own || !self.quiet) {
            output::note(&end_words(report));
        }
        code
    }
}

/// Shows why the driver does not run yet, until it does.
async fn show_start(id: String, mut known: watch::Receiver<Known>) {
    let bar = Bar::waiting(false, id.clone());
    loop {
        let words = {
            let newest = known.borrow_and_update();
            let report = newest.report.as_ref();
            let state = report.and_then(|report| state_of(report));
            match state {
                Some(state) if state == YarnApplicationState::Running || state.is_ended() => return,
                Some(_) | None => report
                    .map_or("", |report| report.waiting.as_str())
                    .to_owned(),
            }
        };
        bar.say(format!("{id} {}", crate::text::printable(&words)));
        if known.changed().await.is_err() {
            return;
        }
    }
}

/// One line between the output of one attempt and that of the next.
fn relaunch_words(
    id: &str,
    max_attempts: u32,
    attempt: u32,
    report: &v1::ApplicationReport,
) -> String {
    let ended = report.attempts.iter().find(|a| a.attempt == attempt);
    let state = ended.map_or(AttemptState::Failed.as_str(), |a| a.state.as_str());
    let exit = ended.and_then(|a| a.exit_status);
    let exit = exit.map_or_else(String::new, |s| format!(" with exit status {s}"));
    let next = attempt + 1;
    // The driver's own exit status says all; the cluster's numbers need words.
    let words = ended
        .filter(|a| a.exit_status.is_none_or(|status| status < 0))
        .and_then(|a| a.diagnostics.lines().next())
        .filter(|words| !words.is_empty());
    let why = words.map_or_else(String::new, |w| format!(" ({})", crate::text::printable(w)));
    format!(
        "attempt {attempt} of {id} ended {state}{exit}{why}; attempt {next} starts, at most \
         {max_attempts} may fail"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::fake_rm::{FakeRm, ID};

    fn args(words: &[&str]) -> SubmitArgs {
        let line = ["bobbin", "submit", "--deploy-mode", "cluster"]
            .iter()
            .chain(words);
        let Command::Submit(args) = Cli::try_parse_from(line).unwrap().command else {
            unreachable!("submit was typed")
        };
        *args
    }

    #[test]
    fn overhead_is_added_and_listed_apart() {
        let args = args(&[
            "--driver-memory",
            "64m",
            "--driver-cores",
            "2",
            "--timeout",
            "3s",
            "--",
            "true",
        ]);
        let plan = Plan::new(&args).unwrap();
        let request = request(&args, plan, String::new(), vec![]).unwrap();
        let resource = request.resource.unwrap();
        assert_eq!((resource.memory_mib, resource.vcores), (128, 2));
        assert_eq!(request.overhead.unwrap().memory_mib, 64);
        assert_eq!(request.timeout_ms, 3000);
        assert_eq!(request.max_attempts, 2);
        let launch = request.launch.unwrap();
        assert_eq!(launch.argv, ["bobbin-appmaster", "--", "true"]);
        let settings: std::collections::BTreeMap<String, String> =
            serde_json::from_str(&launch.environment["BOBBIN_CONF_JSON"]).unwrap();
        assert_eq!(settings["num-executors"], "0");
    }

    #[test]
    fn executors_must_fit_on_the_largest_node() {
        let largest = v1::Resource {
            memory_mib: 2048,
            vcores: 8,
            countable: vec![],
        };
        let of = |words: &[&str]| {
            let words = [words, &["--", "true"]].concat();
            check_executors(&args(&words), Some(&largest))
        };
        assert_eq!(of(&["--num-executors", "2"]), Ok(()));
        assert_eq!(of(&["--executor-memory", "1t"]), Ok(()), "none is wanted");
        for flags in [["--executor-memory", "1t"], ["--executor-cores", "9"]] {
            let failure = of(&[&flags[..], &["--num-executors", "1"]].concat()).unwrap_err();
            assert!(failure.message.contains("2048 MiB"), "{failure}");
        }
    }

    /// Everything that is readable of a pipe whose writer is gone.
    async fn all(mut reader: tokio::io::DuplexStream) -> String {
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut reader, &mut text)
            .await
            .unwrap();
        text
    }

    async fn waited(rm: FakeRm) -> (u8, String, String) {
        let server = rm.serve();
        let cluster = Cluster::connect(server.address()).await.unwrap();
        let waiting = Waiting {
            cluster: &cluster,
            id: ID,
            max_attempts: 2,
            quiet: true,
        };
        let ((out, stdout), (err, stderr)) =
            (tokio::io::duplex(1 << 20), tokio::io::duplex(1 << 20));
        let code = waiting.wait(Sink::new(out), Sink::new(err)).await.unwrap();
        (code, all(stdout).await, all(stderr).await)
    }

    #[tokio::test]
    async fn every_attempt_in_its_order_and_the_last_ones_code() {
        let rm = FakeRm::new(&[
            ("RUNNING", &[("RUNNING", None)]),
            ("ACCEPTED", &[("FAILED", Some(1)), ("SCHEDULED", None)]),
            ("FAILED", &[("FAILED", Some(1)), ("FAILED", Some(7))]),
        ])
        .log(1, "stdout", "first\n")
        .log(1, "stderr", "sorry\n")
        .log(2, "stdout", "second\n")
        .log(2, "stderr", "");
        let (code, stdout, stderr) = waited(rm).await;
        assert_eq!(
            (code, stdout.as_str(), stderr.as_str()),
            (7, "first\nsecond\n", "sorry\n")
        );
    }

    #[tokio::test]
    async fn broken_connections_leave_neither_gap_nor_double() {
        let text: String = (0..2000).map(|n| format!("{n}\n")).collect();
        let rm = FakeRm::new(&[
            ("RUNNING", &[("RUNNING", None)]),
            ("FINISHED", &[("FINISHED", Some(0))]),
        ])
        .log(1, "stdout", &text)
        .log(1, "stderr", "")
        .breaking_every(700);
        let (code, stdout, _) = waited(rm).await;
        assert_eq!(code, 0);
        assert!(stdout == text, "{} of {} bytes", stdout.len(), text.len());
    }

    #[tokio::test]
    async fn an_attempt_without_a_container_has_no_logs() {
        let rm = FakeRm::new(&[("KILLED", &[("KILLED", None)])]);
        assert_eq!(waited(rm).await, (137, String::new(), String::new()));
    }

    #[test]
    fn a_relaunch_is_told() {
        let report = v1::ApplicationReport {
            attempts: vec![v1::AttemptReport {
                attempt: 1,
                state: "FAILED".into(),
                exit_status: Some(-104),
                diagnostics: "too much\nmore".into(),
                ..v1::AttemptReport::default()
            }],
            ..v1::ApplicationReport::default()
        };
        let words = relaunch_words("application_1_0001", 2, 1, &report);
        assert_eq!(
            words,
            "attempt 1 of application_1_0001 ended FAILED with exit status -104 (too much); \
             attempt 2 starts, at most 2 may fail"
        );
    }
}
