//! What keys do.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "keys without a meaning do nothing"
)]

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::{Overlay, Top, View};

/// What the shell does for a key; everything else the state has done itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    /// Give the terminal back and stop until continued.
    Suspend,
    /// Draw everything anew: the terminal may have lost what was drawn.
    Redraw,
    Kill(String),
}

/// What the help shows: keys and words.
pub(super) const HELP: [(&str, &str); 17] = [
    (
        "1 2 3, Tab",
        "applications, nodes, containers of the chosen application",
    ),
    (
        "up down, j k",
        "choose a row; PgUp PgDn Home End (g G) go further",
    ),
    ("Enter", "everything about the chosen row; Esc goes back"),
    ("c", "containers of the chosen application"),
    (
        "l",
        "the driver's log, or the chosen container's; o there: stdout or stderr",
    ),
    ("K", "kill the chosen application; asks first"),
    ("s, > and <", "sort by the next column, the one before"),
    ("r", "sort the other way round"),
    (
        "/",
        "show only rows with a word; Enter keeps it, Esc clears it",
    ),
    ("a", "ended applications too, or only those that are not"),
    (
        "p, Space",
        "pause: nothing changes until it is pressed again",
    ),
    ("? h", "this help"),
    ("q, Ctrl+C", "quit; Ctrl+L draws anew"),
    ("", ""),
    (
        "MEMORY, VCORES",
        "of applications: granted; of containers: in use now",
    ),
    (
        "IN USE, CPU",
        "of nodes: of the whole machine, whoever uses it",
    ),
    ("CPU", "of containers: 100% is one core"),
];

