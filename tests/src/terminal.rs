//! A program on a terminal of its own: keys go in, and what a person would see can be read.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

use crate::wait_for;

/// A running program and its terminal.
pub struct Terminal {
    child: Child,
    master: File,
    /// Kept open, so that the terminal's settings can be read when the program has ended.
    slave: File,
    before: Termios,
    written: Receiver<Vec<u8>>,
    parser: vt100::Parser,
    /// Every byte, for what the screen does not keep.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.parser.screen().contents())
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Terminal {
    /// Starts `command` in a session of its own with a terminal of this size.
    #[expect(
        clippy::disallowed_methods,
        reason = "the harness runs the programs under test"
    )]
    #[must_use]
    pub fn start(command: &Command, rows: u16, columns: u16) -> Terminal {
        let pty = openpty(&size(rows, columns), None).expect("there are terminals to be had");
        let (master, slave) = (File::from(pty.master), File::from(pty.slave));
        let before = tcgetattr(slave.as_fd()).expect("it is a terminal");
        let stdio = || Stdio::from(slave.try_clone().expect("descriptors are left"));
        let mut wrapped = Command::new("setsid");
        wrapped
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args())
            .env("TERM", "xterm-256color")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        let child = wrapped.spawn().expect("the program can be started");
        let (sender, written) = channel();
        let mut reader = master.try_clone().expect("descriptors are left");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Terminal {
            child,
            master,
            slave,
            before,
            written,
            parser: vt100::Parser::new(
                rows.try_into().expect("a terminal has rows"),
                columns.try_into().expect("a terminal has columns"),
                0,
            ),
            bytes: Vec::new(),
        }
    }

    /// Types.
    pub fn press(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("the terminal takes keys");
    }

    fn drain(&mut self) {
        while let Ok(bytes) = self.written.try_recv() {
            self.parser.process(&bytes);
            self.bytes.extend(bytes);
        }
    }

    /// Waits until the screen is as `seen` wants; the screen then.
    #[track_caller]
    pub fn wait_screen(&mut self, what: &str, seen: impl Fn(&str) -> bool) -> String {
        wait_for(what, 60, || {
            self.drain();
            let screen = self.parser.screen().contents();
            if seen(&screen) {
                Ok(screen)
            } else {
                Err(format!("\n{screen}"))
            }
        })
    }

    /// Waits until a text is on the screen.
    #[track_caller]
    pub fn wait_text(&mut self, text: &str) -> String {
        self.wait_screen(text, |screen| screen.contains(text))
    }

    /// Makes the terminal another size, as a window that is pulled.
    #[expect(clippy::disallowed_methods, reason = "stty is a test's tool")]
    pub fn resize(&mut self, rows: u16, columns: u16) {
        let slave = self.slave.try_clone().expect("descriptors are left");
        let status = Command::new("stty")
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .stdin(slave)
            .status();
        assert!(status.expect("stty can be started").success());
        self.parser.screen_mut().set_size(
            rows.try_into().expect("a terminal has rows"),
            columns.try_into().expect("a terminal has columns"),
        );
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("process ids are small");
        kill(Pid::from_raw(pid), signal).expect("the program runs");
    }

    /// Waits for the program's end and checks that the terminal is as it was; the exit code, 128 more
    /// than the signal that ended it.
    #[track_caller]
    pub fn ended(&mut self) -> i32 {
        let status = wait_for("the program's end", 30, || {
            self.drain();
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err(self.parser.screen().contents()),
                Err(e) => Err(e.to_string()),
            }
        });
        self.assert_given_back();
        use std::os::unix::process::ExitStatusExt;
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// The usual screen, a cursor, and the settings from before.
    #[track_caller]
    pub fn assert_given_back(&mut self) {
        wait_for("the usual screen", 10, || {
            self.drain();
            let screen = self.parser.screen();
            if screen.alternate_screen() || screen.hide_cursor() {
                Err(screen.contents())
            } else {
                Ok(())
            }
        });
        let after = tcgetattr(self.slave.as_fd()).expect("it is a terminal");
        assert_eq!(
            (after.input_flags, after.output_flags, after.local_flags),
            (
                self.before.input_flags,
                self.before.output_flags,
                self.before.local_flags
            ),
            "the terminal's settings are not as they were"
        );
    }

    /// Whether the program has taken the screen over.
    #[must_use]
    pub fn is_taken(&mut self) -> bool {
        self.drain();
        self.parser.screen().alternate_screen()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
