//! The terminal: taken over while `top` runs, and given back as it was however `top` ends.

use std::io::{self, IsTerminal, Stdout};

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Position, Rect};

use crate::failure::{Failure, Kind, io_words};

/// A terminal that is taken over; given back when dropped.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

/// Refuses where nobody can see or type.
///
/// # Errors
/// Standard output or input is no terminal, or one that cannot be drawn on.
pub(super) fn check() -> Result<(), Failure> {
    let cure =
        "`bobbin top --once` prints it once, `bobbin top -n 10 -o json` ten times for a program";
    let refused = |words: &str| Err(Failure::usage(words).try_this(cure));
    if !io::stdout().is_terminal() {
        return refused("standard output is no terminal, so there is nothing to draw on");
    }
    if !io::stdin().is_terminal() {
        return refused("standard input is no terminal, so no key could be pressed");
    }
    if crate::output::is_dumb() {
        return refused("the terminal says (TERM=dumb) that it cannot be drawn on");
    }
    Ok(())
}

pub(super) fn broken(error: &io::Error) -> Failure {
    Failure::new(
        Kind::Failed,
        format!("the terminal cannot be used: {}", io_words(error)),
    )
}

impl Screen {
    /// # Errors
    /// The terminal cannot be taken over.
    pub(super) fn take() -> Result<Screen, Failure> {
        // A panic's words would be lost on the alternate screen, and its terminal unusable.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        let taken = enter().and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match taken {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(e) => {
                give_back();
                Err(broken(&e))
            }
        }
    }

    /// Gives the terminal back, stops the process until it is continued, and takes it again.
    ///
    /// # Errors
    /// It cannot be taken again.
    pub(super) fn suspend(&mut self) -> Result<(), Failure> {
        give_back();
        // As the terminal itself does for any other program: all of the job, a script around it too.
        // Without a shell that would continue it the kernel does not stop it.
        let stopped = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(0),
            nix::sys::signal::Signal::SIGTSTP,
        );
        if let Err(e) = stopped {
            tracing::debug!("it cannot be stopped: {e}");
        }
        enter().and_then(|()| self.clear()).map_err(|e| broken(&e))
    }

    /// Has the next frame drawn whole.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        // `Terminal::clear` would ask the terminal where its cursor is: the answer comes among the
        // keys, where another waits for it.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

/// May be repeated. A terminal that is gone needs nothing.
fn give_back() {
    drop(execute!(io::stdout(), LeaveAlternateScreen, Show));
    drop(disable_raw_mode());
}
