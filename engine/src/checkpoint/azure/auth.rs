//! Which account, and as whom (H3). The configuration is plain data; the environment is read by the
//! caller's look-up, so a test can say what it holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::http::Url;
use azure_identity::{
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};

use super::redact;
use crate::{Error, Result, Secret};

/// As whom requests are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureAuth {
    /// With a shared access signature: the query of a SAS URL, with or without its `?`. It needs
    /// the permissions to read, add, create, write, delete and list.
    Sas(Secret),
    /// As the workload identity of a Kubernetes pod. What is `None` is read from
    /// `AZURE_CLIENT_ID`, `AZURE_TENANT_ID` and `AZURE_FEDERATED_TOKEN_FILE`.
    WorkloadIdentity {
        /// The identity's client id.
        client_id: Option<String>,
        /// Its tenant.
        tenant_id: Option<String>,
        /// The file with the pod's service account token.
        token_file: Option<PathBuf>,
    },
    /// As the managed identity of a virtual machine or App Service; of the user-assigned one with
    /// `client_id`, or the system's.
    ManagedIdentity {
        /// The user-assigned identity's client id.
        client_id: Option<String>,
    },
}

/// Where the account is and how to talk to it.
#[derive(Clone, PartialEq, Eq)]
pub struct AzureConfig {
    /// The blob service, such as `https://account.blob.core.windows.net`, or
    /// `http://127.0.0.1:10000/devstoreaccount1` for Azurite. Made from `account` when `None`.
    pub endpoint: Option<String>,
    /// The storage account's name.
    pub account: Option<String>,
    /// As whom.
    pub auth: AzureAuth,
    /// Makes the container when it is not there. Default false.
    pub create_container: bool,
    /// How long a request may stand still before it is tried again; a file goes in many requests and
    /// takes as long as they move. Default 30 s.
    pub timeout: Duration,
    /// How often a request is tried. Default 5.
    pub tries: u32,
    /// Bytes of a block of an upload and of a part of a download; four of them are in flight.
    /// Default 4 MiB.
    pub block_bytes: usize,
}

impl std::fmt::Debug for AzureConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Somebody may have put a SAS into the endpoint.
        let endpoint = self.endpoint.as_deref().map(|url| url.split('?').next().unwrap_or_default());
        f.debug_struct("AzureConfig")
            .field("endpoint", &endpoint)
            .field("account", &self.account)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

impl AzureConfig {
    /// Configuration with the defaults for everything but the identity.
    pub fn new(auth: AzureAuth) -> AzureConfig {
        AzureConfig {
            endpoint: None,
            account: None,
            auth,
            create_container: false,
            timeout: Duration::from_secs(30),
            tries: 5,
            block_bytes: super::BLOCK_BYTES,
        }
    }

    /// Configuration from variables, as Azure's own tools name them: `AZURE_STORAGE_ENDPOINT`,
    /// `AZURE_STORAGE_ACCOUNT`, `AZURE_STORAGE_SAS_TOKEN`, and `AZURE_CLIENT_ID`,
    /// `AZURE_TENANT_ID`, `AZURE_FEDERATED_TOKEN_FILE` for identities; with
    /// `AZURE_STORAGE_CREATE_CONTAINER=true` the container is made. A SAS wins, then a workload
    /// identity, then a managed one.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> AzureConfig {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let client_id = variable("AZURE_CLIENT_ID");
        let auth = match (variable("AZURE_STORAGE_SAS_TOKEN"), variable("AZURE_FEDERATED_TOKEN_FILE")) {
            (Some(sas), _) => AzureAuth::Sas(Secret::new(sas)),
            (None, Some(file)) => AzureAuth::WorkloadIdentity {
                client_id,
                tenant_id: variable("AZURE_TENANT_ID"),
                token_file: Some(file.into()),
            },
            (None, None) => AzureAuth::ManagedIdentity { client_id },
        };
        AzureConfig {
            endpoint: variable("AZURE_STORAGE_ENDPOINT"),
            account: variable("AZURE_STORAGE_ACCOUNT"),
            create_container: variable("AZURE_STORAGE_CREATE_CONTAINER").is_some_and(|value| value == "true"),
            ..AzureConfig::new(auth)
        }
    }
}

/// The container's URL (with the SAS, if that is the identity) and the credential.
pub(super) fn connect(
    container: &str,
    config: &AzureConfig,
) -> Result<(Url, Option<Arc<dyn TokenCredential>>)> {
    let mut url = container_url(container, config)?;
    let credential: Option<Arc<dyn TokenCredential>> = match &config.auth {
        AzureAuth::Sas(sas) => {
            url.set_query(Some(sas.reveal().trim_start_matches('?')));
            None
        }
        AzureAuth::WorkloadIdentity { client_id, tenant_id, token_file } => {
            let options = WorkloadIdentityCredentialOptions {
                client_id: client_id.clone(),
                tenant_id: tenant_id.clone(),
                token_file_path: token_file.clone(),
                ..WorkloadIdentityCredentialOptions::default()
            };
            Some(
                WorkloadIdentityCredential::new(Some(options))
                    .map_err(|error| refused("workload", &error))?,
            )
        }
        AzureAuth::ManagedIdentity { client_id } => {
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                ..ManagedIdentityCredentialOptions::default()
            };
            Some(ManagedIdentityCredential::new(Some(options)).map_err(|error| refused("managed", &error))?)
        }
    };
    Ok((url, credential))
}

