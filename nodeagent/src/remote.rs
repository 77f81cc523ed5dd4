//! Files from outside the cluster: web servers and object stores.
//!
//! A source is read ([`place`]), its credentials chosen ([`credentials`]), every address judged before
//! it is connected to ([`gate`], [`transport`]), and the bytes copied with resumption ([`transfer`]).

pub(crate) mod credentials;
pub(crate) mod gate;
pub(crate) mod place;
mod said;
mod store;
pub(crate) mod transfer;
pub(crate) mod transport;
mod web;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

pub(crate) use said::Said;

use crate::fetch::FetchError;
use credentials::{Chosen, Stores, choose};
use gate::{AllowedHost, Gate};
use place::{RemotePlace, web};
use store::{Client, StoreFile};
use transfer::{Origin, Patience};
use transport::Transport;
use web::WebFile;

/// Requests and copies of one user at a time: slow servers of one must not stop another's.
const SEATS_PER_USER: usize = 8;

/// What all fetches from outside share.
#[derive(Debug)]
pub(crate) struct Remote {
    gate: Arc<Gate>,
    transport: Arc<Transport>,
    /// Setting localizer.credentials_file; empty: none.
    credentials_file: PathBuf,
    pub(crate) patience: Patience,
    seats: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A source with everything that is needed to fetch it.
#[derive(Clone, Debug)]
pub(crate) struct RemoteFile {
    pub(crate) origin: Origin,
    /// Of the store's own servers; what the same source may mean elsewhere is another file.
    pub(crate) endpoint: String,
    /// Everybody on this node could fetch it.
    pub(crate) for_everybody: bool,
}

impl Remote {
    pub(crate) fn new(
        gate: Gate,
        transport: Transport,
        credentials_file: PathBuf,
        patience: Patience,
    ) -> Remote {
        Remote {
            gate: Arc::new(gate),
            transport: Arc::new(transport),
            credentials_file,
            patience,
            seats: Mutex::default(),
        }
    }

    /// Whom to ask for a source and as whom; `own` are the application's credentials, empty for none.
    ///
    /// # Errors
    /// Credentials that cannot be read or are not for this user.
    pub(crate) async fn file(
        &self,
        place: &RemotePlace,
        user: &str,
        own: &[u8],
    ) -> Result<RemoteFile, FetchError> {
        let own = std::str::from_utf8(own)
            .map_err(|e| e.to_string())
            .and_then(|text| Stores::parse(text, false))
            .map_err(|words| {
                FetchError::Place(format!(
                    "the application's object store credentials: {words}"
                ))
            })?;
        // Read each time: keys are changed without a restart.
        let nodes = if self.credentials_file.as_os_str().is_empty() {
            Stores::default()
        } else {
            let path = self.credentials_file.clone();
            let reading = tokio::task::spawn_blocking(move || Stores::read(&path));
            let read = reading
                .await
                .map_err(|e| FetchError::Place(e.to_string()))?;
            read.map_err(|words| {
                FetchError::Place(format!("the node's localizer.credentials_file: {words}"))
            })?
        };
        let chosen = choose(place, user, &own, &nodes)?;
        self.origin(place, &chosen)
    }

    fn origin(&self, place: &RemotePlace, chosen: &Chosen) -> Result<RemoteFile, FetchError> {
        let entry = &chosen.entry;
        let transport = self.transport.clone();
        let mut gate = self.gate.clone();
        let origin = match place {
            RemotePlace::Web(url) => {
                let authorization = entry.authorization().map(|text| {
                    let mut value = HeaderValue::try_from(text)?;
                    value.set_sensitive(true);
                    Ok(value)
                });
                let authorization =
                    authorization
                        .transpose()
                        .map_err(|e: http::header::InvalidHeaderValue| {
                            FetchError::Place(format!("its credentials cannot be sent: {e}"))
                        })?;
                Origin::Web(WebFile {
                    url: url.clone(),
                    authorization,
                    gate,
                    transport,
                })
            }
            RemotePlace::Object(object) => {
                if chosen.is_nodes && !entry.endpoint.is_empty() {
                    gate = Arc::new(gate.and(host_of(&web(&entry.endpoint)?)?));
                }
                Origin::Store(StoreFile::new(object, entry, Client { gate, transport })?)
            }
        };
        Ok(RemoteFile {
            origin,
            endpoint: entry.endpoint.clone(),
            for_everybody: chosen.for_everybody,
        })
    }

    /// A place among what the user fetches; the others wait.
    pub(crate) async fn seat(&self, user: &str) -> Option<OwnedSemaphorePermit> {
        let seats = {
            // Every change is one statement, so a panic elsewhere leaves the map consistent.
            let mut all = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, seats| Arc::strong_count(seats) > 1);
            let seats = all
                .entry(user.to_owned())
                .or_insert_with(|| Arc::new(Semaphore::new(SEATS_PER_USER)));
            seats.clone()
        };
        seats.acquire_owned().await.ok()
    }
}

fn host_of(endpoint: &Url) -> Result<AllowedHost, FetchError> {
    let host = endpoint.host_str().unwrap_or("");
    let port = endpoint.port_or_known_default().unwrap_or(0);
    AllowedHost::parse(&format!("{host}:{port}"))
        .ok_or_else(|| FetchError::Place(format!("the endpoint {endpoint} names no host")))
}

#[cfg(test)]
pub(crate) mod tests;
