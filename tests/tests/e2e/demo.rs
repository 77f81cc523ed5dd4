//! The demo runs to its clean end.

use std::process::Command;

use bobbin_tests::{RunExt, program, root, skip_without_root};

#[test]
#[expect(clippy::disallowed_methods, reason = "the demo is a script")]
fn the_demo_prints_its_table() {
    if skip_without_root("the_demo_prints_its_table") {
        return;
    }
    let programs = program("bobbin").parent().unwrap().to_owned();
    let run = Command::new(root().join("examples/demo"))
        // As `make demo` does: relative to the repository.
        .current_dir(root())
        .env(
            "BOBBIN_BIN",
            programs.strip_prefix(root()).unwrap_or(&programs),
        )
        .run()
        .expect_code(0);
    assert!(
        run.stdout
            .contains("United Air Lines Inc.           57782     3.56 min"),
        "{run:?}"
    );
    assert!(
        run.stdout
            .contains("336776 flights in 16 parts: the same table"),
        "{run:?}"
    );
    assert!(run.stdout.contains("FINISHED"), "{run:?}");
}
