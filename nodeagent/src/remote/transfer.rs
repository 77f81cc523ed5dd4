//! From a source's bytes to a file: resumed after broken connections, within bounds.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::said::Said;
use super::store::StoreFile;
use super::web::WebFile;
use crate::fetch::{Expected, FetchError, Sink};

/// Bytes that are gathered before they are written: each write is handed to another thread.
const WRITE_BYTES: usize = 1 << 20;
/// How often one may begin again from the first byte: a server that cannot resume.
const BEGINNINGS_MAX: u32 = 4;

pub(crate) type Pieces = BoxStream<'static, Result<Bytes, FetchError>>;

/// An answer whose bytes are still to come.
pub(crate) struct Opened {
    pub(crate) said: Said,
    /// The file's byte that the first piece begins with.
    pub(crate) start: u64,
    pub(crate) body: Pieces,
}

/// Where the bytes come from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    Web(WebFile),
    Store(StoreFile),
}

/// How long a server that is away is asked again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Tries in a row that bring less than `progress_bytes`.
    pub(crate) tries: u32,
    /// Since the first of them.
    pub(crate) time: Duration,
    /// Before the second try; it doubles up to thirty times as much.
    pub(crate) pause: Duration,
    pub(crate) progress_bytes: u64,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            tries: 8,
            time: Duration::from_secs(120),
            pause: Duration::from_millis(250),
            progress_bytes: 1 << 20,
        }
    }
}

/// How far a copy is, for whoever wants to know.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    done: AtomicU64,
    total: AtomicU64,
}

impl Counter {
    pub(crate) fn set_done(&self, bytes: u64) {
        self.done.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// Bytes so far, and in all; 0: not known.
    pub(crate) fn get(&self) -> (u64, u64) {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (of(&self.done), of(&self.total))
    }
}

impl Origin {
    /// What the server says of the file; asked again while it is away.
    ///
    /// # Errors
    /// It cannot be had, in words.
    pub(crate) async fn look(&self, patience: Patience) -> Result<Said, FetchError> {
        let mut trouble = Trouble::new(patience);
        loop {
            let looked = match self {
                Origin::Web(file) => file.look().await,
                Origin::Store(file) => file.look().await,
            };
            match looked {
                Err(FetchError::Away(words)) => trouble.wait(words, 0).await?,
                other => return other,
            }
        }
    }