fn container_url(container: &str, config: &AzureConfig) -> Result<Url> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !(3..=63).contains(&container.len()) || !container.chars().all(allowed) {
        return Err(Error::user(format!(
            "container {container:?} must be 3 to 63 lower-case letters, digits or '-'"
        )));
    }
    let endpoint = match (&config.endpoint, &config.account) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some(account)) => format!("https://{account}.blob.core.windows.net"),
        (None, None) => {
            return Err(Error::user(
                "no storage account: set AZURE_STORAGE_ACCOUNT, or AZURE_STORAGE_ENDPOINT to the blob service's URL",
            ));
        }
    };
    // Neither message shows the endpoint: somebody may have put a SAS into it.
    let not_a_url = || Error::user("AZURE_STORAGE_ENDPOINT is not the URL of a blob service");
    let mut url = Url::parse(&endpoint).map_err(|_| not_a_url())?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() {
        return Err(not_a_url());
    }
    url.path_segments_mut().map_err(|()| not_a_url())?.pop_if_empty().push(container);
    Ok(url)
}

fn refused(kind: &str, error: &azure_core::Error) -> Error {
    Error::user(format!("cannot use the {kind} identity: {}", redact::describe(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> AzureConfig {
        AzureConfig::from_variables(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn h3_the_environment_chooses_the_identity() {
        let token = ("AZURE_FEDERATED_TOKEN_FILE", "/var/token");
        let client = ("AZURE_CLIENT_ID", "me");
        let sas = config(&[("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=x"), token, client]);
        assert_eq!(sas.auth, AzureAuth::Sas(Secret::new("sv=1&sig=x")));
        let workload = config(&[("AZURE_STORAGE_SAS_TOKEN", ""), token, client, ("AZURE_TENANT_ID", "t")]);
        assert_eq!(
            workload.auth,
            AzureAuth::WorkloadIdentity {
                client_id: Some("me".into()),
                tenant_id: Some("t".into()),
                token_file: Some("/var/token".into()),
            }
        );
        assert_eq!(config(&[client]).auth, AzureAuth::ManagedIdentity { client_id: Some("me".into()) });
    }

    #[test]
    fn urls_are_built_from_the_account_or_the_endpoint() {
        let account = config(&[("AZURE_STORAGE_ACCOUNT", "acc"), ("AZURE_STORAGE_SAS_TOKEN", "?sig=x")]);
        let (url, credential) = connect("state", &account).unwrap();
        assert_eq!(url.as_str(), "https://acc.blob.core.windows.net/state?sig=x");
        assert!(credential.is_none());
        let local = config(&[
            ("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1/dev/"),
            ("AZURE_STORAGE_SAS_TOKEN", "s=1"),
        ]);
        assert_eq!(connect("state", &local).unwrap().0.as_str(), "http://127.0.0.1:1/dev/state?s=1");
        for bad in ["a", "UPPER", "under_score"] {
            assert!(connect(bad, &account).unwrap_err().to_string().contains(bad));
        }
        assert!(connect("state", &config(&[])).unwrap_err().to_string().contains("AZURE_STORAGE_ACCOUNT"));
    }

    #[test]
    fn h3_identities_are_wired() {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, "jwt").unwrap();
        let mut workload = AzureConfig::new(AzureAuth::WorkloadIdentity {
            client_id: Some("00000000-0000-0000-0000-000000000001".into()),
            tenant_id: Some("00000000-0000-0000-0000-000000000002".into()),
            token_file: Some(token),
        });
        workload.account = Some("acc".into());
        let (url, credential) = connect("state", &workload).unwrap();
        assert!(credential.is_some() && url.query().is_none());
        let mut managed = AzureConfig::new(AzureAuth::ManagedIdentity { client_id: None });
        managed.account = Some("acc".into());
        assert!(connect("state", &managed).unwrap().1.is_some());
    }

    #[test]
    fn no_debug_and_no_error_shows_the_secret() {
        let leaky = config(&[
            ("AZURE_STORAGE_SAS_TOKEN", "sig=HUSH"),
            ("AZURE_STORAGE_ENDPOINT", "http://h/acc?sig=HUSH"),
        ]);
        assert!(!format!("{leaky:?}").contains("HUSH"));
        assert!(!connect("state", &leaky).unwrap_err().to_string().contains("HUSH"));
    }
}
