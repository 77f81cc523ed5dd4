//! From a program's output pipes into its log files, as it comes, up to a limit.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::fcntl::OFlag;

use crate::sys;

/// Bytes read at a time: the size of a pipe.
const CHUNK_BYTES: usize = 64 << 10;

/// One pipe and its file. The pipe is closed (`None`) when the last writer is gone.
#[derive(Debug)]
struct Stream {
    pipe: Option<File>,
    file: Option<File>,
}

/// Both outputs of a container, with their common limit.
#[derive(Debug)]
pub(crate) struct Pump {
    streams: [Stream; 2],
    /// 0 means none.
    bytes_max: u64,
    bytes: u64,
    cut: bool,
    /// Bytes that could not be written, those not yet told in the log, and why.
    lost: u64,
    untold: u64,
    why: Option<io::Error>,
    buffer: Box<[u8]>,
}

/// A pipe whose read end does not block: the read end, the write end.
pub(crate) fn log_pipe() -> io::Result<(File, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // Only the reader: the program expects a pipe that waits.
    nix::fcntl::fcntl(&read, nix::fcntl::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((File::from(read), write))
}

/// Opens (or makes) a log file for appending, following nothing that a user may have put there.
///
/// # Errors
/// When the name is anything but a regular file with one link.
pub(crate) fn open_log(dir: BorrowedFd<'_>, name: &CStr, uid: u32, gid: u32) -> io::Result<File> {
    let flags =
        libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::from(sys::open_strict(dir.as_raw_fd(), name, flags, 0o640)?);
    let data = file.metadata()?;
    // A link to another file of the same user, a fifo or a device is none of ours.
    if !data.is_file() || data.nlink() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EMLINK));
    }
    if data.uid() != uid {
        nix::unistd::fchown(&file, Some(uid.into()), Some(gid.into()))?;
    }
    Ok(file)
}

impl Pump {
    /// Takes the read ends; the files come later.
    pub(crate) fn new(stdout: File, stderr: File) -> Pump {
        let stream = |pipe| Stream {
            pipe: Some(pipe),
            file: None,
        };
        Pump {
            streams: [stream(stdout), stream(stderr)],
            bytes_max: 0,
            bytes: 0,
            cut: false,
            lost: 0,
            untold: 0,
            why: None,
            buffer: vec![0; CHUNK_BYTES].into_boxed_slice(),
        }
    }

    /// Says where the output goes. What the files hold already counts.
    pub(crate) fn set_files(&mut self, stdout: File, stderr: File, bytes_max: u64) {
        self.bytes = [&stdout, &stderr]
            .into_iter()
            .filter_map(|file| file.metadata().ok())
            .map(|data| data.len())
            .sum();
        self.bytes_max = bytes_max;
        for (stream, file) in self.streams.iter_mut().zip([stdout, stderr]) {
            stream.file = Some(file);
        }
    }

    /// The open pipes, to wait for.
    pub(crate) fn pipes(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let [stdout, stderr] = &self.streams;
        [stdout, stderr].map(|stream| stream.pipe.as_ref().map(AsFd::as_fd))
    }

    /// Moves what is in pipe `index`, one chunk at most. Whether there may be more.
    pub(crate) fn pump(&mut self, index: usize) -> bool {
        let Some(Stream {
            pipe: Some(pipe), ..
        }) = self.streams.get_mut(index)
        else {
            return false;
        };
        match pipe.read(&mut self.buffer) {
            Ok(0) => {
                self.streams[index].pipe = None;
                false
            }
            Ok(count) => {
                self.store(index, count);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.streams[index].pipe = None;
                false
            }
        }
    }

    /// Moves everything that is left; for when the last process has ended.
    pub(crate) fn drain(&mut self) {
        for index in 0..self.streams.len() {
            while self.pump(index) {}
        }
    }

