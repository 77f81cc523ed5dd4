//! One progress bar on standard error; nothing where nobody watches.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws a second: enough to look alive, too few to cost anything.
const DRAWS_PER_SECOND: u8 = 10;

/// A bar that is cleared when dropped; silent without a terminal or with `-q`.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// Over bytes, such as an upload.
    pub(crate) fn bytes(quiet: bool, total: u64, what: String) -> Bar {
        Bar::new(
            quiet,
            total,
            what,
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        )
    }

    /// Over things, such as tasks.
    pub(crate) fn count(quiet: bool, total: u64, what: String) -> Bar {
        Bar::new(quiet, total, what, "{msg} {wide_bar} {pos}/{len} {eta}")
    }

    /// Without a known end.
    pub(crate) fn waiting(quiet: bool, what: String) -> Bar {
        let bar = Bar::new(quiet, 0, what, "{spinner} {msg} {elapsed}");
        if !bar.bar.is_hidden() {
            bar.bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }

    fn new(quiet: bool, total: u64, what: String, template: &str) -> Bar {
        if !super::shows_progress(quiet) {
            return Bar {
                bar: ProgressBar::hidden(),
            };
        }
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(Some(total), target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Bar { bar }
    }

    /// For another thread, which moves the bar but does not end it.
    pub(crate) fn counter(&self) -> Counter {
        Counter {
            bar: self.bar.clone(),
        }
    }

    pub(crate) fn add(&self, amount: u64) {
        self.bar.inc(amount);
    }

    pub(crate) fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    pub(crate) fn say(&self, what: String) {
        self.bar.set_message(what);
    }

    /// Runs `print` with the bar out of the way.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Moves a bar that another owns.
#[derive(Debug)]
pub(crate) struct Counter {
    bar: ProgressBar,
}

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.bar.inc(amount);
    }
}
