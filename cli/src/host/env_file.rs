//! `DIR/env`: what a shell reads to use the cluster.

use super::Layout;
use crate::failure::{Failure, Kind};

/// Everybody may read it: it holds no secret.
const MODE: u32 = 0o644;

/// Writes it.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(layout: &Layout) -> Result<(), Failure> {
    bobbin_service::atomic_write(&layout.env(), text(layout).as_bytes(), MODE)
        .map_err(|e| Failure::new(Kind::Failed, crate::cluster::sentence(&e)))
}

/// POSIX shell. Read twice it changes nothing more.
fn text(layout: &Layout) -> String {
    let quoted = |path: std::path::PathBuf| quote(&path.display().to_string());
    format!(
        "# Written by `bobbin up`. Source: . {env}\n\
         export BOBBIN_DIR={dir}\n\
         export BOBBIN_RM_SOCKET={socket}\n\
         export BOBBIN_SHARED_DIR={shared}\n\
         export HADOOP_CONF_DIR={hadoop}\n\
         unset BOBBIN_RM_ADDRESS BOBBIN_TOKEN_FILE YARN_CONF_DIR HADOOP_TOKEN_FILE_LOCATION\n\
         if [ -O {token} ]; then export HADOOP_TOKEN_FILE_LOCATION={token}; fi\n\
         # Else a Spark here would listen on an outer address.\n\
         export SPARK_LOCAL_IP=\"${{SPARK_LOCAL_IP:-{host}}}\"\n\
         case \":$PATH:\" in\n\
         *\":$BOBBIN_DIR/bin:\"*) ;;\n\
         *) PATH=\"$BOBBIN_DIR/bin:$PATH\"; export PATH ;;\n\
         esac\n",
        env = quoted(layout.env()),
        dir = quoted(layout.dir.clone()),
        socket = quoted(layout.socket()),
        shared = quoted(layout.shared()),
        hadoop = quoted(layout.hadoop_conf()),
        // Others than its owner go by the account of their processes.
        token = quoted(layout.hadoop_token()),
        host = super::HOST,
    )
}

/// A word that any POSIX shell reads back as it is.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell sees after reading the file twice.
    #[expect(
        clippy::disallowed_methods,
        reason = "a shell reads what was written for it"
    )]
    fn sourced(layout: &Layout) -> Vec<String> {
        let output = std::process::Command::new("/bin/sh")
            .args(["-eu", "-c"])
            .arg(r#". "$0"; . "$0"; printf '%s\n' "$BOBBIN_DIR" "$BOBBIN_RM_SOCKET" "$BOBBIN_SHARED_DIR" "$PATH" "$HADOOP_CONF_DIR" "${HADOOP_TOKEN_FILE_LOCATION-none}" "$SPARK_LOCAL_IP""#)
            .arg(layout.env())
            .env("PATH", "/usr/bin:/bin")
            .env("HADOOP_TOKEN_FILE_LOCATION", "/of/another/cluster")
            .env_remove("SPARK_LOCAL_IP")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn any_folder_name_survives_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "plain",
            "with space",
            "it's",
            "\"quoted\" $HOME `id` \\ *",
            "ünï",
        ] {
            let dir = folder.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            let layout = Layout::of(Some(&dir)).unwrap();
            write(&layout).unwrap();
            let seen = sourced(&layout);
            let dir = layout.dir.display().to_string();
            assert_eq!(seen[0], dir);
            assert_eq!(seen[1], format!("{dir}/run/resourcemanager.sock"));
            assert_eq!(seen[2], format!("{dir}/shared"));
            assert_eq!(
                seen[3],
                format!("{dir}/bin:/usr/bin:/bin"),
                "once, however often read"
            );
            assert_eq!(seen[4], format!("{dir}/conf/hadoop"));
            assert_eq!(seen[5], "none");
            assert_eq!(seen[6], "127.0.0.1");
            std::fs::create_dir(layout.lib()).unwrap();
            std::fs::write(layout.hadoop_token(), "").unwrap();
            assert_eq!(sourced(&layout)[5], format!("{dir}/lib/hadoop.token"));
        }
    }

    #[test]
    fn quoting() {
        assert_eq!(quote("/tmp/a"), "/tmp/a");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