    fn store(&mut self, index: usize, count: usize) {
        if self.cut {
            // Read all the same: a full pipe would hold the program.
            return;
        }
        let Some(file) = self.streams[index].file.as_mut() else {
            return;
        };
        let room = match self.bytes_max {
            0 => u64::MAX,
            max => max.saturating_sub(self.bytes),
        };
        let keep = usize::try_from(room).unwrap_or(usize::MAX).min(count);
        // A full disk loses output, it does not stop the program; where it did is said in the log as
        // soon as that takes something again, and at the container's end.
        let mut written = 0;
        if self.untold > 0 && file.write_all(lost_mark(self.untold).as_bytes()).is_ok() {
            self.untold = 0;
        }
        while self.untold == 0 && written < keep {
            match file.write(&self.buffer[written..keep]) {
                Ok(0) => break,
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.why = Some(e);
                    break;
                }
            }
        }
        let lost = u64::try_from(keep - written).unwrap_or(u64::MAX);
        self.lost = self.lost.saturating_add(lost);
        self.untold = self.untold.saturating_add(lost);
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        if keep < count {
            self.cut = true;
            let _ = file.write_all(mark(self.bytes_max).as_bytes());
        }
    }
}

impl Pump {
    /// In a sentence, what the logs lack because they could not be written.
    pub(crate) fn lost_words(&self) -> Option<String> {
        let why = self.why.as_ref()?;
        (self.lost > 0).then(|| format!("{} bytes of its output are lost: {why}", self.lost))
    }
}

/// The line where output could not be written.
fn lost_mark(bytes: u64) -> String {
    format!("\n[bobbin: {bytes} bytes of output are lost here; they could not be written]\n")
}

/// The line at the end of a cut log.
pub(crate) fn mark(bytes_max: u64) -> String {
    format!(
        "\n[bobbin: cut here; stdout and stderr together have reached the limit of {bytes_max} \
         bytes]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn opened(dir: &std::path::Path, name: &CStr) -> io::Result<File> {
        let own = nix::unistd::geteuid().as_raw();
        let group = nix::unistd::getegid().as_raw();
        open_log(fs::File::open(dir).unwrap().as_fd(), name, own, group)
    }

    #[test]
    fn output_is_cut_with_a_mark_and_the_writer_is_not_held() {
        let dir = tempfile::tempdir().unwrap();
        let (out_read, out_write) = log_pipe().unwrap();
        let (err_read, err_write) = log_pipe().unwrap();
        let mut pump = Pump::new(out_read, err_read);
        let stdout = opened(dir.path(), c"stdout").unwrap();
        let stderr = opened(dir.path(), c"stderr").unwrap();
        pump.set_files(stdout, stderr, 10);
        let mut out = File::from(out_write);
        let mut err = File::from(err_write);
        out.write_all(b"1234").unwrap();
        pump.drain();
        err.write_all(b"12345678").unwrap();
        pump.drain();
        for _ in 0..100 {
            out.write_all(&[b'x'; 4096]).unwrap();
            pump.drain();
        }
        drop((out, err));
        pump.drain();
        assert!(pump.pipes().iter().all(Option::is_none));
        assert_eq!(
            fs::read_to_string(dir.path().join("stdout")).unwrap(),
            "1234"
        );
        let wanted = format!("123456{}", mark(10));
        assert_eq!(
            fs::read_to_string(dir.path().join("stderr")).unwrap(),
            wanted
        );
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let (out_read, out_write) = log_pipe().unwrap();
        let (err_read, err_write) = log_pipe().unwrap();
        let mut pump = Pump::new(out_read, err_read);
        let stderr = opened(dir.path(), c"stderr").unwrap();
        // Every write to it fails as on a full disk. Source: full(4).
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        pump.set_files(full, stderr, 0);
        assert_eq!(pump.lost_words(), None);
        File::from(out_write).write_all(b"12345").unwrap();
        pump.drain();
        let words = pump.lost_words().unwrap();
        assert!(
            words.starts_with("5 bytes") && words.contains("No space left"),
            "{words}"
        );
        // As soon as something can be written, the log itself says it.
        File::from(err_write).write_all(b"well").unwrap();
        pump.drain();
        let wanted = format!("{}well", lost_mark(5));
        assert_eq!(
            fs::read_to_string(dir.path().join("stderr")).unwrap(),
            wanted
        );
    }

    #[test]
    fn links_fifos_and_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), b"s").unwrap();
        std::os::unix::fs::symlink("secret", dir.path().join("soft")).unwrap();
        fs::hard_link(dir.path().join("secret"), dir.path().join("hard")).unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in [c"soft", c"hard", c"folder", c"fifo"] {
            assert!(opened(dir.path(), name).is_err(), "{name:?}");
        }
        assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"s");
    }
}
