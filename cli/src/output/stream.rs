//! The driver's output on its way out of this process.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use tokio::io::AsyncWrite;

/// As much as a pipe that can be written to takes at once. Source: pipe(7), `PIPE_BUF`.
const AT_ONCE: usize = 4096;

/// Standard output or error. What cannot block is written here and now; the rest goes to a thread of
/// the runtime's, whose start alone takes longer than most lines, so that a reader who has stopped
/// does not stop this process.
#[derive(Debug)]
pub(crate) struct Stream<F, W> {
    file: F,
    threaded: W,
    /// A pipe or a file: what is said of their readiness is exact.
    is_plain: bool,
    /// The thread may still hold something that comes before what is to be written.
    is_busy: bool,
}

pub(crate) type Stdout = Stream<io::Stdout, tokio::io::Stdout>;
pub(crate) type Stderr = Stream<io::Stderr, tokio::io::Stderr>;

/// Standard output.
pub(crate) fn out() -> Stdout {
    Stream::new(io::stdout(), tokio::io::stdout())
}

/// Standard error.
pub(crate) fn err() -> Stderr {
    Stream::new(io::stderr(), tokio::io::stderr())
}

impl<F: AsFd, W> Stream<F, W> {
    fn new(file: F, threaded: W) -> Stream<F, W> {
        let kind = fstat(&file).map_or(SFlag::empty(), |stat| {
            SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
        });
        Stream {
            file,
            threaded,
            is_plain: kind == SFlag::S_IFIFO || kind == SFlag::S_IFREG,
            is_busy: false,
        }
    }

    /// What was written without waiting, if that is possible now.
    fn write_now(&self, bytes: &[u8]) -> Option<io::Result<usize>> {
        if !self.is_plain || self.is_busy || bytes.is_empty() {
            return None;
        }
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        let is_ready = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
        if !is_ready {
            return None;
        }
        let part = &bytes[..bytes.len().min(AT_ONCE)];
        Some(nix::unistd::write(&self.file, part).map_err(io::Error::from))
    }
}

impl<F: AsFd + Unpin, W: AsyncWrite + Unpin> AsyncWrite for Stream<F, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.len() <= AT_ONCE
            && let Some(written) = self.write_now(bytes)
        {
            return Poll::Ready(written);
        }
        self.is_busy = true;
        Pin::new(&mut self.threaded).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_busy {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.threaded).poll_flush(cx);
        if flushed.is_ready() {
            self.is_busy = false;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.threaded).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// What comes the other way is marked, so that the two can be told apart.
    #[tokio::test]
    async fn a_full_pipe_is_left_to_the_thread_and_order_is_kept() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (threaded, mut other) = tokio::io::duplex(1 << 20);
        let mut stream = Stream::new(writer, threaded);
        let line = [b'x'; 1024];
        let mut direct = 0;
        loop {
            stream.write_all(&line).await.unwrap();
            if stream.is_busy {
                break;
            }
            direct += line.len();
        }
        assert!(direct >= AT_ONCE, "{direct}");
        // There is room again, but what is before it is not flushed.
        let mut read = vec![0; direct];
        reader.read_exact(&mut read).unwrap();
        stream.write_all(b"second").await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(b"third").await.unwrap();
        drop(stream);
        let mut late = Vec::new();
        reader.read_to_end(&mut late).unwrap();
        assert_eq!(late, b"third");
        let mut threaded = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut other, &mut threaded)
            .await
            .unwrap();
        assert_eq!(threaded, [&line[..], b"second"].concat());
    }

    #[tokio::test]
    async fn a_reader_who_has_gone_is_told_at_once() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut stream = Stream::new(writer, tokio::io::sink());
        let error = stream.write_all(b"lost").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
