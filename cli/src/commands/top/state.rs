//! What `top` knows and shows: told of keys, answers and log bytes, it says what is wanted. It reads no
//! clock, asks nobody and draws nothing.

use std::collections::HashMap;

use crate::output::{Application, Container, Node, application_text, container_text, node_text};

use super::log_view::{LogSource, LogView};
use super::table::Table;

/// One of the three lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Applications,
    Nodes,
    Containers,
}

/// What the next look at the cluster should bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) view: View,
    /// Whose containers.
    pub(super) of: Option<String>,
    /// Ended applications too.
    pub(super) ended: bool,
    /// The application whose every detail is shown.
    pub(super) details: Option<String>,
    pub(super) paused: bool,
}

/// The cluster in a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) nodes: u32,
    pub(super) applications: u64,
    pub(super) memory_mib: u64,
    pub(super) memory_used_mib: u64,
    pub(super) vcores: u32,
    pub(super) vcores_used: u32,
}

/// The list of one view.
#[derive(Debug)]
pub(super) enum List {
    Applications {
        rows: Vec<Application>,
        /// There are more than are listed.
        more: bool,
    },
    Nodes(Vec<Node>),
    Containers {
        of: String,
        rows: Vec<Container>,
        /// Nodes that could not be asked what is used, and why.
        silent: Vec<String>,
    },
    /// No application was chosen whose containers there could be.
    Nothing,
}

/// One look at the cluster.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Unix milliseconds.
    pub(super) now_ms: u64,
    pub(super) summary: Summary,
    pub(super) list: List,
    pub(super) details: Option<Box<Application>>,
}

/// What lies over the table.
#[derive(Debug)]
pub(super) enum Overlay {
    None,
    Help,
    /// Typing a filter; what it was before.
    Filter {
        before: String,
    },
    /// Everything about one row; `application` is renewed with every look.
    Details {
        application: Option<String>,
        text: String,
        top: usize,
    },
    /// A kill that waits for its yes.
    Kill {
        id: String,
        words: String,
    },
    Log(Box<LogView>),
}

/// Whether the last look succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Fine,
    Lost(String),
}

/// A line for the person at the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) bad: bool,
}

/// The whole state.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) view: View,
    pub(super) applications: Table<Application>,
    pub(super) nodes: Table<Node>,
    pub(super) containers: Table<Container>,
    /// Whose containers are shown.
    pub(super) of: Option<String>,
    pub(super) ended: bool,
    pub(super) paused: bool,
    pub(super) more: bool,
    pub(super) silent: Vec<String>,
    pub(super) summary: Summary,
    pub(super) link: Link,
    pub(super) overlay: Overlay,
    pub(super) notice: Option<Notice>,
    pub(super) now_ms: u64,
    /// Rows of a table that fit on the screen, as last drawn.
    pub(super) page: usize,
}

impl Top {
    /// Starts with the containers of `of`, or else with all applications.
    pub(super) fn new(of: Option<String>, ended: bool, now_ms: u64) -> Top {
        Top {
            view: if of.is_some() {
                View::Containers
            } else {
                View::Applications
            },
            applications: Table::default(),
            nodes: Table::default(),
            containers: Table::default(),
            of,
            ended,
            paused: false,
            more: false,
            silent: Vec::new(),
            summary: Summary::default(),
            link: Link::Connecting,
            overlay: Overlay::None,
            notice: None,
            now_ms,
            page: 1,
        }
    }

    pub(super) fn wanted(&self) -> Wanted {
        let details = match &self.overlay {
            Overlay::Details { application, .. } => application.clone(),
            Overlay::None
            | Overlay::Help
            | Overlay::Filter { .. }
            | Overlay::Kill { .. }
            | Overlay::Log(_) => None,
        };
        Wanted {
            view: self.view,
            of: self.of.clone(),
            ended: self.ended,
            details,
            paused: self.paused,
        }
    }

    pub(super) fn on_snapshot(&mut self, snapshot: Snapshot) {
        self.link = Link::Fine;
        self.now_ms = snapshot.now_ms;
        self.summary = snapshot.summary;
        match snapshot.list {
            List::Applications { rows, more } => {
                self.more = more;
                self.applications.set_rows(rows, self.now_ms);
            }
            List::Nodes(rows) => self.nodes.set_rows(rows, self.now_ms),
            List::Containers {
                of,
                mut rows,
                silent,
            } => {
                if self.of.as_ref() == Some(&of) {
                    add_rates(self.containers.rows(), &mut rows);
                    self.silent = silent;
                    self.containers.set_rows(rows, self.now_ms);
                }
            }
            List::Nothing => {}
        }
        let Some(details) = snapshot.details else {
            return;
        };
        if let Overlay::Details {
            application, text, ..
        } = &mut self.overlay
            && application.as_ref() == Some(&details.id)
        {
            *text = application_text(&details, self.now_ms);
        }
    }

