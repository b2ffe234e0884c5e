//! Checkpoint storage in Azure Blob, with Microsoft's own SDK.
//!
//! The rules: a request that stands still is given up (see `patience`) and a call is tried a bounded
//! number of times; files travel in blocks, a few at a time, so memory is bounded, and in smaller
//! blocks when larger ones did not get through; no error and no `Debug` shows a secret (the SDK's
//! errors name URLs, and a URL may carry a SAS: see `redact`).

mod auth;
mod patience;
mod redact;

use std::future::Future;
use std::num::NonZero;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use azure_core::http::{Body, ClientOptions, RetryOptions, StatusCode, Transport};
use azure_core::stream::SeekableStream;
use azure_storage_blob::models::{
    BlobClientDownloadOptions, BlobClientGetPropertiesResultHeaders, BlobContainerClientListBlobsOptions,
    BlockBlobClientUploadOptions, HttpRange,
};
use azure_storage_blob::stream::tokio::FileStream;
use azure_storage_blob::{BlobClient, BlobContainerClient, BlobContainerClientOptions};
use bytes::Bytes;
use futures::TryStreamExt;
use tokio::io::AsyncWriteExt;

pub use auth::{AzureAuth, AzureConfig};

use self::patience::PatientClient;
use super::blocking::block_on;
use super::layout::{check_path, check_prefix};
use super::{Cancellation, CheckpointStorage, ObjectInfo, PutOutcome};
use crate::{Error, Result};

/// Bytes of a block of an upload and of a part of a download, unless the configuration says less.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks of one file in flight.
const BLOCKS_IN_FLIGHT: usize = 4;
/// Smaller blocks than this would only cost requests.
const BLOCK_BYTES_MIN: usize = 64 << 10;
/// A blob has at most so many blocks.
const BLOCKS_MAX: u64 = 50_000;
/// How long a container that is to be made waits for the account to answer.
const CONTAINER_WAIT: Duration = Duration::from_secs(60);
/// First wait before another try; doubles with every further one.
const RETRY_WAIT: Duration = Duration::from_millis(100);
/// Longest wait before another try.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// Checkpoint storage in one container of Azure Blob, below a prefix.
pub struct AzureBlobStorage {
    container: Arc<BlobContainerClient>,
    /// Empty, or ends in `/`.
    prefix: String,
    tries: u32,
    block_bytes: usize,
}

impl AzureBlobStorage {
    /// Opens a container; makes it when the configuration says so. `prefix` has no trailing slash.
    ///
    /// # Errors
    /// A user error when the configuration is incomplete, an external one when the container was
    /// to be made and could not.
    pub fn open(container: &str, prefix: &str, config: &AzureConfig) -> Result<AzureBlobStorage> {
        let prefix = prefix.trim_matches('/');
        if !prefix.is_empty() {
            check_path(prefix)?;
        }
        let (url, credential) = auth::connect(container, config)?;
        let options = BlobContainerClientOptions {
            // Tries are counted here; the time that each may stand still is the client's business.
            client_options: ClientOptions {
                retry: RetryOptions::none(),
                transport: Some(Transport::new(Arc::new(PatientClient::new(config.timeout)))),
                ..ClientOptions::default()
            },
            ..BlobContainerClientOptions::default()
        };
        let client = BlobContainerClient::new(url, credential, Some(options)).map_err(|error| {
            Error::user(format!("cannot open container {container}: {}", redact::describe(&error)))
        })?;
        let storage = AzureBlobStorage {
            container: Arc::new(client),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            tries: config.tries.max(1),
            block_bytes: config.block_bytes.max(1),
        };
        if config.create_container {
            storage.create_container(container)?;
        }
        Ok(storage)
    }

    fn create_container(&self, name: &str) -> Result<()> {
        let (started, container) = (Instant::now(), self.container.clone());
        loop {
            let container = container.clone();
            let made = self.call("making container", name, move |_| {
                let container = container.clone();
                async move {
                    match container.create(None).await {
                        Err(error) if error.http_status() == Some(StatusCode::Conflict) => Ok(()),
                        other => other.map(drop),
                    }
                }
            });
            match made {
                Err(error) if error.is_retryable() && started.elapsed() < CONTAINER_WAIT => {
                    tracing::warn!(%error, "waiting for the storage account");
                }
                other => return other,
            }
        }
    }

    fn blob(&self, path: &str) -> Result<BlobClient> {
        check_path(path)?;
        Ok(self.container.blob_client(&format!("{}{path}", self.prefix)))
    }

