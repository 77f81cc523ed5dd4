//! A process that does nothing: some things of the system exist only as long as one is in them.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running `bobbin-container-init --hold`. It ends with this value, and with this process however
/// that ends.
#[derive(Debug)]
pub struct Holder {
    child: Child,
}

impl Holder {
    /// Starts one from the `bobbin-container-init` binary.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(init_program: &Path) -> io::Result<Holder> {
        let child = Command::new(init_program)
            .arg("--hold")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Holder { child })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stays until the other end of stdin is closed.
///
/// # Errors
/// When stdin cannot be read.
pub fn hold() -> io::Result<()> {
    let mut byte = [0_u8; 1];
    let mut stdin = io::stdin().lock();
    loop {
        match stdin.read(&mut byte) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