    /// Bytes of a log; of another one than is shown they came too late.
    pub(super) fn on_log(&mut self, source: &LogSource, bytes: &[u8]) {
        if let Overlay::Log(log) = &mut self.overlay
            && log.source == *source
        {
            log.on_bytes(bytes);
        }
    }

    pub(super) fn on_log_status(&mut self, source: &LogSource, words: String) {
        if let Overlay::Log(log) = &mut self.overlay
            && log.source == *source
        {
            log.status = words;
        }
    }

    /// The last look failed. What was seen before stays.
    pub(super) fn on_failed(&mut self, reason: String) {
        self.link = Link::Lost(reason);
    }

    pub(super) fn tell(&mut self, text: String, bad: bool) {
        self.notice = Some(Notice { text, bad });
    }

    /// Everything about the chosen row.
    pub(super) fn open_details(&mut self) {
        let (application, text) = match self.view {
            View::Applications => match self.applications.chosen() {
                Some(row) => (Some(row.id.clone()), application_text(row, self.now_ms)),
                None => return,
            },
            View::Nodes => match self.nodes.chosen() {
                Some(row) => (None, node_text(row, self.now_ms)),
                None => return,
            },
            View::Containers => match self.containers.chosen() {
                Some(row) => (None, container_text(row)),
                None => return,
            },
        };
        self.overlay = Overlay::Details {
            application,
            text,
            top: 0,
        };
    }

    /// Shows the containers of the chosen application; without one, of the last one that was.
    pub(super) fn open_containers(&mut self) {
        if self.view == View::Applications
            && let Some(chosen) = self.applications.chosen()
            && self.of.as_ref() != Some(&chosen.id)
        {
            self.of = Some(chosen.id.clone());
            self.containers.forget();
            self.silent.clear();
        }
        self.view = View::Containers;
    }

    /// The application that a key means, wherever it is pressed.
    pub(super) fn chosen_application(&self) -> Option<String> {
        match self.view {
            View::Applications => self.applications.chosen().map(|row| row.id.clone()),
            View::Containers => self.of.clone(),
            View::Nodes => None,
        }
    }

    /// Asks before it kills.
    pub(super) fn ask_kill(&mut self) {
        let Some(id) = self.chosen_application() else {
            self.tell("choose an application to kill".to_owned(), true);
            return;
        };
        let known = self.applications.rows().iter().find(|row| row.id == id);
        let words = known.map_or_else(String::new, |row| {
            format!("{} of {}, {}", row.name, row.user, row.state)
        });
        self.overlay = Overlay::Kill { id, words };
    }

    /// The chosen container's log, or the chosen application's driver's.
    pub(super) fn open_log(&mut self) {
        let Some(application) = self.chosen_application() else {
            self.tell(
                "choose an application or a container to see its log".to_owned(),
                true,
            );
            return;
        };
        let container = match self.view {
            View::Containers => match self.containers.chosen() {
                Some(row) => Some(row.id.clone()),
                None => {
                    self.tell("there is no container to see the log of".to_owned(), true);
                    return;
                }
            },
            View::Applications | View::Nodes => None,
        };
        self.overlay = Overlay::Log(Box::new(LogView::new(application, container)));
    }
}

/// Turns processor time into a share of one core: since the look before, or since its start.
pub(super) fn add_rates(before: &[Container], now: &mut [Container]) {
    let usages = before
        .iter()
        .filter_map(|c| Some((c.id.as_str(), c.usage.as_ref()?)));
    let before: HashMap<_, _> = usages.collect();
    for container in now {
        let Some(usage) = &mut container.usage else {
            continue;
        };
        let (cpu_ms, span_ms) = match before.get(container.id.as_str()) {
            // The same measurement again, or a clock that was set back.
            Some(old) if old.measured_ms >= usage.measured_ms => {
                usage.cpu_permille = old.cpu_permille;
                continue;
            }
            Some(old) => (
                usage.cpu_ms.saturating_sub(old.cpu_ms),
                usage.measured_ms - old.measured_ms,
            ),
            None => (usage.cpu_ms, usage.running_ms),
        };
        usage.cpu_permille = cpu_ms.saturating_mul(1000) / span_ms.max(1);
    }
}
