//! The systemd units, as far as they can be checked without a running systemd.

use std::process::Command;

use bobbin_tests::{RunExt, root};

#[test]
#[expect(clippy::disallowed_methods, reason = "systemd's own checker")]
fn units_are_well_formed_and_hardened() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("SKIPPED: units_are_well_formed_and_hardened needs systemd-analyze");
        return;
    }
    // A staged tree: verify wants the programs at their paths.
    let stage = tempfile::tempdir().unwrap();
    let units = stage.path().join("etc/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    std::fs::create_dir_all(stage.path().join("usr/bin")).unwrap();
    std::fs::create_dir_all(stage.path().join("usr/lib/systemd")).unwrap();
    // The units that ours refer to, such as sysinit.target, are the host's.
    let _ = Command::new("cp")
        .args(["-a", "/lib/systemd/system"])
        .arg(stage.path().join("usr/lib/systemd/system"))
        .run()
        .expect_code(0);
    for name in ["bobbin-resourcemanager", "bobbin-nodeagent"] {
        let program = stage.path().join("usr/bin").join(name);
        std::fs::copy("/bin/true", program).unwrap();
    }
    for (unit, threshold) in [
        ("bobbin-resourcemanager.service", "20"),
        ("bobbin-nodeagent.service", "60"),
    ] {
        let file = root().join("systemd").join(unit);
        std::fs::copy(&file, units.join(unit)).unwrap();
        std::fs::copy(
            root().join("systemd/bobbin-containers.slice"),
            units.join("bobbin-containers.slice"),
        )
        .unwrap();
        let verify = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(format!("--root={}", stage.path().display()))
            .arg(unit)
            .run()
            .expect_code(0);
        let words: Vec<_> = verify.stderr.lines().filter(|l| l.contains(unit)).collect();
        assert!(words.is_empty(), "{words:#?}");
        let _ = Command::new("systemd-analyze")
            .args([
                "security",
                "--offline=true",
                "--no-pager",
                &format!("--threshold={threshold}"),
            ])
            .arg(&file)
            .run()
            .expect_code(0);
    }
}
