//! From a URL to a store: `file:///directory`, `az://container/prefix`, `memory:name`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use url::Url;

#[cfg(feature = "azure")]
use super::azure::{AzureAuth, AzureBlobStorage, AzureConfig};
use super::object_store::PART_BYTES;
use super::{CheckpointStorage, MemoryStorage, ObjectStoreStorage};
#[cfg(feature = "azure")]
use crate::Secret;
use crate::{Error, Result};

/// Parts of a file that are in memory at a time: four in flight and one that is being read.
const PARTS_HELD: usize = 5;
/// Smaller parts would only cost requests.
const PART_BYTES_MIN: usize = 64 << 10;

/// What a URL does not say.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The longest one call to a local directory may take (for files: one part). Default 60 s.
    pub timeout: Duration,
    /// Bytes that one file on its way to the store may hold, in whatever parts; `None`: the
    /// stores' defaults (20 to 40 MiB).
    pub file_bytes: Option<usize>,
    /// For `az:` URLs.
    #[cfg(feature = "azure")]
    pub azure: AzureConfig,
}

impl StoreOptions {
    /// Options from variables (see [`AzureConfig::from_variables`]), defaults for the rest.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> StoreOptions {
        #[cfg(not(feature = "azure"))]
        let _ = &variable;
        StoreOptions {
            timeout: Duration::from_secs(60),
            file_bytes: None,
            #[cfg(feature = "azure")]
            azure: AzureConfig::from_variables(variable),
        }
    }

    /// Bytes of a part, so that those in flight and the one that is being read keep to
    /// [`StoreOptions::file_bytes`]; at most `most`.
    fn part_bytes(&self, most: usize) -> usize {
        self.file_bytes.map_or(most, |bytes| (bytes / PARTS_HELD).max(PART_BYTES_MIN).min(most))
    }

    /// Options from the process's environment.
    pub fn from_environment() -> StoreOptions {
        StoreOptions::from_variables(|name| std::env::var(name).ok())
    }
}

/// Opens the store that a URL names.
///
/// - `file:///directory`: a local directory, made when it is not there.
/// - `az://container/prefix`: Azure Blob; account and identity come from the options. A query is
///   taken for a SAS.
/// - `memory:name`: a store of this process under that name; every call with it gets the same.
///
/// # Errors
/// A user error for a URL that names no store; an external one when the store cannot be used. No
/// error shows the URL's query.
pub fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn CheckpointStorage>> {
    if let Some(name) = url.strip_prefix("memory:") {
        return Ok(shared_memory(name.trim_start_matches('/')));
    }
    let shown = url.split('?').next().unwrap_or_default();
    let unknown = || {
        Error::user(format!(
            "{shown:?} names no checkpoint store: expected file:///directory, az://container/prefix or memory:name"
        ))
    };
    let parsed = Url::parse(url).map_err(|_| unknown())?;
    match parsed.scheme() {
        "file" => {
            let directory = parsed.to_file_path().map_err(|()| unknown())?;
            Ok(Arc::new(open_directory(&directory, options)?))
        }
        "az" => open_azure(&parsed, options),
        _ => Err(unknown()),
    }
}

fn open_directory(directory: &Path, options: &StoreOptions) -> Result<ObjectStoreStorage> {
    let storage = ObjectStoreStorage::directory(directory, options.timeout)?;
    Ok(storage.part_bytes(options.part_bytes(PART_BYTES)))
}

/// The store of this process under a name.
fn shared_memory(name: &str) -> Arc<dyn CheckpointStorage> {
    static STORES: Mutex<BTreeMap<String, Arc<MemoryStorage>>> = Mutex::new(BTreeMap::new());
    STORES.lock().entry(name.to_owned()).or_default().clone()
}

#[cfg(feature = "azure")]
fn open_azure(url: &Url, options: &StoreOptions) -> Result<Arc<dyn CheckpointStorage>> {
    let container = url.host_str().unwrap_or_default();
    let mut config = options.azure.clone();
    if let Some(sas) = url.query() {
        config.auth = AzureAuth::Sas(Secret::new(sas));
    }
    config.block_bytes = options.part_bytes(config.block_bytes);
    Ok(Arc::new(AzureBlobStorage::open(container, url.path(), &config)?))
}

#[cfg(not(feature = "azure"))]
fn open_azure(_: &Url, _: &StoreOptions) -> Result<Arc<dyn CheckpointStorage>> {
    Err(Error::user("az: URLs need the feature `azure`, which this program was built without"))
}

#[cfg(test)]
mod tests {
    use super::super::Cancellation;
    use super::*;

    fn options() -> StoreOptions {
        StoreOptions::from_variables(|_| None)
    }

    #[test]
    fn a_name_is_one_store_in_the_process() {
        let a = open("memory:open-test-a", &options()).unwrap();
        a.put("x", "1".into()).unwrap();
        assert!(open("memory:open-test-a", &options()).unwrap().get("x").unwrap().is_some());
        assert!(open("memory:open-test-b", &options()).unwrap().get("x").unwrap().is_none());
    }

    #[test]
    fn parts_keep_to_the_bytes_of_a_file_and_files_of_many_parts_come_back() {
        let mut options = options();
        assert_eq!(options.part_bytes(8 << 20), 8 << 20);
        for bytes in [1 << 20, 3 << 20, 64 << 20] {
            options.file_bytes = Some(bytes);
            assert!(options.part_bytes(8 << 20) * PARTS_HELD <= bytes, "{bytes}");
        }
        options.file_bytes = Some(1);
        let directory = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let local = directory.path().join("local");
        std::fs::write(&local, &content).unwrap();
        let storage = open(&format!("file://{}/store", directory.path().display()), &options).unwrap();
        assert_eq!(storage.put_file("a/b", &local, &Cancellation::default()).unwrap(), content.len() as u64);
        assert_eq!(storage.get("a/b").unwrap().unwrap(), content);
    }

    #[test]
    fn a_directory_is_made_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}/new/one", directory.path().display());
        open(&url, &options()).unwrap().put("a/b", "1".into()).unwrap();
        assert_eq!(open(&url, &options()).unwrap().get("a/b").unwrap().as_deref(), Some(&b"1"[..]));
        assert!(directory.path().join("new/one/a/b").is_file());
    }

    #[test]
    fn a_url_that_names_no_store_is_refused_without_its_query() {
        for bad in ["ftp://x?sig=HUSH", "not a url?sig=HUSH", "file://host?sig=HUSH", "az://A_B/x?sig=HUSH"] {
            let said = open(bad, &options()).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!said.is_empty() && !said.contains("HUSH"), "{bad}: {said}");
        }
    }
}
