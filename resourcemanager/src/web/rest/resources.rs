//! A resource as YARN's REST shows it. Source: `ResourceInfo`, `ResourceInformation`.

use bobbin_types::Resource;

use super::document::{Element, Value};

/// `memory` in MiB, `vCores`, and both again with their units.
pub(super) fn resource(resource: &Resource) -> Element {
    let kinds = vec![
        kind("memory-mb", "Mi", resource.memory_mib),
        kind("vcores", "", resource.vcores.into()),
    ];
    small(resource).with(
        "resourceInformations",
        Element::new().with("resourceInformation", kinds),
    )
}

/// Without the units.
pub(super) fn small(resource: &Resource) -> Element {
    Element::new()
        .with("memory", resource.memory_mib)
        .with("vCores", resource.vcores)
}

fn kind(name: &str, units: &str, value: u64) -> Element {
    Element::new()
        .with("attributes", Value::Map(Vec::new()))
        .with("maximumAllocation", i64::MAX)
        .with("minimumAllocation", 0)
        .with("name", name)
        .with("resourceType", "COUNTABLE")
        .with("units", units)
        .with("value", value)
}

/// `used` of `total` in percent, of the kind that is most in use.
pub(super) fn percent(used: &Resource, total: &Resource) -> f32 {
    permille_to_percent(used.dominant_share(total) / 1_000)
}

/// Thousandths as percent; above 1,000 the whole.
pub(super) fn permille_to_percent(permille: u64) -> f32 {
    let whole = u16::try_from(permille.min(1_000)).unwrap_or(1_000);
    f32::from(whole) / 10.0
}

#[cfg(test)]
mod tests {
    use super::super::document::{Document, Format};
    use super::*;

    #[test]
    fn as_hadoop_3_shows_it() {
        // What a Hadoop 3 resource manager answered to new-application.
        let json = concat!(
            r#"{"memory":65536,"vCores":12,"resourceInformations":{"resourceInformation":["#,
            r#"{"attributes":{},"maximumAllocation":9223372036854775807,"minimumAllocation":0,"#,
            r#""name":"memory-mb","resourceType":"COUNTABLE","units":"Mi","value":65536},"#,
            r#"{"attributes":{},"maximumAllocation":9223372036854775807,"minimumAllocation":0,"#,
            r#""name":"vcores","resourceType":"COUNTABLE","units":"","value":12}]}}"#
        );
        let element = resource(&Resource::new(65_536, 12));
        assert_eq!(Document::bare("r", element).write(Format::Json), json);
    }

    #[test]
    fn percents() {
        let total = Resource::new(1000, 10);
        assert!((percent(&Resource::new(125, 1), &total) - 12.5).abs() < 0.01);
        assert!(percent(&Resource::default(), &Resource::default()).abs() < 0.01);
        assert!((permille_to_percent(u64::MAX) - 100.0).abs() < 0.01);
    }
}
