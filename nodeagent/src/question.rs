//! A look at the core from a door: asked in the driver's own order, answered at once.

use std::fmt;

use bobbin_na_core::NodeAgent;
use tokio::sync::{mpsc, oneshot};

use crate::driver::Input;

/// What the driver runs on the core.
pub(crate) struct Question(Box<dyn FnOnce(&NodeAgent) + Send>);

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

impl Question {
    pub(crate) fn answer(self, core: &NodeAgent) {
        (self.0)(core);
    }
}

/// Asks; `None` when the agent stops.
pub(crate) async fn ask<T: Send + 'static>(
    driver: &mpsc::Sender<Input>,
    question: impl FnOnce(&NodeAgent) -> T + Send + 'static,
) -> Option<T> {
    let (sender, answer) = oneshot::channel();
    let question = Question(Box::new(move |core| {
        // The asker may have gone away.
        drop(sender.send(question(core)));
    }));
    driver.send(Input::Question(question)).await.ok()?;
    answer.await.ok()
}
