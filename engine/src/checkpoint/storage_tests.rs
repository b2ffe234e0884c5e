//! The conformance suite over every store of ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::conformance::check_storage;
use super::layout::JobLayout;
use super::{CheckpointStorage, FaultyStorage, MemoryStorage, ObjectStoreStorage};

const TIMEOUT: Duration = Duration::from_secs(60);

fn check(storage: impl CheckpointStorage + 'static) {
    let scratch = tempfile::tempdir().unwrap();
    let storage: Arc<dyn CheckpointStorage> = Arc::new(storage);
    check_storage(&storage, "suite/of tests", scratch.path()).unwrap();
    assert!(storage.list("").unwrap().is_empty());
}

#[test]
fn memory_conforms() {
    check(MemoryStorage::new());
}

#[test]
fn a_faultless_faulty_store_conforms() {
    let inner = Arc::new(MemoryStorage::new());
    check(FaultyStorage::new(inner, JobLayout::new("job").unwrap(), Box::new(|_| Default::default())));
}

#[test]
fn object_store_in_memory_conforms() {
    check(ObjectStoreStorage::new(Arc::new(::object_store::memory::InMemory::new()), TIMEOUT));
}

#[test]
fn a_local_directory_conforms() {
    let directory = tempfile::tempdir().unwrap();
    check(ObjectStoreStorage::directory(directory.path(), TIMEOUT).unwrap());
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = ObjectStoreStorage::directory(&file.join("below"), TIMEOUT).err();
    assert!(refused.is_some_and(|error| error.to_string().contains("file/below")));
}

/// On Azurite, with a SAS.
#[cfg(feature = "azure")]
mod azurite {
    use std::io::{BufRead, BufReader, Read, Write};

    use thalweg_testkit::Azurite;

    use super::super::azure::{AzureAuth, AzureBlobStorage, AzureConfig};
    use super::super::{Cancellation, StoreOptions, open};
    use super::*;
    use crate::{ErrorKind, Secret};

    fn config(azurite: &Azurite) -> AzureConfig {
        AzureConfig {
            endpoint: Some(azurite.endpoint().to_owned()),
            create_container: true,
            ..AzureConfig::new(AzureAuth::Sas(Secret::new(azurite.account_sas().unwrap())))
        }
    }

    #[test]
    fn azure_conforms() {
        let azurite = Azurite::shared().unwrap();
        check(AzureBlobStorage::open("conformance", "", &config(azurite)).unwrap());
        check(AzureBlobStorage::open("conformance", "jobs/some prefix", &config(azurite)).unwrap());
    }

