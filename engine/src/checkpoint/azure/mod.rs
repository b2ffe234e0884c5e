//! Checkpoint storage in Azure Blob, with Microsoft's own SDK.
//!
//! The rules: every request is bounded in time and tried a bounded number of times; files travel
//! in blocks, a few at a time, so memory is bounded; no error and no `Debug` shows a secret (the
//! SDK's errors name URLs, and a URL may carry a SAS: see `redact`).

mod auth;
mod redact;

use std::future::Future;
use std::num::NonZero;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use azure_core::http::{Body, ClientOptions, RetryOptions, StatusCode};
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

pub use auth::{AzureAuth, AzureConfig, Secret};

use super::blocking::block_on;
use super::layout::{check_path, check_prefix};
use super::{CheckpointStorage, ObjectInfo, PutOutcome};
use crate::{Error, Result};

/// Bytes of a block of an upload and of a part of a download, unless the configuration says less.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks of one file in flight.
const BLOCKS_IN_FLIGHT: usize = 4;
/// First wait before another try; doubles with every further one.
const RETRY_WAIT: Duration = Duration::from_millis(100);
/// Longest wait before another try.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// A file may take the time of a small request plus its length at this speed.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;
/// What a download, whose length is not known before, is given time for.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Checkpoint storage in one container of Azure Blob, below a prefix.
pub struct AzureBlobStorage {
    container: Arc<BlobContainerClient>,
    /// Empty, or ends in `/`.
    prefix: String,
    timeout: Duration,
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
            // Tries are counted here, where the time of each is bounded too.
            client_options: ClientOptions { retry: RetryOptions::none(), ..ClientOptions::default() },
            ..BlobContainerClientOptions::default()
        };
        let client = BlobContainerClient::new(url, credential, Some(options)).map_err(|error| {
            Error::user(format!("cannot open container {container}: {}", redact::describe(&error)))
        })?;
        let storage = AzureBlobStorage {
            container: Arc::new(client),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            timeout: config.timeout,
            tries: config.tries.max(1),
            block_bytes: config.block_bytes.max(1),
        };
        if config.create_container {
            storage.create_container(container)?;
        }
        Ok(storage)
    }

    fn create_container(&self, name: &str) -> Result<()> {
        let container = self.container.clone();
        self.call("making container", name, self.timeout, move || {
            let container = container.clone();
            async move {
                match container.create(None).await {
                    Err(error) if error.http_status() == Some(StatusCode::Conflict) => Ok(()),
                    other => other.map(drop),
                }
            }
        })
    }

    fn blob(&self, path: &str) -> Result<BlobClient> {
        check_path(path)?;
        Ok(self.container.blob_client(&format!("{}{path}", self.prefix)))
    }

    /// Runs `work` as often as the configuration allows, each time for at most `timeout`.
    fn call<T, W, F>(&self, what: &'static str, path: &str, timeout: Duration, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn() -> F + Send + 'static,
        F: Future<Output = azure_core::Result<T>> + Send + 'static,
    {
        let (tries, path) = (self.tries, path.to_owned());
        block_on(async move {
            let mut wait = RETRY_WAIT;
            let mut attempt = 1;
            loop {
                let error = match tokio::time::timeout(timeout, work()).await {
                    Ok(Ok(value)) => return Ok(value),
                    Ok(Err(error)) => redact::classify(what, &path, &error),
                    Err(_) => {
                        Error::external(format!("{what} {path}: no answer in {} ms", timeout.as_millis()))
                    }
                };
                if attempt >= tries || !error.is_retryable() {
                    return Err(error);
                }
                tracing::debug!(attempt, %error, "trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_WAIT_MAX);
                attempt += 1;
            }
        })
    }

    fn timeout_of_file(&self, bytes: u64) -> Duration {
        self.timeout + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND)
    }

    fn upload(&self, path: &str, data: Bytes, if_absent: bool) -> Result<PutOutcome> {
        let blob = Arc::new(self.blob(path)?);
        let (timeout, block_bytes) = (self.timeout_of_file(data.len() as u64), self.block_bytes);
        self.call("putting", path, timeout, move || {
            let (blob, data) = (blob.clone(), data.clone());
            async move {
                let options = upload_options(block_bytes);
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

    fn put_file(&self, path: &str, local: &Path) -> Result<u64> {
        let unreadable = |error| Error::external(format!("cannot read {}", local.display())).caused_by(error);
        let bytes = std::fs::metadata(local).map_err(unreadable)?.len();
        let (blob, local, block_bytes) = (Arc::new(self.blob(path)?), local.to_owned(), self.block_bytes);
        self.call("putting", path, self.timeout_of_file(bytes), move || {
            let (blob, local) = (blob.clone(), local.clone());
            async move {
                let file = tokio::fs::File::open(&local).await?;
                let stream = FileStream::builder(file).build().await?;
                let bytes = stream.len().unwrap_or_default();
                blob.upload(Body::from(stream).into(), Some(upload_options(block_bytes))).await?;
                Ok(bytes)
            }
        })
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let (blob, block_bytes) = (Arc::new(self.blob(path)?), self.block_bytes);
        self.call("reading", path, self.timeout, move || {
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
        let timeout = self.timeout_of_file(range.end.saturating_sub(range.start));
        self.call("reading", path, timeout, move || {
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
        self.call("reading", path, self.timeout_of_file(FILE_BYTES_MAX), move || {
            let (blob, local) = (blob.clone(), local.clone());
            async move {
                let found = match blob.download(Some(download_options(block_bytes, None))).await {
                    Ok(found) => found,
                    Err(error) if is_missing(&error) => return Ok(None),
                    Err(error) => return Err(error),
                };
                let mut file = tokio::fs::File::create(&local).await?;
                let mut chunks = found.body;
                let mut bytes = 0;
                while let Some(chunk) = chunks.try_next().await? {
                    bytes += chunk.len() as u64;
                    file.write_all(&chunk).await?;
                }
                file.flush().await?;
                Ok(Some(bytes))
            }
        })
    }

    fn version(&self, path: &str) -> Result<Option<String>> {
        let blob = Arc::new(self.blob(path)?);
        self.call("looking at", path, self.timeout, move || {
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
        let mut objects = self.call("listing", prefix, self.timeout, move || {
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
        self.call("deleting", path, self.timeout, move || {
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

fn upload_options(block_bytes: usize) -> BlockBlobClientUploadOptions<'static> {
    BlockBlobClientUploadOptions {
        parallel: NonZero::new(BLOCKS_IN_FLIGHT),
        partition_size: NonZero::new(block_bytes as u64),
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
