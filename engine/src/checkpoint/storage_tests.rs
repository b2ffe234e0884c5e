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
    use thalweg_testkit::Azurite;

    use super::super::azure::{AzureAuth, AzureBlobStorage, AzureConfig, Secret};
    use super::super::{StoreOptions, open};
    use super::*;

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
        assert!(!error.is_retryable() && error.to_string().contains("a/b"), "{error}");

        let forged = "sv=2023-11-03&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00:00:00Z&sig=SECRETSECRET%3D";
        let wrong = AzureConfig { auth: AzureAuth::Sas(Secret::new(forged)), ..no_container };
        let storage = AzureBlobStorage::open("conformance", "", &wrong).unwrap();
        for error in [
            storage.get("a").unwrap_err(),
            storage.put("a", "x".into()).unwrap_err(),
            storage.put_if_absent("a", "x".into()).unwrap_err(),
            storage.list("a/").unwrap_err(),
        ] {
            assert!(!error.is_retryable(), "{error}");
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
        assert!(!format!("{storage:?} {wrong:?}").contains("SECRET"));
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