impl Top {
    /// A key was pressed.
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Action::Quit,
                KeyCode::Char('z') => Action::Suspend,
                KeyCode::Char('l') => Action::Redraw,
                _ => Action::None,
            };
        }
        self.notice = None;
        match std::mem::replace(&mut self.overlay, Overlay::None) {
            Overlay::None => self.table_key(key.code),
            Overlay::Help => self.help_key(key.code),
            Overlay::Filter { before } => self.filter_key(key.code, before),
            Overlay::Kill { id, words } => self.kill_key(key.code, id, words),
            overlay @ (Overlay::Details { .. } | Overlay::Log(_)) => {
                self.overlay = overlay;
                self.reading_key(key.code)
            }
        }
    }

    fn table_key(&mut self, code: KeyCode) -> Action {
        let page = isize::try_from(self.page.max(1)).unwrap_or(isize::MAX);
        match code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('1') => self.view = View::Applications,
            KeyCode::Char('2') => self.view = View::Nodes,
            KeyCode::Char('3' | 'c') => self.open_containers(),
            KeyCode::Tab => match self.view {
                View::Applications => self.view = View::Nodes,
                View::Nodes => self.open_containers(),
                View::Containers => self.view = View::Applications,
            },
            KeyCode::BackTab => match self.view {
                View::Applications => self.open_containers(),
                View::Nodes => self.view = View::Applications,
                View::Containers => self.view = View::Nodes,
            },
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-page),
            KeyCode::PageDown => self.move_by(page),
            KeyCode::Home | KeyCode::Char('g') => self.move_by(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.move_by(isize::MAX),
            KeyCode::Char('s' | '>' | 'S') => self.sort(1),
            KeyCode::Char('<') => self.sort(-1),
            KeyCode::Char('r') => self.reverse(),
            KeyCode::Char('/') => {
                let before = self.filter().to_owned();
                self.overlay = Overlay::Filter { before };
            }
            KeyCode::Esc if !self.filter().is_empty() => self.set_filter(String::new()),
            KeyCode::Enter => self.open_details(),
            KeyCode::Char('l') => self.open_log(),
            KeyCode::Char('K') => self.ask_kill(),
            KeyCode::Char('a') => self.ended = !self.ended,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('?' | 'h') => self.overlay = Overlay::Help,
            _ => {}
        }
        Action::None
    }

    fn help_key(&mut self, code: KeyCode) -> Action {
        // Every other key closes it.
        if code == KeyCode::Char('q') {
            Action::Quit
        } else {
            Action::None
        }
    }

    fn filter_key(&mut self, code: KeyCode, before: String) -> Action {
        let mut text = self.filter().to_owned();
        match code {
            KeyCode::Enter => return Action::None,
            KeyCode::Esc => {
                self.set_filter(before);
                return Action::None;
            }
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Char(c) => text.push(c),
            _ => {}
        }
        self.set_filter(text);
        self.overlay = Overlay::Filter { before };
        Action::None
    }

    fn kill_key(&mut self, code: KeyCode, id: String, words: String) -> Action {
        match code {
            KeyCode::Char('y' | 'Y') => return Action::Kill(id),
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                self.tell(format!("{id} is not killed"), false);
            }
            // Anything else may be meant for the table: it must neither kill nor be lost unseen.
            _ => self.overlay = Overlay::Kill { id, words },
        }
        Action::None
    }

    /// Details and logs: texts to scroll in.
    fn reading_key(&mut self, code: KeyCode) -> Action {
        let page = isize::try_from(self.page.max(1)).unwrap_or(isize::MAX);
        let rows = match code {
            KeyCode::Up | KeyCode::Char('k') => -1,
            KeyCode::Down | KeyCode::Char('j') => 1,
            KeyCode::PageUp => -page,
            KeyCode::PageDown | KeyCode::Char(' ') => page,
            KeyCode::Home | KeyCode::Char('g') => isize::MIN,
            KeyCode::End | KeyCode::Char('G') => isize::MAX,
            KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace => {
                self.overlay = Overlay::None;
                return Action::None;
            }
            KeyCode::Char('q') => {
                self.overlay = Overlay::None;
                return Action::None;
            }
            KeyCode::Char('l') => {
                let in_details = matches!(self.overlay, Overlay::Details { .. });
                if in_details {
                    self.open_log();
                }
                return Action::None;
            }
            KeyCode::Char('K') => {
                self.ask_kill();
                return Action::None;
            }
            KeyCode::Char('o') => {
                if let Overlay::Log(log) = &mut self.overlay {
                    log.turn();
                }
                return Action::None;
            }
            _ => return Action::None,
        };
        match &mut self.overlay {
            // Its end is known when it is drawn.
            Overlay::Details { top, .. } => *top = top.saturating_add_signed(rows),
            Overlay::Log(log) => log.scroll(rows),
            Overlay::None | Overlay::Help | Overlay::Filter { .. } | Overlay::Kill { .. } => {}
        }
        Action::None
    }

    fn move_by(&mut self, rows: isize) {
        match self.view {
            View::Applications => self.applications.move_by(rows),
            View::Nodes => self.nodes.move_by(rows),
            View::Containers => self.containers.move_by(rows),
        }
    }

    fn sort(&mut self, steps: isize) {
        let now_ms = self.now_ms;
        match self.view {
            View::Applications => self.applications.sort_next(steps, now_ms),
            View::Nodes => self.nodes.sort_next(steps, now_ms),
            View::Containers => self.containers.sort_next(steps, now_ms),
        }
    }

    fn reverse(&mut self) {
        let now_ms = self.now_ms;
        match self.view {
            View::Applications => self.applications.reverse(now_ms),
            View::Nodes => self.nodes.reverse(now_ms),
            View::Containers => self.containers.reverse(now_ms),
        }
    }

    pub(super) fn filter(&self) -> &str {
        match self.view {
            View::Applications => self.applications.filter(),
            View::Nodes => self.nodes.filter(),
            View::Containers => self.containers.filter(),
        }
    }

    fn set_filter(&mut self, filter: String) {
        let now_ms = self.now_ms;
        match self.view {
            View::Applications => self.applications.set_filter(filter, now_ms),
            View::Nodes => self.nodes.set_filter(filter, now_ms),
            View::Containers => self.containers.set_filter(filter, now_ms),
        }
    }
}
