//! Local mode: driver and executors on this host, and no daemon at all.

use std::collections::BTreeMap;
use std::future::Future;

use bobbin_appmaster::{AppMasterError, AppSettings, DriverEnd, LocalMode, run_local};

use super::interrupt::Interrupts;
use super::plan::Plan;
use crate::args::SubmitArgs;
use crate::cluster::sentence;
use crate::exit_codes::of_driver;
use crate::failure::{Failure, Kind, Outcome};
use crate::output;

pub(crate) async fn run(
    args: &SubmitArgs,
    plan: Plan,
    settings: AppSettings,
    slots: u32,
) -> Outcome {
    let mut interrupts = Interrupts::listen()?;
    let mode = LocalMode {
        slots: Some(slots),
        argv: plan.argv,
        environment: plan.environment,
        settings,
    };
    let driver = to_the_end(run_local(mode), &mut interrupts);
    let ended = match args.timeout {
        None => driver.await,
        Some(limit) => match tokio::time::timeout(limit, driver).await {
            Ok(ended) => ended,
            Err(_) => {
                output::note(&format!(
                    "the driver had not ended after {} s",
                    limit.as_secs_f64()
                ));
                return Ok(crate::exit_codes::KILLED);
            }
        },
    };
    ended.map(|ended| end(&ended)).map_err(|e| failure(&e))
}

/// Settings as the application master takes them; unknown keys are refused before anything starts.
pub(crate) fn app_settings(settings: &BTreeMap<String, String>) -> Result<AppSettings, Failure> {
    AppSettings::from_map(settings)
        .map_err(|e| Failure::usage(sentence(&e)).try_this("`bobbin submit --help`"))
}

/// Runs a driver of this host to its end. Ctrl+C at a terminal reaches the driver by itself, because it
/// is in the same group; this process must only not die before it.
pub(crate) async fn to_the_end<T>(
    driver: impl Future<Output = T>,
    interrupts: &mut Interrupts,
) -> T {
    let mut driver = std::pin::pin!(driver);
    loop {
        tokio::select! {
            ended = &mut driver => return ended,
            () = interrupts.next() => {}
        }
    }
}

/// The exit code. Why, when the driver itself did not say it, the master has said on standard error.
pub(crate) fn end(ended: &DriverEnd) -> u8 {
    of_driver(ended.exit_status, ended.failed)
}

pub(crate) fn failure(error: &AppMasterError) -> Failure {
    Failure::new(Kind::Failed, sentence(error))
}
