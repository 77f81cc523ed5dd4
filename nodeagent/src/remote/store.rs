//! An object of S3, Azure or Google Cloud Storage, by way of the `object_store` library.
//!
//! The library signs requests and reads answers; the connections are the agent's own
//! ([`super::transport`]), so that every address is judged and nothing of the environment counts. It
//! always gets credentials, empty ones for unsigned requests: without any it would ask the metadata
//! service of the cloud that the node is in.

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::azure::{AzureAccessKey, AzureCredential, MicrosoftAzureBuilder, split_sas};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::gcp::{GcpCredential, GcpSigningCredential, GoogleCloudStorageBuilder};
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, RetryConfig,
    StaticCredentialProvider,
};

use super::credentials::StoreEntry;
use super::gate::Gate;
use super::place::{ObjectPlace, StoreKind, web};
use super::said::Said;
use super::transfer::Opened;
use super::transport::{Fault, Transport, is_passing, refusal};
use crate::fetch::FetchError;

/// Of an answer that the library reads whole: a token, a refusal.
const SMALL_BYTES_MAX: usize = 256 << 10;

/// An object and whom to ask for it.
#[derive(Clone, Debug)]
pub(crate) struct StoreFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
}

impl StoreFile {
    /// # Errors
    /// Its key or credentials cannot be used.
    pub(crate) fn new(
        place: &ObjectPlace,
        entry: &StoreEntry,
        client: Client,
    ) -> Result<StoreFile, FetchError> {
        let path = Path::parse(&place.key)
            .map_err(|e| FetchError::Place(format!("its key cannot be used: {e}")))?;
        let store = match place.kind {
            StoreKind::S3 => s3(place, entry, client),
            StoreKind::Azure => azure(place, entry, client),
            StoreKind::Gcs => gcs(place, entry, client),
        };
        let store = store.map_err(|e| {
            let words = in_words(&e);
            FetchError::Place(format!("the credentials for {}: {words}", place.store()))
        })?;
        Ok(StoreFile { store, path })
    }

    /// # Errors
    /// It cannot be had, in words.
    pub(crate) async fn look(&self) -> Result<Said, FetchError> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let result = self.store.get_opts(&self.path, options).await;
        Ok(said(&result.map_err(|e| refused(&e))?.meta))
    }

    /// Its bytes from `from` on, if it is still what `known` says.
    ///
    /// # Errors
    /// It cannot be had, in words; `Changed` when it is another one.
    pub(crate) async fn open(&self, from: u64, known: Option<&Said>) -> Result<Opened, FetchError> {
        let options = GetOptions {
            range: (from > 0).then_some(GetRange::Offset(from)),
            if_match: known.and_then(Said::strong_etag).map(str::to_owned),
            ..GetOptions::default()
        };
        let result = self.store.get_opts(&self.path, options).await;
        let result = result.map_err(|e| refused(&e))?;
        Ok(Opened {
            said: said(&result.meta),
            start: result.range.start,
            body: result
                .into_stream()
                .map(|piece| piece.map_err(|e| refused(&e)))
                .boxed(),
        })
    }
}

fn said(meta: &ObjectMeta) -> Said {
    Said {
        size: Some(meta.size),
        etag: meta.e_tag.clone(),
        // The library's word for a time that was not said.
        modified_ms: u64::try_from(meta.last_modified.timestamp_millis())
            .ok()
            .filter(|ms| *ms > 0),
    }
}

fn in_words(error: &object_store::Error) -> String {
    let words = crate::launch::chain(error);
    (words.chars().filter(|c| !c.is_control()).take(500)).collect()
}

/// The library's error as ours: what the transport said lies at the bottom of it.
fn refused(error: &object_store::Error) -> FetchError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(fault) = inner.downcast_ref::<Fault>() {
            return fault.clone().into();
        }
        cause = inner.source();
    }
    let is = |status: http::StatusCode, words: &str| {
        FetchError::Place(format!("its store says: {status}, {words}"))
    };
    use object_store::Error as E;
    if matches!(error, E::Precondition { .. } | E::NotModified { .. }) {
        return FetchError::Changed;
    }
    if matches!(error, E::NotFound { .. }) {
        return is(http::StatusCode::NOT_FOUND, "there is no such object");
    }
    if matches!(
        error,
        E::PermissionDenied { .. } | E::Unauthenticated { .. }
    ) {
        return is(
            http::StatusCode::FORBIDDEN,
            "its credentials are not enough, or it has none: `bobbin submit --object-store`, or the \
             node's setting localizer.credentials_file",
        );
    }
    FetchError::Place(format!("its store: {}", in_words(error)))
}

type Built = Result<Arc<dyn ObjectStore>, object_store::Error>;