    #[test]
    fn a_url_with_the_environment_opens_it() {
        let azurite = Azurite::shared().unwrap();
        let sas = azurite.account_sas().unwrap();
        let options = StoreOptions::from_variables(|name| match name {
            "AZURE_STORAGE_ENDPOINT" => Some(azurite.endpoint().to_owned()),
            "AZURE_STORAGE_SAS_TOKEN" => Some(sas.clone()),
            "AZURE_STORAGE_CREATE_CONTAINER" => Some("true".into()),
            _ => None,
        });
        open("az://by-url/some/prefix", &options).unwrap().put("a/b", "1".into()).unwrap();
        let above = open("az://by-url", &options).unwrap();
        assert_eq!(above.get("some/prefix/a/b").unwrap().as_deref(), Some(&b"1"[..]));
        // A SAS in the URL works too, and wins.
        let other = StoreOptions::from_variables(|name| {
            (name == "AZURE_STORAGE_ENDPOINT").then(|| azurite.endpoint().to_owned())
        });
        let by_sas = open(&format!("az://by-url/some/prefix?{sas}"), &other).unwrap();
        assert_eq!(by_sas.get("a/b").unwrap().as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn errors_are_permanent_where_a_retry_cannot_help_and_show_no_secret() {
        let azurite = Azurite::shared().unwrap();
        let no_container = AzureConfig { create_container: false, ..config(azurite) };
        let storage = AzureBlobStorage::open("never-made", "", &no_container).unwrap();
        let error = storage.get("a/b").unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Store, false), "{error}");
        assert!(error.to_string().contains("a/b"), "{error}");

        let forged = "sv=2023-11-03&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00:00:00Z&sig=SECRETSECRET%3D";
        let wrong = AzureConfig { auth: AzureAuth::Sas(Secret::new(forged)), ..no_container };
        let storage = AzureBlobStorage::open("conformance", "", &wrong).unwrap();
        for error in [
            storage.get("a").unwrap_err(),
            storage.put("a", "x".into()).unwrap_err(),
            storage.put_if_absent("a", "x".into()).unwrap_err(),
            storage.list("a/").unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Store, false), "{error}");
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
        assert!(!format!("{storage:?} {wrong:?}").contains("SECRET"));
    }

    /// A blob service that takes every request, each after so long.
    fn slow_service(delay: Duration) -> AzureConfig {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = connection.unwrap();
                std::thread::spawn(move || while take_request(&connection, delay).is_some() {});
            }
        });
        AzureConfig {
            endpoint: Some(format!("http://127.0.0.1:{port}/devstoreaccount1")),
            ..AzureConfig::new(AzureAuth::Sas(Secret::new("sig=x")))
        }
    }

    fn take_request(connection: &std::net::TcpStream, delay: Duration) -> Option<()> {
        let mut reader = BufReader::new(connection);
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
        std::thread::sleep(delay);
        let mut writer = connection;
        writer.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").ok()
    }

    fn file_of(bytes: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; bytes]).unwrap();
        file
    }

    #[test]
    fn h6_a_file_may_take_as_long_as_it_moves() {
        let delay = Duration::from_millis(100);
        // Four times the patience in all; each block is through in a tenth of it.
        let config =
            AzureConfig { timeout: 10 * delay, tries: 2, block_bytes: 1 << 10, ..slow_service(delay) };
        let storage = AzureBlobStorage::open("slow", "", &config).unwrap();
        let file = file_of(160 * config.block_bytes);
        let started = Instant::now();
        storage.put_file("a/b", file.path(), &Cancellation::default()).unwrap();
        assert!(started.elapsed() > 2 * config.timeout, "too quick to show anything");
    }

    #[test]
    fn an_upload_that_stands_still_ends_when_it_is_cancelled() {
        let config = slow_service(Duration::from_secs(600));
        let storage = Arc::new(AzureBlobStorage::open("still", "", &config).unwrap());
        let cancelled = Cancellation::default();
        let (uploading, heeded) = (storage.clone(), cancelled.clone());
        let started = Instant::now();
        let upload = std::thread::spawn(move || {
            let file = file_of(1 << 20);
            uploading.put_file("a/b", file.path(), &heeded)
        });
        cancelled.cancel();
        assert!(upload.join().unwrap().unwrap_err().to_string().contains("cancelled"));
        assert!(started.elapsed() < config.timeout, "{:?}", started.elapsed());
    }

    #[test]
    fn a_store_that_is_away_fails_within_its_bound() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = unused.local_addr().unwrap().port();
        // Bound and accepting, but nobody answers.
        let silent = AzureConfig {
            endpoint: Some(format!("http://127.0.0.1:{port}/devstoreaccount1")),
            timeout: Duration::from_millis(200),
            tries: 3,
            ..AzureConfig::new(AzureAuth::Sas(Secret::new("sig=SECRET")))
        };
        let storage = AzureBlobStorage::open("silent", "", &silent).unwrap();
        let started = Instant::now();
        let error = storage.get("a").unwrap_err();
        assert!(error.is_retryable() && !error.to_string().contains("SECRET"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        drop(unused);
        let error = storage.put_if_absent("a", "x".into()).unwrap_err();
        assert!(error.is_retryable() && !error.to_string().contains("SECRET"), "{error}");
    }
}
