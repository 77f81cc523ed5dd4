//! `launch_container.sh`: exports in an order in which each finds what it refers to, then the command.
//!
//! Source: `ContainerLaunch.writeLaunchEnv`, `ContainerLaunch.orderEnvByDependencies`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::expansion::{expand, literal, references};

/// What one launch script is made of.
#[derive(Clone, Debug)]
pub(crate) struct Script<'a> {
    pub(crate) container: String,
    /// The node's own variables, in order; their values mean themselves.
    pub(crate) own: Vec<(&'static str, String)>,
    /// The application's; their names are the shell's.
    pub(crate) application: BTreeMap<&'a str, &'a str>,
    /// Words that are joined with blanks.
    pub(crate) command: &'a [String],
    pub(crate) log_dir: String,
}

impl Script<'_> {
    pub(crate) fn render(&self) -> String {
        let mut out = format!(
            "#!/bin/bash\n\
             # {} as its node starts it.\n\
             set -e\n",
            self.container
        );
        for (name, value) in &self.own {
            put(&mut out, name, &literal(value));
        }
        // Of the shell that becomes the program.
        put(&mut out, "JVM_PID", "$$");
        for name in ordered(&self.application) {
            put(
                &mut out,
                name,
                &expand(self.application[name], &self.log_dir),
            );
        }
        let command = expand(&self.command.join(" "), &self.log_dir);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "exec /bin/bash -c \"{command}\"");
        out
    }
}

fn put(out: &mut String, name: &str, quoted: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "export {name}=\"{quoted}\"");
}

/// The names, each after those that its value refers to. What refers to itself in a circle comes last,
/// by name.
fn ordered<'a>(variables: &BTreeMap<&'a str, &'a str>) -> Vec<&'a str> {
    let mut waiting: BTreeMap<&str, BTreeSet<&str>> = variables
        .iter()
        .map(|(name, value)| {
            let mut needed = references(value);
            // Its own former value.
            needed.remove(name);
            needed.retain(|other| variables.contains_key(other));
            (*name, needed)
        })
        .collect();
    let mut dependents: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
    for (name, needed) in &waiting {
        for other in needed {
            dependents.entry(other).or_default().push(name);
        }
    }
    let mut free: BTreeSet<&str> = waiting
        .iter()
        .filter(|(_, needed)| needed.is_empty())
        .map(|(name, _)| *name)
        .collect();
    let mut order = Vec::with_capacity(variables.len());
    while let Some(name) = free.pop_first() {
        waiting.remove(name);
        order.push(name);
        for dependent in dependents.get(name).into_iter().flatten() {
            if let Some(needed) = waiting.get_mut(dependent) {
                needed.remove(name);
                if needed.is_empty() {
                    free.insert(dependent);
                }
            }
        }
    }
    order.extend(waiting.into_keys());
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script<'a>(application: &[(&'a str, &'a str)], command: &'a [String]) -> Script<'a> {
        Script {
            container: "container_e01_7_0001_01_000002".to_owned(),
            own: vec![
                ("CONTAINER_ID", "container_e01_7_0001_01_000002".to_owned()),
                ("PWD", "/local/$odd".to_owned()),
            ],
            application: application.iter().copied().collect(),
            command,
            log_dir: "/log".to_owned(),
        }
    }

    /// As Spark 3.5.4 asks for an executor.
    #[test]
    fn the_script_of_a_spark_executor() {
        let command = [
            "{{JAVA_HOME}}/bin/java",
            "-server -Xmx1024m '-Dq=\\\"\\$x\\\"'",
            "-Djava.io.tmpdir={{PWD}}/tmp",
            "-XX:OnOutOfMemoryError='kill %p'",
            "1><LOG_DIR>/stdout",
            "2><LOG_DIR>/stderr",
        ]
        .map(str::to_owned);
        let environment = [
            ("CLASSPATH", "{{PWD}}<CPS>{{PWD}}/__spark_libs__/*"),
            ("SPARK_DIST", "$EXTRA/x"),
            ("EXTRA", "say \"it\""),
        ];
        let expected = r#"#!/bin/bash
# container_e01_7_0001_01_000002 as its node starts it.
set -e
export CONTAINER_ID="container_e01_7_0001_01_000002"
export PWD="/local/\$odd"
export JVM_PID="$$"
export CLASSPATH="${PWD}:${PWD}/__spark_libs__/*"
export EXTRA="say \"it\""
export SPARK_DIST="$EXTRA/x"
exec /bin/bash -c "${JAVA_HOME}/bin/java -server -Xmx1024m '-Dq=\"\$x\"' -Djava.io.tmpdir=${PWD}/tmp -XX:OnOutOfMemoryError='kill %p' 1>/log/stdout 2>/log/stderr"
"#;
        assert_eq!(script(&environment, &command).render(), expected);
    }

    #[test]
    fn each_variable_comes_after_what_it_refers_to() {
        let order = |variables: &[(&'static str, &'static str)]| {
            ordered(&variables.iter().copied().collect())
        };
        let variables = [("A", "{{B}}:$Z"), ("B", "$C"), ("C", "$C:x"), ("D", "")];
        assert_eq!(order(&variables), ["C", "B", "A", "D"]);
        let circle = [("A", "$B"), ("B", "$A"), ("C", "$B"), ("D", "$E")];
        assert_eq!(order(&circle), ["D", "A", "B", "C"]);
    }

    /// A shell's own word on the quoting: what arrives is what was written.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the shell under test")]
    fn a_real_shell_agrees() {
        let command = [
            "printf '%s|'".to_owned(),
            "'\\$5' '\\\"' 'it'\\''s' 'a\\\\\"b' '`id`' \"two words\" '*' $CONTAINER_ID".to_owned(),
            "{{TWICE}}; printenv VALUE".to_owned(),
        ];
        let environment = [
            ("VALUE", "a \"b\" `c` ; exit 3 # *"),
            ("TWICE", "{{CONTAINER_ID}}-{{CONTAINER_ID}}"),
        ];
        let mut script = script(&environment, &command);
        script.own.truncate(1);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("launch_container.sh");
        std::fs::write(&file, script.render()).unwrap();
        let output = std::process::Command::new("/bin/bash")
            .arg(&file)
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let id = "container_e01_7_0001_01_000002";
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("$5|\"|it's|a\\\"b|`id`|two words|*|{id}|{id}-{id}|a \"b\" `c` ; exit 3 # *\n")
        );
    }
}