    /// Runs `work` as often as the configuration allows; it is told how often it failed before.
    fn call<T, W, F>(&self, what: &'static str, path: &str, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(u32) -> F + Send + 'static,
        F: Future<Output = azure_core::Result<T>> + Send + 'static,
    {
        block_on(retried(self.tries, what, path.to_owned(), work))
    }

    fn upload(&self, path: &str, data: Bytes, if_absent: bool) -> Result<PutOutcome> {
        let (blob, block_bytes) = (Arc::new(self.blob(path)?), self.block_bytes);
        self.call("putting", path, move |failures| {
            let (blob, data) = (blob.clone(), data.clone());
            async move {
                let options = upload_options(block_bytes, data.len() as u64, failures);
                let options = if if_absent { options.if_not_exists() } else { options };
                match blob.upload(data.into(), Some(options)).await {
                    Ok(_) => Ok(PutOutcome::Created),
                    Err(error) if if_absent && is_taken(&error) => Ok(PutOutcome::Exists),
                    Err(error) => Err(error),
                }
            }
        })
    }
}

impl CheckpointStorage for AzureBlobStorage {
    fn put(&self, path: &str, data: Bytes) -> Result<()> {
        self.upload(path, data, false).map(|_| ())
    }

    fn put_if_absent(&self, path: &str, data: Bytes) -> Result<PutOutcome> {
        self.upload(path, data, true)
    }