    async fn open(&self, from: u64, known: Option<&Said>) -> Result<Opened, FetchError> {
        match self {
            Origin::Web(file) => file.open(from, known).await,
            Origin::Store(file) => file.open(from, known).await,
        }
    }
}

/// Tries that brought nothing.
struct Trouble {
    patience: Patience,
    tries: u32,
    since: tokio::time::Instant,
    /// Bytes when it began.
    bytes: u64,
}

impl Trouble {
    fn new(patience: Patience) -> Trouble {
        Trouble {
            patience,
            tries: 0,
            since: tokio::time::Instant::now(),
            bytes: 0,
        }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// There have been enough.
    async fn wait(&mut self, words: String, bytes: u64) -> Result<(), FetchError> {
        let patience = self.patience;
        if self.tries == 0 || bytes.saturating_sub(self.bytes) >= patience.progress_bytes {
            self.tries = 0;
            self.bytes = bytes;
            self.since = tokio::time::Instant::now();
        }
        self.tries += 1;
        if self.tries >= patience.tries || self.since.elapsed() >= patience.time {
            let tries = self.tries;
            return Err(FetchError::Away(format!(
                "{words} ({bytes} bytes so far, given up after {tries} tries)"
            )));
        }
        tracing::info!("asking again, {bytes} bytes so far: {words}");
        let factor = 1_u32 << (self.tries - 1).min(5);
        let longest = patience.pause.saturating_mul(30);
        tokio::time::sleep(patience.pause.saturating_mul(factor).min(longest)).await;
        Ok(())
    }
}

/// One copy on its way.
struct Transfer<'a> {
    expected: &'a Expected,
    counter: &'a Arc<Counter>,
    to: &'a File,
    /// `None` only while it is with the thread that writes, or before the first answer.
    sink: Option<Sink>,
    have: u64,
    said: Option<Said>,
    beginnings: u32,
}

/// Copies a source into a file and checks what came. `known` is what was said of it before.
///
/// # Errors
/// Why it cannot be had. May be dropped at any time.
pub(crate) async fn transfer(
    origin: &Origin,
    known: Option<Said>,
    (expected, counter): (&Expected, &Arc<Counter>),
    to: &File,
    patience: Patience,
) -> Result<u64, FetchError> {
    let mut trouble = Trouble::new(patience);
    let mut transfer = Transfer {
        expected,
        counter,
        to,
        sink: None,
        have: 0,
        said: known,
        beginnings: 0,
    };
    loop {
        match transfer.try_once(origin).await {
            Ok(()) => break,
            Err(FetchError::Away(words)) => trouble.wait(words, transfer.have).await?,
            Err(e) => return Err(e),
        }
    }
    match transfer.sink {
        Some(sink) => sink.finish(),
        None => Err(FetchError::Away("nothing came".to_owned())),
    }
}

impl Transfer<'_> {
    async fn try_once(&mut self, origin: &Origin) -> Result<(), FetchError> {
        let resumable = self.said.as_ref().is_some_and(Said::is_resumable);
        let from = if resumable && self.sink.is_some() {
            self.have
        } else {
            0
        };
        let opened = origin.open(from, self.said.as_ref()).await?;
        self.judge(&opened)?;
        if opened.start == 0 {
            self.begin().await?;
        }
        self.copy(opened.body).await?;
        match self.said.as_ref().and_then(|said| said.size) {
            Some(size) if self.have < size => Err(FetchError::Away(format!(
                "the data ended after {} of {size} bytes",
                self.have
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether this is the file that is meant; what was not known of it is known then.
    fn judge(&mut self, opened: &Opened) -> Result<(), FetchError> {
        let said = &opened.said;
        if self
            .said
            .as_ref()
            .is_some_and(|known| !known.agrees_with(said))
        {
            return Err(FetchError::Changed);
        }
        let known = self.said.get_or_insert_default();
        known.size = known.size.or(said.size);
        known.modified_ms = known.modified_ms.or(said.modified_ms);
        if known.etag.is_none() {
            known.etag.clone_from(&said.etag);
        }
        if let Some(size) = known.size {
            self.expected.check_size(size)?;
            self.counter.set_total(size);
        }
        self.expected.check_time(known.modified_ms)
    }

    /// From the first byte, whatever came before.
    async fn begin(&mut self) -> Result<(), FetchError> {
        if self.have > 0 {
            self.beginnings += 1;
        }
        if self.beginnings > BEGINNINGS_MAX {
            return Err(FetchError::Place(format!(
                "its server cannot resume, and broke off {BEGINNINGS_MAX} times"
            )));
        }
        let file = self.to.try_clone().map_err(FetchError::Copy)?;
        let sink = Sink::new(self.expected, file);
        self.sink = Some(sink.run(Sink::begin_again).await?);
        self.count(0);
        Ok(())
    }

    fn count(&mut self, bytes: u64) {
        self.have = bytes;
        self.counter.set_done(bytes);
    }

    async fn copy(&mut self, mut body: Pieces) -> Result<(), FetchError> {
        let mut gathered = BytesMut::new();
        let outcome = loop {
            match body.next().await {
                None => break Ok(()),
                Some(Err(e)) => break Err(e),
                Some(Ok(piece)) => {
                    let size = self.said.as_ref().and_then(|said| said.size);
                    let gathering = u64::try_from(gathered.len() + piece.len()).unwrap_or(u64::MAX);
                    if size.is_some_and(|size| self.have.saturating_add(gathering) > size) {
                        return Err(FetchError::Place(
                            "its server sends more bytes than it announced".to_owned(),
                        ));
                    }
                    gathered.extend_from_slice(&piece);
                }
            }
            if gathered.len() >= WRITE_BYTES {
                let data = gathered.split().freeze();
                self.write(data).await?;
            }
        };
        // What came before it broke need not come again.
        self.write(gathered.freeze()).await?;
        outcome
    }

    async fn write(&mut self, data: Bytes) -> Result<(), FetchError> {
        let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let Some(sink) = self.sink.take() else {
            return Err(FetchError::Place(
                "its server sends the middle first".to_owned(),
            ));
        };
        self.sink = Some(sink.run(move |sink| sink.pass(&data)).await?);
        self.count(self.have.saturating_add(bytes));
        Ok(())
    }
}