/// The tries are counted in one place, [`super::transfer`].
fn no_retry() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

fn s3(place: &ObjectPlace, entry: &StoreEntry, client: Client) -> Built {
    let credential = AwsCredential {
        key_id: entry.access_key_id.clone(),
        secret_key: entry.secret_access_key.clone(),
        token: (!entry.session_token.is_empty()).then(|| entry.session_token.clone()),
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.bucket)
        .with_region(if entry.region.is_empty() {
            "us-east-1"
        } else {
            &entry.region
        })
        .with_credentials(Arc::new(StaticCredentialProvider::new(credential)))
        .with_skip_signature(entry.is_unsigned())
        .with_virtual_hosted_style_request(entry.virtual_hosted)
        .with_allow_http(true)
        .with_retry(no_retry())
        .with_http_connector(client);
    if !entry.endpoint.is_empty() {
        builder = builder.with_endpoint(&entry.endpoint);
    }
    Ok(Arc::new(builder.build()?))
}

fn azure(place: &ObjectPlace, entry: &StoreEntry, client: Client) -> Built {
    let credential = if !entry.account_key.is_empty() {
        AzureCredential::AccessKey(AzureAccessKey::try_new(&entry.account_key).map_err(
            |source| object_store::Error::Generic {
                store: "MicrosoftAzure",
                source: Box::new(source),
            },
        )?)
    } else if !entry.sas_token.is_empty() {
        AzureCredential::SASToken(split_sas(&entry.sas_token)?)
    } else {
        AzureCredential::BearerToken(entry.bearer_token.clone())
    };
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&place.account)
        .with_container_name(&place.bucket)
        .with_credentials(Arc::new(StaticCredentialProvider::new(credential)))
        .with_skip_signature(entry.is_unsigned())
        .with_allow_http(true)
        .with_retry(no_retry())
        .with_http_connector(client);
    if !entry.endpoint.is_empty() {
        builder = builder.with_endpoint(entry.endpoint.clone());
    }
    Ok(Arc::new(builder.build()?))
}

fn gcs(place: &ObjectPlace, entry: &StoreEntry, client: Client) -> Built {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&place.bucket)
        .with_skip_signature(entry.is_unsigned())
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_retry(no_retry())
        .with_http_connector(client);
    if entry.service_account.is_empty() {
        let bearer = entry.bearer_token.clone();
        let signing = GcpSigningCredential {
            email: String::new(),
            private_key: None,
        };
        builder = builder
            .with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential {
                bearer,
            })))
            .with_signing_credentials(Arc::new(StaticCredentialProvider::new(signing)));
    } else {
        builder = builder.with_service_account_key(&entry.service_account);
    }
    if !entry.endpoint.is_empty() {
        builder = builder.with_base_url(&entry.endpoint);
    }
    Ok(Arc::new(builder.build()?))
}

/// The agent's connections, as the library wants them.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) gate: Arc<Gate>,
    pub(crate) transport: Arc<Transport>,
}

impl HttpConnector for Client {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

fn failed(error: FetchError) -> HttpError {
    if let FetchError::Away(words) = error {
        return HttpError::new(HttpErrorKind::Connect, Fault::Away(words));
    }
    HttpError::new(HttpErrorKind::Unknown, Fault::Final(error.to_string()))
}

#[async_trait]
impl HttpService for Client {
    /// No redirect is followed: what signed a request is for one host only.
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = web(&parts.uri.to_string()).map_err(failed)?;
        let body = body.collect().await?.to_bytes();
        let is_read = parts.method == Method::GET;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = parts.method;
        *request.uri_mut() = (parts.uri.path_and_query())
            .map(|target| target.as_str())
            .unwrap_or("/")
            .parse()
            .map_err(|e| failed(FetchError::Place(format!("it cannot be asked for: {e}"))))?;
        *request.headers_mut() = parts.headers;
        let response = self
            .transport
            .send(&self.gate, &url, request)
            .await
            .map_err(failed)?;
        if is_passing(response.status()) {
            return Err(failed(refusal(response).await.into()));
        }
        let is_file = is_read && response.status().is_success();
        let (parts, body) = response.into_parts();
        if is_file {
            let body = body.map_err(|fault| HttpError::new(HttpErrorKind::Interrupted, fault));
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)));
        }
        // The library reads these whole, however long they are.
        let small = match Limited::new(body, SMALL_BYTES_MAX).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(_) if parts.status.is_success() => {
                let words =
                    format!("its answer has more than {SMALL_BYTES_MAX} bytes, or broke off");
                return Err(failed(FetchError::Place(words)));
            }
            Err(_) => Bytes::new(),
        };
        Ok(HttpResponse::from_parts(
            parts,
            HttpResponseBody::from(small),
        ))
    }
}