    fn put_file(&self, path: &str, local: &Path, cancelled: &Cancellation) -> Result<u64> {
        let (blob, local, block_bytes) = (Arc::new(self.blob(path)?), local.to_owned(), self.block_bytes);
        let put = move |failures| {
            let (blob, local) = (blob.clone(), local.clone());
            async move {
                let file = tokio::fs::File::open(&local).await?;
                let stream = FileStream::builder(file).build().await?;
                let bytes = stream.len().unwrap_or_default();
                let options = upload_options(block_bytes, bytes, failures);
                blob.upload(Body::from(stream).into(), Some(options)).await?;
                Ok(bytes)
            }
        };
        let (tries, path, cancelled) = (self.tries, path.to_owned(), cancelled.clone());
        block_on(async move { cancelled.bound(retried(tries, "putting", path, put)).await })
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let (blob, block_bytes) = (Arc::new(self.blob(path)?), self.block_bytes);
        self.call("reading", path, move |_| {
            let blob = blob.clone();
            async move {
                match blob.download(Some(download_options(block_bytes, None))).await {
                    Ok(found) => Ok(Some(found.body.collect().await?)),
                    Err(error) if is_missing(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        })
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let (blob, block_bytes) = (Arc::new(self.blob(path)?), self.block_bytes);
        self.call("reading", path, move |_| {
            let (blob, range) = (blob.clone(), range.clone());
            async move {
                // The SDK refuses an empty range; one byte tells whether the blob is there.
                let is_empty = range.is_empty();
                let wanted = HttpRange::new(range.start, range.end.saturating_sub(range.start).max(1));
                match blob.download(Some(download_options(block_bytes, Some(wanted)))).await {
                    Ok(_) if is_empty => Ok(Some(Bytes::new())),
                    Ok(found) => Ok(Some(found.body.collect().await?)),
                    Err(error) if is_missing(&error) => Ok(None),
                    Err(error) if error.http_status() == Some(StatusCode::RequestedRangeNotSatisfiable) => {
                        Ok(Some(Bytes::new()))
                    }
                    Err(error) => Err(error),
                }
            }
        })
    }

    fn get_file(&self, path: &str, local: &Path) -> Result<Option<u64>> {
        let (blob, local, block_bytes) = (Arc::new(self.blob(path)?), local.to_owned(), self.block_bytes);
        // The local disk's failures are not the store's: they are answers to the call.
        self.call("reading", path, move |_| {
            let (blob, local) = (blob.clone(), local.clone());
            async move {
                let found = match blob.download(Some(download_options(block_bytes, None))).await {
                    Ok(found) => found,
                    Err(error) if is_missing(&error) => return Ok(Ok(None)),
                    Err(error) => return Err(error),
                };
                let mut file = match tokio::fs::File::create(&local).await {
                    Ok(file) => file,
                    Err(error) => return Ok(Err(unwritable(&local, error))),
                };
                let mut chunks = found.body;
                let mut bytes = 0;
                while let Some(chunk) = chunks.try_next().await? {
                    bytes += chunk.len() as u64;
                    if let Err(error) = file.write_all(&chunk).await {
                        return Ok(Err(unwritable(&local, error)));
                    }
                }
                Ok(file.flush().await.map(|()| Some(bytes)).map_err(|error| unwritable(&local, error)))
            }
        })?
    }

    fn version(&self, path: &str) -> Result<Option<String>> {
        let blob = Arc::new(self.blob(path)?);
        self.call("looking at", path, move |_| {
            let blob = blob.clone();
            async move {
                match blob.get_properties(None).await {
                    Ok(found) => Ok(found.etag()?.map(|etag| etag.to_string())),
                    Err(error) if is_missing(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        })
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        check_prefix(prefix)?;
        let (container, root) = (self.container.clone(), self.prefix.clone());
        let full = format!("{root}{prefix}");
        let mut objects = self.call("listing", prefix, move |_| {
            let (container, root, full) = (container.clone(), root.clone(), full.clone());
            async move {
                let wanted = BlobContainerClientListBlobsOptions {
                    prefix: (!full.is_empty()).then_some(full),
                    ..BlobContainerClientListBlobsOptions::default()
                };
                let mut blobs = container.list_blobs(Some(wanted))?;
                let mut objects = Vec::new();
                while let Some(blob) = blobs.try_next().await? {
                    let bytes =
                        blob.properties.and_then(|properties| properties.content_length).unwrap_or_default();
                    let name = blob.name.unwrap_or_default();
                    if let Some(path) = name.strip_prefix(&root) {
                        objects.push(ObjectInfo { path: path.to_owned(), bytes });
                    }
                }
                Ok(objects)
            }
        })?;
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(objects)
    }

    fn delete(&self, path: &str) -> Result<()> {
        let blob = Arc::new(self.blob(path)?);
        self.call("deleting", path, move |_| {
            let blob = blob.clone();
            async move {
                match blob.delete(None).await {
                    Err(error) if is_missing(&error) => Ok(()),
                    other => other.map(drop),
                }
            }
        })
    }
}

impl std::fmt::Debug for AzureBlobStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut url = self.container.url().clone();
        url.set_query(None);
        f.debug_struct("AzureBlobStorage")
            .field("container", &url.as_str())
            .field("prefix", &self.prefix)
            .finish()
    }
}

/// Runs `work` up to `tries` times, with growing waits between; it is told how often it failed before.
async fn retried<T, F>(tries: u32, what: &'static str, path: String, work: impl Fn(u32) -> F) -> Result<T>
where
    F: Future<Output = azure_core::Result<T>>,
{
    let mut wait = RETRY_WAIT;
    let mut failures = 0;
    loop {
        let error = match work(failures).await {
            Ok(value) => return Ok(value),
            Err(error) => redact::classify(what, &path, &error),
        };
        failures += 1;
        if failures >= tries || !error.is_retryable() {
            return Err(error);
        }
        tracing::debug!(failures, %error, "trying again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_WAIT_MAX);
    }
}

fn unwritable(local: &Path, error: std::io::Error) -> Error {
    Error::external(format!("cannot write {}", local.display())).caused_by(error)
}

/// Several blocks at a time at first; after a failure smaller ones, one after the other, so that each
/// gets through where the way is narrow.
fn upload_options(block_bytes: usize, bytes: u64, failures: u32) -> BlockBlobClientUploadOptions<'static> {
    let smaller = block_bytes.checked_shr(2 * failures).unwrap_or(0).max(BLOCK_BYTES_MIN);
    let block_bytes = (smaller.min(block_bytes) as u64).max(bytes.div_ceil(BLOCKS_MAX));
    BlockBlobClientUploadOptions {
        parallel: NonZero::new(if failures == 0 { BLOCKS_IN_FLIGHT } else { 1 }),
        partition_size: NonZero::new(block_bytes),
        ..BlockBlobClientUploadOptions::default()
    }
}

fn download_options(block_bytes: usize, range: Option<HttpRange>) -> BlobClientDownloadOptions<'static> {
    BlobClientDownloadOptions {
        parallel: NonZero::new(BLOCKS_IN_FLIGHT),
        partition_size: NonZero::new(block_bytes),
        range,
        ..BlobClientDownloadOptions::default()
    }
}

/// A put-if-absent that found an object: 409 `BlobAlreadyExists`, or 412 where the service checks
/// the condition first.
fn is_taken(error: &azure_core::Error) -> bool {
    matches!(error.http_status(), Some(StatusCode::PreconditionFailed))
        || redact::service_code(error).is_some_and(|code| code == "BlobAlreadyExists")
}

/// The blob is missing. A missing container is another matter: nothing could be written either.
fn is_missing(error: &azure_core::Error) -> bool {
    error.http_status() == Some(StatusCode::NotFound)
        && redact::service_code(error).is_none_or(|code| code != "ContainerNotFound")
}
