//! What `bobbin submit --deploy-mode cluster` sends for a small program.

use bobbin_proto::v1;

/// A submission of `driver` under the native master, with an attempt limit.
pub(crate) fn submission(
    name: &str,
    driver: &[&str],
    max_attempts: u32,
) -> v1::SubmitApplicationRequest {
    let resource = |memory_mib, vcores| v1::Resource {
        memory_mib,
        vcores,
        countable: Vec::new(),
    };
    let words = ["bobbin-appmaster", "--"].iter().chain(driver);
    v1::SubmitApplicationRequest {
        name: name.to_owned(),
        queue: "default".to_owned(),
        launch: Some(v1::LaunchContext {
            argv: words.map(|word| (*word).to_owned()).collect(),
            environment: [("BOBBIN_CONF_JSON".to_owned(), "{}".to_owned())].into(),
            ..v1::LaunchContext::default()
        }),
        resource: Some(resource(128, 1)),
        overhead: Some(resource(64, 0)),
        max_attempts,
        application_type: "BOBBIN".to_owned(),
        ..v1::SubmitApplicationRequest::default()
    }
}
