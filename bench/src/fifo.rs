//! Words between a benchmark and a program in a container, without starting anything for them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

/// A named pipe held open at both ends, so that neither side waits for the other to come.
#[derive(Debug)]
pub(crate) struct Fifo {
    file: File,
    received: Vec<u8>,
}

impl Fifo {
    /// Makes one that everybody may use.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn make(path: &Path) -> anyhow::Result<Fifo> {
        nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)
            .with_context(|| path.display().to_string())?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        Ok(Fifo {
            file,
            received: Vec::new(),
        })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Nobody has read so many of them that the pipe is full.
    pub(crate) fn say(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(self.file.write_all(format!("{line}\n").as_bytes())?)
    }

    /// Waits for a line.
    ///
    /// # Errors
    /// None has come for so long.
    pub(crate) fn hear(&mut self, at_most: Duration) -> anyhow::Result<String> {
        let end = Instant::now() + at_most;
        loop {
            if let Some(at) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            let left = end.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "nothing was heard for {at_most:?}");
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            poll(
                &mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)],
                timeout,
            )?;
            let mut bytes = [0_u8; 4096];
            match self.file.read(&mut bytes) {
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_waiting_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let mut fifo = Fifo::make(&path).unwrap();
        fifo.say("one").unwrap();
        fifo.say("two words").unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(fifo.hear(second).unwrap(), "one");
        assert_eq!(fifo.hear(second).unwrap(), "two words");
        let error = fifo.hear(Duration::from_millis(1)).unwrap_err();
        assert!(error.to_string().contains("nothing was heard"), "{error}");
    }
}
