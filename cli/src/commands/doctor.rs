//! `bobbin doctor`.

use crate::args::{DoctorArgs, Role};
use crate::doctor::{self, Findings, Settings, Verdict};
use crate::exit_codes::{DONE, FAILED};
use crate::failure::Outcome;
use crate::output;

pub(crate) async fn run(args: &DoctorArgs, rm: Option<&str>) -> Outcome {
    let wants = |role: Role| args.roles.is_empty() || args.roles.contains(&role);
    let settings = Settings::find();
    let mut all: Vec<Findings> = Vec::new();
    if wants(Role::Rm) {
        all.push(doctor::check_daemons(&settings, true));
    }
    if wants(Role::Node) {
        all.push(doctor::check_kernel());
        all.push(doctor::check_daemons(&settings, false));
    }
    let (cluster, answer) = doctor::check_cluster(rm).await;
    all.push(cluster);
    if wants(Role::Spark) {
        let doors = answer.as_ref().and_then(|a| a.hadoop.as_ref());
        all.push(doctor::check_spark());
        all.push(doctor::check_configuration(doors));
    }
    let list: Vec<_> = all.into_iter().flat_map(|found| found.list).collect();
    output::findings(&list, args.format.output)?;
    let is_bad = list.iter().any(|f| f.verdict == Verdict::Bad);
    Ok(if is_bad { FAILED } else { DONE })
}
